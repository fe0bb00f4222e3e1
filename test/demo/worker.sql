-- One round of a worker outside the server: wait for a job, claim it, do it.
--
-- A claim commits before the work begins, so that everybody knows who is at it.  A
-- lease of 0 binds it to this session: if the worker dies, the job is given to
-- another one at once.  The receipt and the end of the job are one transaction, so
-- they take effect together, once.  (What a worker does outside the database cannot
-- be undone with it, and may happen again if the worker dies before the COMMIT.)
--
-- \gset keeps the columns of a row in variables.  Without a row it keeps what was
-- there before, hence \unset.

CALL qml_wait(ARRAY['receipts'], '1 s');                -- sleep until there is a job
\unset id
SELECT id, attempt, payload->>'order_id' AS order_id    -- claim it until this session ends
	FROM qml_fetch(:'worker', ARRAY['receipts'], lease => '0') \gset
\if :{?id}
	BEGIN;
	INSERT INTO receipt VALUES (:order_id, :'worker');  -- the work
	SELECT qml_succeed(:'id', :attempt);                -- and the end of the job: both, or neither
	COMMIT;
\endif
