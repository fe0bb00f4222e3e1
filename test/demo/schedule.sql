-- A schedule: a job every two seconds, for a handler without arguments.  The cron
-- expression begins with the second.  "fire_all" makes up for the times that pass
-- while the server is down.

CREATE FUNCTION report_sales() RETURNS void LANGUAGE sql
	AS $$ INSERT INTO report SELECT now(), count(*), sum(amount) FROM invoice $$;
SELECT qml_register_handler('report_sales', 'report_sales', '{"queue": "reports"}');
SELECT qml_schedule_recurring('sales report', '*/2 * * * * *', 'report_sales', misfire => 'fire_all');
