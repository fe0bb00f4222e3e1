-- A trigger that enqueues a job for each new row.  The job is part of the
-- transaction that inserts the row: it exists if, and only if, that commits.

CREATE FUNCTION enqueue_billing() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM qml_enqueue('bill_order', jsonb_build_object('order_id', NEW.id, 'amount', NEW.amount));
	RETURN NULL;
END $$;
CREATE TRIGGER billing AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION enqueue_billing();
