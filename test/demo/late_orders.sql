-- Orders as they come in over the day: each with its jobs in a transaction of its
-- own, and a pause of 5 ms after each.

CREATE TEMP TABLE late_order (LIKE orders);
\copy late_order FROM late_orders.csv WITH (FORMAT csv)

DO $$
DECLARE
	late late_order;
BEGIN
	FOR late IN SELECT * FROM late_order ORDER BY id LOOP
		INSERT INTO orders SELECT late.*;
		IF late.email IS NOT NULL THEN
			PERFORM qml_enqueue('send_receipt', jsonb_build_object('order_id', late.id), queue => 'receipts');
		END IF;
		COMMIT;
		PERFORM pg_sleep(0.005);
	END LOOP;
END $$;
