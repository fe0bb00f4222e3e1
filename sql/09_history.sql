--
-- Finished jobs: how long they are kept, and how they go.
--
SELECT t.reset();

CREATE VIEW t.leaf AS
SELECT c.oid::regclass AS leaf, b[1]::timestamptz AS lower, b[2]::timestamptz AS upper
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid,
	regexp_match(pg_get_expr(c.relpartbound, c.oid), $$FROM \('(.*)'\) TO \('(.*)'\)$$) b
WHERE i.inhparent = 'qml.history'::regclass;

-- Partitions are made for a new queue
SELECT qml_create_queue('made');
SELECT ttl, bool_or(now() + ttl >= lower AND now() + ttl < upper) AS there FROM t.leaf, unnest('{1 day,7 days}'::interval[]) ttl GROUP BY ttl ORDER BY ttl;
-- A job that finds none finishes all the same, and is found like any other
SELECT t.drop_leaves();
CREATE VIEW t.places AS SELECT (SELECT count(*) FROM qml.live) AS live, (SELECT count(*) FROM qml.history) AS history, (SELECT count(*) FROM qml.history_overflow) AS overflow;
SELECT count(t.make(t.id(n), CASE WHEN n < 4 THEN 'succeeded' ELSE 'failed' END)) FROM generate_series(1, 7) n;
SELECT * FROM t.places;
SELECT count(*) FROM t.leaf;
SELECT t.n(id), state FROM qml.job ORDER BY id;
SELECT * FROM qml_counts() WHERE count > 0;
SELECT * FROM qml_queue_counts();
SELECT state, expires_at > now() AS kept FROM qml_job(t.id(1));
SELECT t.code('SELECT qml_enqueue(''m'', id => t.id(1))'), t.code('SELECT qml_succeed(t.id(1), 1)');
SELECT qml_delete(t.id(2)), qml_delete(t.id(2)), qml_retry(t.id(4)), qml_retry(t.id(5));
SELECT t.n(id), state FROM qml.job ORDER BY id;
SELECT * FROM t.places;
-- Several at once, of which one is there twice
SELECT t.n(id) FROM qml_fetch('w', '{made}', 2);
SELECT t.n(id) FROM qml_succeed_many(ARRAY[t.id(4), t.id(5), t.id(4)], '{2,2,2}') id;
SELECT * FROM t.places;
-- Maintenance makes the partition and moves them, also one that no queue needs any more; what has expired goes
UPDATE qml.history_overflow SET expires_at = now() + interval '400 days' WHERE id = t.id(6);
UPDATE qml.history_overflow SET expires_at = now() - interval '1 s' WHERE id = t.id(7);
SELECT t.n(id), state, expires_at > now() + interval '300 days' AS long FROM qml.job ORDER BY id;
SELECT qml_cleanup();
SELECT * FROM t.places;
SELECT t.n(id), state, expires_at > now() + interval '300 days' AS long FROM qml.job ORDER BY id;
SELECT count(*), bool_and(EXISTS (SELECT FROM t.leaf WHERE h.expires_at >= lower AND h.expires_at < upper)) AS fit FROM qml.history h;
SELECT t.make(t.id(8), 'succeeded');
SELECT * FROM t.places;
-- A large payload is moved whole
SELECT t.drop_leaves();
SELECT qml_enqueue('m', to_jsonb(repeat(md5('x'), 5000) || string_agg(md5(n::text), '')), 'made', id => t.id(9)) IS NOT NULL AS enqueued FROM generate_series(1, 500) n;
SELECT count(*) FROM qml_fetch('w', '{made}');
SELECT md5(payload::text) AS payload FROM qml_job(t.id(9)) \gset
SELECT qml_succeed(t.id(9), 1, to_jsonb(repeat('y', 100000)));
SELECT overflow FROM t.places;
SELECT qml_cleanup();
SELECT overflow FROM t.places;
SELECT md5(payload::text) = :'payload' AS same, length(result #>> '{}') FROM qml_job(t.id(9));
DROP VIEW t.places;
SELECT t.reset();
SELECT qml_create_queue('made');
SELECT t.drop_leaves();
-- Maintenance makes those that will be needed: today's and the next two days' for each time to live
SELECT qml_maintain();
SELECT qml_maintain();
SELECT qml_create_queue('far', '{"succeeded_ttl": "100 days", "failed_ttl": "3660 days"}'),
	qml_create_queue('near', '{"succeeded_ttl": "1 h", "failed_ttl": "1 h"}'),
	qml_create_queue('none', '{"succeeded_ttl": 0, "failed_ttl": 0}');
SELECT qml_cleanup();
SELECT ttl, bool_and(EXISTS (SELECT FROM t.leaf WHERE now() + ttl + day * interval '24 h' >= lower AND now() + ttl + day * interval '24 h' < upper)) AS there
FROM unnest('{1 h,1 day,7 days,100 days,3660 days}'::interval[]) ttl, generate_series(0, 2) day GROUP BY ttl ORDER BY ttl;
-- Partitions are whole days of UTC, one or at most thirty of them, do not overlap, and have an index
SELECT bool_and(extract(epoch FROM lower)::bigint % 86400 = 0 AND extract(epoch FROM upper)::bigint % 86400 = 0) AS whole_days,
	min(upper - lower) AS shortest, max(upper - lower) <= interval '30 days' AS not_longer,
	bool_and(upper - lower = interval '1 day' OR lower > now() + interval '14 days') AS near_ones_a_day,
	count(*) FILTER (WHERE EXISTS (SELECT FROM t.leaf o WHERE o.leaf <> l.leaf AND o.lower < l.upper AND l.lower < o.upper)) AS overlaps,
	bool_and(EXISTS (SELECT FROM pg_index WHERE indrelid = leaf)) AS indexed,
	bool_and(leaf::text ~ '^qml\.history_p\d{8}$') AS named
FROM t.leaf l;
-- Nothing is open to others
SELECT count(*) FROM pg_class c JOIN t.leaf ON leaf = c.oid, aclexplode(c.relacl) a WHERE a.grantee <> c.relowner;
-- A job that goes to one of the far ones
SELECT t.make(t.id(4), 'succeeded', 'far'), t.make(t.id(5), 'failed', 'far');
SELECT t.n(id), state, t.ttl(finished_at, expires_at) AS kept FROM qml.job WHERE queue = 'far' ORDER BY id;

-- Each state is kept as long as its queue says; a time to live of 0 not at all
SELECT t.reset();
SELECT qml_create_queue('q', '{"succeeded_ttl": "2 h", "failed_ttl": "3 h"}');
SELECT t.make(t.id(1), 'succeeded', 'q'), t.make(t.id(2), 'failed', 'q'), t.make(t.id(3), 'deleted', 'q');
SELECT state, t.ttl(finished_at, expires_at) AS kept FROM qml.job ORDER BY id;
-- Another time to live is for those that finish later
SELECT qml_alter_queue('q', '{"succeeded_ttl": 0, "failed_ttl": 0}');
SELECT state, t.ttl(finished_at, expires_at) AS kept FROM qml.job ORDER BY id;
SELECT count(qml_enqueue('m', queue => 'q', id => t.id(n))) FROM generate_series(4, 6) n;
SELECT count(*) FROM qml_fetch('w', '{q}', 2);
SELECT qml_succeed(t.id(4), 1), qml_fail(t.id(5), 1, 'e', retry => false), qml_delete(t.id(6));
SELECT count(*) FROM qml.job WHERE id >= t.id(4);
SELECT (SELECT count(*) FROM qml.live) AS live, (SELECT count(*) FROM qml.history) AS history;
SELECT t.code('SELECT qml_retry(t.id(5))'), t.code('SELECT qml_succeed(t.id(4), 1)'), t.code('SELECT qml_delete(t.id(6))');
-- Only one of the two is 0
SELECT qml_alter_queue('q', '{"failed_ttl": "3 h"}');
SELECT t.make(t.id(7), 'failed', 'q');
SELECT qml_delete(t.id(7)), (SELECT state FROM qml_job(t.id(7)));
SELECT qml_enqueue('m', queue => 'q', id => t.id(8)) IS NOT NULL;
SELECT state FROM qml_set_state(t.id(8), 'deleted');
SELECT count(*) FROM qml_job(t.id(8));

-- What has expired is invisible at once, wherever one looks
SELECT t.reset();
SELECT qml_create_queue('q', '{"succeeded_ttl": "1 us", "failed_ttl": "1 us"}');
SELECT qml_enqueue('m', queue => 'q', id => t.id(n)) IS NOT NULL FROM generate_series(1, 3) n;
SELECT count(*) FROM qml_fetch('w', '{q}', 2);
SELECT qml_succeed(t.id(1), 1);
SELECT qml_fail(t.id(2), 1, 'e', retry => false);
SELECT qml_delete(t.id(3));
DO $$ BEGIN PERFORM pg_sleep_until((SELECT max(expires_at) FROM qml.history)); END $$;
SELECT count(*) FROM qml.history;
SELECT count(*) FROM qml.job;
SELECT count(*) FROM generate_series(1, 3) n, qml_job(t.id(n));
SELECT sum(count) FROM qml_counts();
SELECT * FROM qml_queue_counts();
SELECT f, t.code(format(f, 't.id(2)'))
FROM unnest('{SELECT qml_retry(%s),SELECT qml_delete(%s),"SELECT qml_reschedule(%s, now())","SELECT qml_set_state(%s, ''enqueued'')",
	"SELECT qml_succeed(%s, 1)","SELECT count(*) FROM qml_succeed_many(ARRAY[%s], ARRAY[1])"}'::text[]) f;
-- Its id is free
SELECT qml_enqueue('second', queue => 'other', id => t.id(2)) = t.id(2) AS made;
SELECT method, state, attempt FROM qml_job(t.id(2));
SELECT count(*) FROM qml.job WHERE id = t.id(2);
-- ... and what is found under it then is the second, also when that has finished
SELECT t.n(id) FROM qml_fetch('w', '{other}');
SELECT qml_alter_queue('other', '{"failed_ttl": "1 min"}');
SELECT qml_fail(t.id(2), 1, 'e', retry => false);
SELECT state, method FROM qml.job WHERE id = t.id(2);
SELECT state, method FROM qml_job(t.id(2));
SELECT t.code('SELECT qml_enqueue(''third'', id => t.id(2))');
SELECT t.code('SELECT qml_retry(t.id(2))');
SELECT state, method FROM qml_job(t.id(2));
SELECT t.code('SELECT qml_delete(t.id(2))');
-- A partition that is not over as a whole stays
SELECT qml_cleanup();
SELECT count(*) >= 3 AS kept FROM qml.history;

-- Partitions that are over go, and nothing else
SELECT t.reset();
SELECT count(t.make(t.id(n), CASE WHEN n % 2 = 0 THEN 'succeeded' ELSE 'failed' END)) FROM generate_series(1, 10) n;
SELECT t.make(t.id(11), 'scheduled'), t.make(t.id(12), 'processing', 'other');
CREATE TABLE qml.history_p20000101 PARTITION OF qml.history FOR VALUES FROM ('2000-01-01 00:00+00') TO ('2000-01-02 00:00+00');
CREATE INDEX ON qml.history_p20000101 (id);
CREATE TABLE qml.history_p20000115 PARTITION OF qml.history FOR VALUES FROM ('2000-01-15 00:00+00') TO ('2000-01-31 00:00+00');
CREATE INDEX ON qml.history_p20000115 (id);
UPDATE qml.history SET expires_at = '2000-01-01 12:00+00' WHERE id IN (t.id(1), t.id(2), t.id(3));
UPDATE qml.history SET expires_at = '2000-01-20 00:00+00' WHERE id IN (t.id(4), t.id(5));
SELECT string_agg(t.n(id)::text, ' ' ORDER BY id) FROM qml.job;
SELECT t.code('SELECT qml_retry(t.id(1))'), t.code('SELECT qml_retry(t.id(5))');
SELECT qml_retry(t.id(7));
SELECT qml_try_lock('r', 'o', '1 us') > 0 AS locked;
SELECT qml_cleanup();
SELECT to_regclass('qml.history_p20000101'), to_regclass('qml.history_p20000115');
SELECT count(*) FROM qml.history;
SELECT string_agg(t.n(id)::text, ' ' ORDER BY id) FROM qml.job;
SELECT qml_cleanup();
-- ... counted by qml_maintain
CREATE TABLE qml.history_p20000101 PARTITION OF qml.history FOR VALUES FROM ('2000-01-01 00:00+00') TO ('2000-01-02 00:00+00');
CREATE TABLE qml.history_p20000102 PARTITION OF qml.history FOR VALUES FROM ('2000-01-02 00:00+00') TO ('2000-01-03 00:00+00');
UPDATE qml.history SET expires_at = '2000-01-01 12:00+00' WHERE id IN (t.id(6), t.id(8), t.id(10));
UPDATE qml.live SET lease_expires_at = now() WHERE id = t.id(12);
UPDATE qml.live SET run_at = now() WHERE id = t.id(11);
SELECT qml_try_lock('r1', 'o', '1 us') > 0 AND qml_try_lock('r2', 'o', '1 us') > 0 AND qml_try_lock('r3', 'o', '1 h') > 0 AS locked;
SELECT qml_maintain();
SELECT qml_maintain();
SELECT string_agg(t.n(id)::text || ' ' || state, ', ' ORDER BY id) FROM qml.job;
SELECT resource FROM qml.lock_data;
-- A session that knew the partition makes do without it
SELECT t.reset();
SELECT t.make(t.id(1), 'succeeded');
SELECT t.drop_leaves();
SELECT t.make(t.id(2), 'succeeded');
SELECT t.n(id), state FROM qml.job;
-- Between its neighbours a new partition is cut to fit
SELECT t.reset();
SELECT qml_create_queue('made');
SELECT t.drop_leaves();
DO $$
DECLARE
	day timestamptz := date_trunc('day', now() + interval '24 h', 'UTC');
BEGIN
	EXECUTE format('CREATE TABLE qml.early PARTITION OF qml.history FOR VALUES FROM (%L) TO (%L)', day - interval '12 h', day - interval '6 h');
	EXECUTE format('CREATE TABLE qml.late PARTITION OF qml.history FOR VALUES FROM (%L) TO (%L)', day + interval '30 h', day + interval '36 h');
END $$;
CREATE INDEX ON qml.early (id);
CREATE INDEX ON qml.late (id);
SELECT count(*) FROM t.leaf;
SELECT t.make(t.id(1), 'succeeded');
SELECT qml_cleanup();
SELECT count(*) > 2 AS made, count(*) FILTER (WHERE EXISTS (SELECT FROM t.leaf o WHERE o.leaf <> l.leaf AND o.lower < l.upper AND l.lower < o.upper)) AS overlaps,
	bool_or(EXISTS (SELECT FROM qml.history j WHERE j.expires_at >= lower AND j.expires_at < upper)) AS fits FROM t.leaf l;

-- A failed job comes back out of history, whole, and goes there again
SELECT t.reset();
SELECT qml_enqueue('m', '{"p": 1}', 'q', 7, NULL, 0, '5 s', '{"m": 1}', 'jt', t.id(1)) IS NOT NULL;
SELECT count(*) FROM qml_fetch('w');
SELECT qml_progress(t.id(1), 1, '"half"');
SELECT qml_fail(t.id(1), 1, 'e1');
SELECT (SELECT count(*) FROM qml.live) AS live, (SELECT count(*) FROM qml.history) AS history;
SELECT created_at AS created FROM qml_job(t.id(1)) \gset
SELECT qml_retry(t.id(1));
SELECT (SELECT count(*) FROM qml.live) AS live, (SELECT count(*) FROM qml.history) AS history;
SELECT queue, method, payload, state, priority, attempt, max_retries, run_at, created_at = :'created' AS same_created, started_at IS NOT NULL AS started,
	finished_at, expires_at, lease_expires_at, worker, timeout, result, progress, error, metadata, job_type, reason, created_by
FROM qml_job(t.id(1)) \gx
SELECT attempt FROM qml_fetch('w2');
SELECT qml_succeed(t.id(1), 2, '1');
SELECT (SELECT count(*) FROM qml.live) AS live, (SELECT count(*) FROM qml.history) AS history;
SELECT state, attempt, worker, result, error FROM qml_job(t.id(1));
-- An expired one does not
SELECT t.make(t.id(2), 'failed');
CREATE TABLE qml.history_p20000101 PARTITION OF qml.history FOR VALUES FROM ('2000-01-01 00:00+00') TO ('2000-01-02 00:00+00');
UPDATE qml.history SET expires_at = '2000-01-01 12:00+00' WHERE id = t.id(2);
SELECT t.try('SELECT qml_retry(t.id(2))');
-- (an index is needed where jobs are looked for by id: in partitions that are not past)
CREATE TABLE qml.history_p21000101 PARTITION OF qml.history FOR VALUES FROM ('2100-01-01 00:00+00') TO ('2100-01-02 00:00+00');
SELECT t.try('SELECT qml_retry(t.id(2))');
CREATE INDEX ON qml.history_p21000101 (id);
SELECT t.try('SELECT qml_retry(t.id(2))');
DROP TABLE qml.history_p21000101;
SELECT qml_cleanup();


-- What stands in the way of one partition is told, and does not stop the rest
SELECT t.reset();
SELECT qml_create_queue('made');
SELECT qml_enqueue('m', queue => 'made', id => t.id(1), run_at => now() + interval '1 h') IS NOT NULL AS scheduled;
UPDATE qml.live SET run_at = now();
CREATE TABLE qml.history_p20000101 PARTITION OF qml.history FOR VALUES FROM ('2000-01-01 00:00+00') TO ('2000-01-02 00:00+00');
CREATE TABLE qml.history_p20000102 PARTITION OF qml.history FOR VALUES FROM ('2000-01-02 00:00+00') TO ('2000-01-03 00:00+00');
CREATE VIEW t.on_leaf AS SELECT id FROM qml.history_p20000101;
SELECT qml_maintain();
DROP VIEW t.on_leaf;
SELECT qml_maintain() ->> 'partitions_dropped' AS dropped;
-- A name that is taken is passed over
SELECT t.reset();
SELECT qml_create_queue('made');
SELECT t.drop_leaves();
DO $$ BEGIN EXECUTE format('CREATE TABLE qml.history_p%s ()', to_char((now() + interval '1 day') AT TIME ZONE 'UTC', 'YYYYMMDD')); END $$;
SELECT qml_cleanup();
SELECT count(*) FROM t.leaf WHERE leaf::text ~ '^qml\.history_p\d{8}_2$';
DO $$ BEGIN EXECUTE format('DROP TABLE qml.history_p%s', to_char((now() + interval '1 day') AT TIME ZONE 'UTC', 'YYYYMMDD')); END $$;
-- Deleting what a query finds, also where the history has no partition for it
SELECT t.reset();
SELECT qml_create_queue('made');
SELECT qml_enqueue('m', queue => 'made', id => t.id(1)) IS NOT NULL AS enqueued;
SELECT t.try($$ DO $do$ DECLARE j record; BEGIN FOR j IN SELECT id FROM qml.job LOOP PERFORM qml_delete(j.id); END LOOP; END $do$ $$);
SELECT state, count(*) FROM qml.job GROUP BY state;
SELECT t.reset();
SELECT qml_create_queue('made');
SELECT qml_enqueue('m', queue => 'made', id => t.id(1)) IS NOT NULL AS enqueued;
SELECT t.drop_leaves();
CREATE TABLE qml.history_p20000101 PARTITION OF qml.history FOR VALUES FROM ('2000-01-01 00:00+00') TO ('2000-01-02 00:00+00');
CREATE TABLE qml.history_p20000102 PARTITION OF qml.history FOR VALUES FROM ('2000-01-02 00:00+00') TO ('2000-01-03 00:00+00');
SELECT t.try($$ DO $do$ DECLARE j record; BEGIN FOR j IN SELECT id FROM qml.job LOOP PERFORM qml_delete(j.id); END LOOP; END $do$ $$);
SELECT t.reset();
DROP VIEW t.leaf;
