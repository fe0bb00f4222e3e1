--
-- What is not right is refused with a clear error, and nothing changes.
--
SELECT t.reset();
SELECT t.make(t.id(1), 'enqueued'), t.make(t.id(2), 'processing', 'p'), t.make(t.id(3), 'failed', 'f');
SELECT qml_create_queue('q', '{"max_retries": 1}');
SELECT qml_try_lock('r', 'o', '1 h') IS NOT NULL AS locked;
CREATE ROLE regress_qml_role;
SELECT t.everything() AS before \gset
\pset format unaligned
\pset tuples_only on

-- NULL where it makes no sense
SELECT sql, t.try(sql) FROM unnest(ARRAY[
	'SELECT qml_enqueue(NULL)', 'SELECT qml_enqueue(''m'', NULL)', 'SELECT qml_enqueue(''m'', queue => NULL)', 'SELECT qml_enqueue(''m'', priority => NULL)',
	'SELECT qml_enqueue_many(NULL, ''{}'')', 'SELECT qml_enqueue_many(''m'', NULL)', 'SELECT qml_enqueue_many(''m'', ARRAY[''1'', NULL]::jsonb[])',
	'SELECT qml_enqueue_many(''m'', ''{}'', NULL)', 'SELECT qml_enqueue_many(''m'', ''{}'', priority => NULL)',
	'SELECT qml_fetch(batch => NULL)', 'SELECT qml_fetch(queues => ARRAY[''a'', NULL])',
	'SELECT qml_heartbeat(NULL, 1)', 'SELECT qml_heartbeat(t.id(2), NULL)',
	'SELECT qml_heartbeat_many(NULL, ARRAY[1])', 'SELECT qml_heartbeat_many(ARRAY[t.id(2)], NULL)',
	'SELECT qml_heartbeat_many(ARRAY[t.id(2), NULL], ARRAY[1, 1])', 'SELECT qml_heartbeat_many(ARRAY[t.id(2)], ARRAY[NULL::int])',
	'SELECT qml_progress(NULL, 1, ''1'')', 'SELECT qml_progress(t.id(2), NULL, ''1'')', 'SELECT qml_progress(t.id(2), 1, NULL)',
	'SELECT qml_succeed(NULL, 1)', 'SELECT qml_succeed(t.id(2), NULL)',
	'SELECT qml_succeed_many(NULL, ARRAY[1])', 'SELECT qml_succeed_many(ARRAY[t.id(2)], NULL)',
	'SELECT qml_succeed_many(ARRAY[t.id(2), NULL], ARRAY[1, 1])', 'SELECT qml_succeed_many(ARRAY[t.id(2)], ARRAY[NULL::int])',
	'SELECT qml_fail(NULL, 1, ''e'')', 'SELECT qml_fail(t.id(2), NULL, ''e'')', 
	'SELECT qml_fail_many(NULL, ARRAY[1], ARRAY[''e''])', 'SELECT qml_fail_many(ARRAY[t.id(2)], NULL, ARRAY[''e''])',
	'SELECT qml_fail_many(ARRAY[t.id(2), NULL], ARRAY[1, 1], ARRAY[''e'', ''f''])', 'SELECT qml_fail_many(ARRAY[t.id(2)], ARRAY[NULL::int], ARRAY[''e''])',
	'SELECT qml_release(NULL, 1)', 'SELECT qml_release(t.id(2), NULL)',
	'SELECT qml_release_many(NULL, ARRAY[1])', 'SELECT qml_release_many(ARRAY[t.id(2)], NULL)',
	'SELECT qml_release_many(ARRAY[t.id(2), NULL], ARRAY[1, 1])', 'SELECT qml_release_many(ARRAY[t.id(2)], ARRAY[NULL::int])',
	'SELECT qml_discard(NULL, 1)', 'SELECT qml_discard(t.id(2), NULL)',
	'CALL qml_enqueue_job(NULL)', 'CALL qml_progress_job(t.id(2), 1, NULL)', 'CALL qml_succeed_job(NULL, 1)', 'CALL qml_fail_job(t.id(2), NULL, ''e'')',
	'CALL qml_release_job(NULL, 1)', 'CALL qml_discard_job(t.id(2), NULL)',
	'SELECT qml_job(NULL)', 'SELECT qml_delete(NULL)', 'SELECT qml_retry(NULL)', 'SELECT qml_reschedule(NULL, now())', 'SELECT qml_reschedule(t.id(1), NULL)',
	'SELECT qml_set_state(NULL, ''deleted'')', 'SELECT qml_set_state(t.id(1), NULL)', 'SELECT qml_set_state(t.id(1), ''deleted'', NULL)',
	'SELECT qml_create_queue(NULL)', 'SELECT qml_create_queue(''n'', NULL)', 'SELECT qml_alter_queue(NULL, ''{}'')', 'SELECT qml_alter_queue(''q'', NULL)',
	'SELECT qml_drop_queue(NULL)', 'SELECT qml_pause_queue(NULL)', 'SELECT qml_resume_queue(NULL)',
	'SELECT qml_promote_due(NULL)', 'SELECT qml_reclaim(NULL)',
	'SELECT qml_try_lock(NULL, ''o'', ''1 s'')', 'SELECT qml_try_lock(''r'', NULL, ''1 s'')', 'SELECT qml_try_lock(''r'', ''o'', NULL)',
	'SELECT qml_unlock(NULL, ''o'')', 'SELECT qml_unlock(''r'', NULL)',
	'SELECT qml_grant(NULL, ''work'')', 'SELECT qml_grant(''regress_qml_role'', NULL)', 'SELECT qml_revoke(NULL, ''work'')', 'SELECT qml_revoke(''regress_qml_role'', NULL)'
]) WITH ORDINALITY s (sql, n) ORDER BY n;

-- Names: empty, too long, with control characters, with blanks at an end
CREATE TEMP TABLE name_taker (n serial, what text, sql text);
INSERT INTO name_taker (what, sql) VALUES ('enqueue method', 'SELECT qml_enqueue(%L)'), ('enqueue queue', 'SELECT qml_enqueue(''m'', queue => %L)'),
	('enqueue job_type', 'SELECT qml_enqueue(''m'', job_type => %L)'), ('enqueue_many method', 'SELECT qml_enqueue_many(%L, ''{1}'')'),
	('enqueue_many queue', 'SELECT qml_enqueue_many(''m'', ''{1}'', %L)'), ('enqueue_many job_type', 'SELECT qml_enqueue_many(''m'', ''{1}'', job_type => %L)'),
	('fetch worker', 'SELECT qml_fetch(%L)'), ('fetch queues', 'SELECT qml_fetch(queues => ARRAY[''q'', %L])'),
	('create_queue', 'SELECT qml_create_queue(%L)'), ('alter_queue', 'SELECT qml_alter_queue(%L, ''{}'')'), ('drop_queue', 'SELECT qml_drop_queue(%L)'),
	('pause_queue', 'SELECT qml_pause_queue(%L)'), ('resume_queue', 'SELECT qml_resume_queue(%L)'),
	('try_lock resource', 'SELECT qml_try_lock(%L, ''o'', ''1 s'')'), ('try_lock owner', 'SELECT qml_try_lock(''r'', %L, ''1 s'')'),
	('unlock resource', 'SELECT qml_unlock(%L, ''o'')'), ('unlock owner', 'SELECT qml_unlock(''r'', %L)'),
	('grant capability', 'SELECT qml_grant(''regress_qml_role'', %L)'), ('grant queue', 'SELECT qml_grant(''regress_qml_role'', ''work'', %L)'),
	('revoke capability', 'SELECT qml_revoke(''regress_qml_role'', %L)'), ('revoke queue', 'SELECT qml_revoke(''regress_qml_role'', ''work'', %L)'),
	('schedule id', 'SELECT qml_schedule_recurring(%L, ''@daily'', ''m'')'), ('schedule method', 'SELECT qml_schedule_recurring(''s'', ''@daily'', %L)'),
	('schedule queue', 'SELECT qml_schedule_recurring(''s'', ''@daily'', ''m'', queue => %L)'), ('register_server', 'SELECT qml_register_server(%L)'),
	('register_handler', 'SELECT qml_register_handler(%L, ''now'')'), ('try_enqueue method', 'SELECT qml_try_enqueue(%L)');
SELECT what, t.try(format(sql, '')) FROM name_taker ORDER BY n;
SELECT what, t.try(format(sql, repeat('x', 10000))) FROM name_taker WHERE what !~ 'capability' ORDER BY n;
SELECT what, t.code(format(sql, repeat('x', 10000))) FROM name_taker WHERE what ~ 'capability' ORDER BY n;
SELECT what, t.try(format(sql, repeat('ü', 256))) FROM name_taker WHERE what !~ 'capability' ORDER BY n;
SELECT what, t.code(format(sql, repeat('ü', 129))) FROM name_taker WHERE what ~ 'queues?$' ORDER BY n;
SELECT what, t.try(format(sql, E'a\nb')) FROM name_taker WHERE what !~ 'capability' ORDER BY n;
SELECT DISTINCT t.code(format(sql, 'a' || c || 'b')) FROM name_taker, unnest(ARRAY[E'\x01', E'\t', E'\r', E'\x1b', E'\x1f', E'\x7f']) c WHERE what !~ 'capability';
-- ... or characters that act on the text around them; one that joins letters does not
SELECT DISTINCT t.code(format(sql, 'a' || c || 'b')) FROM name_taker, unnest(ARRAY[E'\u0080', E'\u009f', E'\u061c', E'\u200e', E'\u200f', E'\u2028', E'\u2029', E'\u202a', E'\u202e', E'\u2066', E'\u2069']) c WHERE what !~ 'capability';
BEGIN;
SELECT name, qml_enqueue(name) IS NOT NULL AS id FROM unnest(ARRAY[E'a\u00a1b', E'a\u061bb', E'a\u200db', E'a\u2027b', E'a\u202fb', E'a\u2065b', E'a\u206ab']) WITH ORDINALITY u (name, n) ORDER BY n \g /dev/null
SELECT count(*) FROM qml.job WHERE method LIKE 'a_b';
ROLLBACK;
-- ... with blanks at an end, which nobody would see
SELECT what, t.try(format(sql, ' a')) FROM name_taker WHERE what !~ 'capability' ORDER BY n;
SELECT DISTINCT t.code(format(sql, name)) FROM name_taker, unnest(ARRAY['a ', ' ', E'a\u00a0', E'\u3000a', E'\u2003', E'ü ']) name WHERE what !~ 'capability';
SELECT t.try($$SELECT qml_register_handler('m', 'now', '{"queue": "q "}')$$);
SELECT t.code(E'SELECT qml_pause_queue(''\u200bü b\u200b'')') AS no_blank;

-- Numbers and durations out of range
SELECT sql, t.try(sql) FROM unnest(ARRAY[
	'SELECT qml_enqueue(''m'', max_retries => -1)', 'SELECT qml_enqueue(''m'', max_retries => 1001)', 'SELECT qml_enqueue(''m'', max_retries => -2147483648)',
	'SELECT qml_enqueue_many(''m'', ''{1}'', max_retries => 1001)',
	'SELECT qml_enqueue(''m'', priority => ''2147483648'')', 'SELECT qml_enqueue(''m'', priority => ''-2147483649'')', 'SELECT qml_enqueue(''m'', priority => ''high'')',
	'SELECT qml_enqueue(''m'', timeout => ''0'')', 'SELECT qml_enqueue(''m'', timeout => ''-1 s'')', 'SELECT qml_enqueue(''m'', timeout => ''999 us'')',
	'SELECT qml_enqueue(''m'', timeout => ''25 days'')', 'SELECT qml_enqueue(''m'', timeout => ''178000000 years'')', 'SELECT qml_enqueue_many(''m'', ''{1}'', timeout => ''-1 s'')',
	'SELECT qml_fetch(batch => 0)', 'SELECT qml_fetch(batch => -1)', 'SELECT qml_fetch(batch => 10001)', 'SELECT qml_fetch(batch => 2147483647)',
	'SELECT qml_fetch(lease => ''-1 us'')', 'SELECT qml_fetch(lease => ''3660 days 1 us'')', 'SELECT qml_fetch(lease => ''-178000000 years'')',
	'SELECT qml_fetch(lease => ''1 mon -31 days'')',
	'SELECT qml_heartbeat(t.id(2), 1, ''0'')', 'SELECT qml_heartbeat(t.id(2), 1, ''-1 h'')', 'SELECT qml_heartbeat(t.id(2), 1, ''11 years'')',
	'SELECT qml_promote_due(0)', 'SELECT qml_promote_due(-1)', 'SELECT qml_reclaim(0)', 'SELECT qml_reclaim(-5)',
	'SELECT qml_try_lock(''r'', ''o'', ''0'')', 'SELECT qml_try_lock(''r'', ''o'', ''-1 s'')', 'SELECT qml_try_lock(''r'', ''o'', ''11 years'')'
]) WITH ORDINALITY s (sql, n) ORDER BY n;

-- Times that are none
SELECT sql, t.try(sql) FROM unnest(ARRAY[
	'SELECT qml_enqueue(''m'', run_at => ''infinity'')', 'SELECT qml_enqueue(''m'', run_at => ''-infinity'')', 'SELECT qml_enqueue_many(''m'', ''{1}'', run_at => ''infinity'')',
	'SELECT qml_release(t.id(2), 1, ''infinity'')', 'SELECT qml_release(t.id(2), 1, ''-infinity'')', 'SELECT qml_release_many(ARRAY[t.id(2)], ARRAY[1], ''infinity'')',
	'SELECT qml_release_many(''{}'', ''{}'', ''infinity'')', 'CALL qml_release_job(t.id(2), 1, ''infinity'')',
	'SELECT qml_reschedule(t.id(1), ''infinity'')', 'SELECT qml_reschedule(t.id(1), ''-infinity'')', 'SELECT qml_reschedule(t.id(1), ''294277-01-01'')'
]) WITH ORDINALITY s (sql, n) ORDER BY n;

-- Arrays
SELECT sql, t.try(sql) FROM unnest(ARRAY[
	'SELECT qml_enqueue_many(''m'', ''{{1,2},{3,4}}'')', 'SELECT qml_enqueue_many(''m'', ''{{1}}'')',
	'SELECT qml_fetch(queues => ''{}'')', 'SELECT qml_fetch(queues => ''{{q},{f}}'')',
	'SELECT qml_heartbeat_many(ARRAY[t.id(2)], ARRAY[1, 1])', 'SELECT qml_heartbeat_many(''{}'', ''{1}'')', 'SELECT qml_heartbeat_many(ARRAY[[t.id(2)]], ARRAY[1])', 'SELECT qml_heartbeat_many(ARRAY[t.id(2)], ARRAY[1], ''0'')',
	'SELECT qml_succeed_many(ARRAY[t.id(2)], ARRAY[1, 1])', 'SELECT qml_succeed_many(ARRAY[t.id(2)], ''{}'')', 'SELECT qml_succeed_many(''{}'', ''{1}'')',
	'SELECT qml_succeed_many(ARRAY[t.id(2)], ARRAY[1], ''{}'')', 'SELECT qml_succeed_many(ARRAY[t.id(2)], ARRAY[1], ''{1,2}'')',
	'SELECT qml_fail_many(ARRAY[t.id(2)], ARRAY[1, 1], ''{e}'')', 'SELECT qml_fail_many(''{}'', ''{}'', ''{e}'')', 'SELECT qml_fail_many(ARRAY[t.id(2)], ''{1}'', ''{}'')',
	'SELECT qml_fail_many(ARRAY[t.id(2)], ''{1}'', ''{e}'', ''{}'')', 'SELECT qml_fail_many(ARRAY[t.id(2)], ''{1}'', ''{e}'', NULL, ''{s,t}'')',
	'SELECT qml_fail_many(ARRAY[t.id(2)], ''{1}'', ''{{e}}'')', 'SELECT qml_fail_many(ARRAY[t.id(2)], ''{1}'', ''{e}'', ''{{e}}'')',
	'SELECT qml_release_many(ARRAY[t.id(2)], ARRAY[1, 1])', 'SELECT qml_release_many(''{}'', ''{1}'')', 'SELECT qml_release_many(ARRAY[[t.id(2)]], ARRAY[1])',
	'SELECT qml_succeed_many(ARRAY[[t.id(2)]], ARRAY[1])', 'SELECT qml_succeed_many(ARRAY[t.id(2)], ARRAY[[1]])', 'SELECT qml_succeed_many(ARRAY[t.id(2)], ARRAY[1], ''{{1}}'')'
]) WITH ORDINALITY s (sql, n) ORDER BY n;

-- Documents: too large, or no object where one must be
SELECT what, t.try(format(sql, 'to_jsonb(repeat(''x'', 10485760))')) FROM (VALUES
	(1, 'payload', 'SELECT qml_enqueue(''m'', %s)'), (2, 'metadata', 'SELECT qml_enqueue(''m'', metadata => %s)'),
	(3, 'payloads', 'SELECT qml_enqueue_many(''m'', ARRAY[''1'', %s])'), (4, 'metadata of many', 'SELECT qml_enqueue_many(''m'', ''{1}'', metadata => %s)'),
	(5, 'progress', 'SELECT qml_progress(t.id(2), 1, %s)'), (6, 'result', 'SELECT qml_succeed(t.id(2), 1, %s)'),
	(7, 'results', 'SELECT qml_succeed_many(ARRAY[t.id(2)], ARRAY[1], ARRAY[%s])'),
	(7, 'payload of a procedure', 'CALL qml_enqueue_job(''m'', %s)'), (7, 'result of a procedure', 'CALL qml_succeed_job(t.id(2), 1, %s)'),
	(8, 'data', 'SELECT qml_set_state(t.id(1), ''deleted'', jsonb_build_object(''reason'', %s))')) v (n, what, sql) ORDER BY n;
SELECT what, t.try(format(sql, 'jsonb_build_object(repeat(''x'', 10485760), 1)')) FROM (VALUES
	(1, 'options', 'SELECT qml_create_queue(''n'', %s)'), (2, 'options to alter', 'SELECT qml_alter_queue(''q'', %s)'),
	(3, 'options of a handler', 'SELECT qml_register_handler(''m'', ''t.reset'', %s)'), (4, 'data', 'SELECT qml_set_state(t.id(1), ''deleted'', %s)')) v (n, what, sql) ORDER BY n;
-- What is too long for a message is cut
SELECT what, t.try(format(sql, 'jsonb_build_object(repeat(''ü'', 100000), 1)')) FROM (VALUES
	(1, 'option', 'SELECT qml_create_queue(''n'', %s)'), (2, 'option of retry', 'SELECT qml_alter_queue(''q'', jsonb_build_object(''retry'', %s))'),
	(3, 'option of a handler', 'SELECT qml_register_handler(''m'', ''t.reset'', %s)'), (4, 'data', 'SELECT qml_set_state(t.id(1), ''deleted'', %s)')) v (n, what, sql) ORDER BY n;
SELECT what, t.try(format(sql, repeat('x', 10485760))) FROM (VALUES
	(1, 'handler', 'SELECT qml_register_handler(''m'', %L::text)'), (2, 'hook', 'SELECT qml_register_hook(''h'', %L::text)'),
	(3, 'middleware', 'SELECT qml_register_middleware(''h'', %L::text)')) v (n, what, sql) ORDER BY n;
-- One byte decides; the setting moves the limit
SELECT t.code('SELECT qml_enqueue(''m'', to_jsonb(repeat(''x'', 1048576)))');
SELECT pg_column_size(to_jsonb(repeat('x', 1048576 - 8))) - 4 AS size;
BEGIN;
SELECT qml_enqueue('m', to_jsonb(repeat('x', 1048576 - 8))) IS NOT NULL;
SELECT t.try('SELECT qml_enqueue(''m'', to_jsonb(repeat(''x'', 1048576 - 7)))');
SET qml.max_payload_size = '2 MB';
SELECT qml_enqueue('m', to_jsonb(repeat('x', 1048577))) IS NOT NULL;
SET qml.max_payload_size = '1 kB';
SELECT t.try('SELECT qml_enqueue(''m'', to_jsonb(repeat(''x'', 1024)))');
ROLLBACK;
SELECT sql, t.try(sql) FROM unnest(ARRAY['SELECT qml_enqueue(''m'', metadata => ''1'')', 'SELECT qml_enqueue(''m'', metadata => ''[]'')', 'SELECT qml_enqueue(''m'', metadata => ''null'')',
	'SELECT qml_enqueue_many(''m'', ''{1}'', metadata => ''"x"'')', 'SELECT qml_enqueue(''m'', ''{'')']) WITH ORDINALITY s (sql, n) ORDER BY n;

-- Ids that are taken, within one statement too
SELECT t.code('SELECT count(qml_enqueue(''m'', id => t.id(50))) FROM generate_series(1, 2)');
SELECT t.code('SELECT qml_enqueue(''m'', id => t.id(n)) FROM generate_series(1, 3) n');
SELECT t.code('SELECT qml_enqueue(''m'', id => ''nouuid'')');

-- Unknown roles, capabilities, states
SELECT sql, t.try(sql) FROM unnest(ARRAY['SELECT qml_grant(''regress_qml_nobody'', ''work'')', 'SELECT qml_revoke(''regress_qml_nobody'', ''work'')',
	'SELECT qml_grant(4294967295::oid::regrole, ''work'')', 'SELECT qml_revoke(4294967295::oid::regrole, ''work'')', 'SELECT qml_grant(0::oid::regrole, ''work'')', 'SELECT qml_grant(''-'', ''work'')',
	'SELECT qml_grant(''regress_qml_role'', ''fly'')', 'SELECT qml_grant(''regress_qml_role'', ''Work'')', 'SELECT qml_revoke(''regress_qml_role'', ''fly'')',
	'SELECT qml_set_state(t.id(1), ''lost'')', 'SELECT qml_can_transition(''lost'', ''deleted'')', 'SELECT qml.invalidate()', 'SELECT qml.note_sql()'
]) WITH ORDINALITY s (sql, n) ORDER BY n;
-- What was never granted can be revoked
SELECT t.try('SELECT qml_revoke(''regress_qml_role'', ''work'')');
SELECT t.try('SELECT qml_revoke(''regress_qml_role'', ''work'', ''q'')');

SELECT t.everything() = :'before' AS unchanged;
\pset format aligned
\pset tuples_only off
SELECT * FROM qml_queue_counts();
SELECT name, paused, options FROM qml.queue ORDER BY name;

-- Long texts that are not names are cut
SELECT qml_reschedule(t.id(1), now() + interval '1 h', repeat('ü', 5000));
SELECT octet_length(reason) FROM qml_job(t.id(1));
SELECT qml_delete(t.id(1), 'x' || repeat('ü', 5000));
SELECT octet_length(reason), right(reason, 1) FROM qml_job(t.id(1));
DROP ROLE regress_qml_role;
