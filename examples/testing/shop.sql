-- What the tests in this folder test: orders, and two jobs about them that run in the database.
-- Made once, by an administrator.  The application, and so its tests, connect as the role "shop",
-- which is also the role of the handlers: that is what qml_run() and qml_drain() ask for.

CREATE ROLE shop LOGIN;
CREATE TABLE orders (id int PRIMARY KEY, customer text NOT NULL, shipped_at timestamptz);
CREATE TABLE receipts (order_id int REFERENCES orders, customer text NOT NULL);
GRANT SELECT, INSERT, UPDATE ON orders, receipts TO shop;

-- Ships an order, and has its receipt sent.
CREATE FUNCTION ship("order" int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	UPDATE orders SET shipped_at = now() WHERE id = "order";
	IF NOT FOUND THEN
		RAISE EXCEPTION 'there is no order %', "order" USING ERRCODE = 'no_data_found';
	END IF;
	PERFORM qml_enqueue('send_receipt', jsonb_build_object('order', "order"), queue => 'mail');
END
$$;

-- Sends a receipt; reminds of it a day later.
CREATE FUNCTION send_receipt("order" int, reminder boolean DEFAULT false) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	name text := (SELECT customer FROM orders WHERE id = "order");
BEGIN
	INSERT INTO receipts VALUES ("order", name);
	IF NOT reminder THEN
		PERFORM qml_enqueue('send_receipt', jsonb_build_object('order', "order", 'reminder', true),
			queue => 'mail', delay => '1 day');
	END IF;
	RETURN name;
END
$$;

SELECT qml_create_queue('orders'), qml_create_queue('mail');
SELECT qml_register_handler('ship', 'ship', '{"run_as": "shop"}'),
	qml_register_handler('send_receipt', 'send_receipt', '{"run_as": "shop"}');
SELECT qml_grant('shop', 'enqueue'), qml_grant('shop', 'work');
