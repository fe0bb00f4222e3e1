--
-- What is said of queues that come into being by being named.
--
SELECT t.reset();
SET qml.new_queues = notice;

-- A queue that is made says so, once; the default queue needs nobody to name it
SELECT qml_enqueue('m', queue => 'mail') IS NOT NULL;
SELECT qml_enqueue('m', queue => 'mail') IS NOT NULL, qml_enqueue('m') IS NOT NULL;
-- ... with what it may have been meant for
SELECT qml_enqueue('m', queue => 'mails') IS NOT NULL;
SELECT qml_enqueue('m', queue => 'Mail') IS NOT NULL;
SELECT qml_enqueue('email', '{}', '1 hour') IS NOT NULL;
SELECT qml_enqueue('email', '{}', '2030-01-01') IS NOT NULL;
SELECT qml_enqueue('email', '{}', '{"retries": 1}') IS NOT NULL;
SELECT qml_enqueue('m', queue => '2fa') IS NOT NULL;
SELECT count(*) FROM qml_enqueue_many('m', '{1,2}', 'many'), qml_try_enqueue('m', queue => 'tried');
SELECT qml_schedule_recurring('s', '@daily', 'm', queue => 'scheduled') > now();
SELECT qml_schedule_recurring('s', '@daily', 'm', queue => 'scheduled') > now();
-- Made on purpose, and brought back by a retry
SELECT qml_create_queue('made');
SELECT qml_enqueue('m', queue => 'back', id => t.id(1)) = t.id(1) AS made, qml_set_state(t.id(1), 'failed') IS NOT NULL;
SELECT qml_drop_queue('back'), qml_retry(t.id(1));
-- Named for later
CREATE ROLE regress_qml_role;
SELECT qml_grant('regress_qml_role', 'enqueue', 'mail'), qml_grant('regress_qml_role', 'enqueue', 'mial');
CREATE FUNCTION t.handle() RETURNS void LANGUAGE sql AS 'SELECT';
SELECT qml_register_handler('h', 't.handle', '{"queue": "handled"}');
SELECT qml_enqueue('h') IS NOT NULL;
SELECT qml_register_handler('h', 't.handle', '{"queue": "handled"}');
-- Names of queues that a role does not see are not told
SELECT qml_grant('regress_qml_role', 'enqueue', 'secreet');
SELECT qml_create_queue('secret');
SET ROLE regress_qml_role;
SELECT qml_enqueue('m', queue => 'secreet') IS NOT NULL;
SELECT qml_enqueue('m', queue => 'mial') IS NOT NULL;
RESET ROLE;
-- Rolled back, the queue was never there, and is told again
BEGIN;
SELECT qml_enqueue('m', queue => 'undone') IS NOT NULL;
ROLLBACK;
SELECT qml_enqueue('m', queue => 'undone') IS NOT NULL;

-- Only qml_create_queue() makes queues
SET qml.new_queues = error;
SELECT t.try($$SELECT qml_enqueue('m', queue => 'mailes')$$);
SELECT t.try($$SELECT qml_enqueue('email', '{}', '3 hours')$$);
SELECT t.try($$SELECT qml_enqueue_many('m', '{1}', 'other')$$);
SELECT t.try($$SELECT qml_try_enqueue('m', queue => 'other')$$);
SELECT t.try($$SELECT qml_schedule_recurring('s2', '@daily', 'm', queue => 'other')$$);
SELECT qml_create_queue('other');
SELECT qml_enqueue('m', queue => 'other') IS NOT NULL, qml_enqueue('m') IS NOT NULL;
SELECT qml_grant('regress_qml_role', 'enqueue', 'others');
-- ... nothing is said
SET qml.new_queues = quiet;
SELECT qml_enqueue('m', queue => 'quiet') IS NOT NULL, qml_grant('regress_qml_role', 'enqueue', 'later');
SET ROLE regress_qml_role;
SET qml.new_queues = notice;
RESET ROLE;
RESET qml.new_queues;

SELECT t.reset();
SELECT qml_drop_role_objects('regress_qml_role') IS NOT NULL;
DROP ROLE regress_qml_role;
DROP FUNCTION t.handle;
