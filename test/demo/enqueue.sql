-- Own rows and jobs in one transaction.  The trigger (trigger.sql) enqueues the
-- billing of each order; the receipts are enqueued by hand.

BEGIN;
\copy orders FROM orders.csv WITH (FORMAT csv)
SELECT qml_enqueue('send_receipt', jsonb_build_object('order_id', id), queue => 'receipts')
	FROM orders WHERE email IS NOT NULL;
COMMIT;
