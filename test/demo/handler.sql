-- A handler: a function that workers inside the server call for each job of a
-- method.  The keys of the job's payload become its arguments.
--
-- What the function writes and the end of its job are one transaction.  An error
-- undoes what it wrote; then the job is tried once more, about a second later.

CREATE FUNCTION bill_order(order_id int, amount numeric) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO invoice VALUES (order_id, amount);
	IF amount > 500 THEN
		RAISE EXCEPTION 'the card was declined';    -- undoes the INSERT, too
	END IF;
END $$;
SELECT qml_register_handler('bill_order', 'bill_order', '{"queue": "billing", "max_retries": 1}');
