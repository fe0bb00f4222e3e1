-- The shop's own tables, and nothing of qml.
--
-- An invoice, a receipt or a report that is made twice is two rows: no key forbids
-- it.  That there is one for each job is qml's doing, and the demo counts them.

CREATE TABLE orders (
	id int PRIMARY KEY,
	customer text NOT NULL,
	email text,
	amount numeric(10, 2) NOT NULL
);

CREATE TABLE invoice (
	order_id int NOT NULL,
	amount numeric(10, 2) NOT NULL
);

CREATE TABLE receipt (
	order_id int NOT NULL,
	worker text NOT NULL
);

CREATE TABLE report (
	made_at timestamptz NOT NULL,
	invoices bigint NOT NULL,
	amount numeric
);
