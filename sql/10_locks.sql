--
-- Named locks: one owner, an end, and a number that only grows.
--
SELECT t.reset();

SELECT qml_try_lock('printer', 'a', '1 h') AS f1 \gset
SELECT :f1 > 0 AS positive;
-- Another owner gets nothing, and changes nothing
SELECT qml_try_lock('printer', 'b', '1 h') IS NULL AS refused;
SELECT resource, owner, fence = :f1 AS same_fence, expires_at - acquired_at AS ttl FROM qml.lock;
-- The owner refreshes it, for longer or for less, under the same number
SELECT qml_try_lock('printer', 'a', '2 h') = :f1 AS refreshed;
SELECT owner, fence = :f1 AS same_fence, expires_at - now() BETWEEN interval '119 min' AND interval '121 min' AS two_hours FROM qml.lock;
SELECT qml_try_lock('printer', 'a', '10 min') = :f1 AS refreshed;
SELECT owner, fence = :f1 AS same_fence, expires_at - now() BETWEEN interval '9 min' AND interval '11 min' AS ten_minutes FROM qml.lock;
-- Other locks are other locks
SELECT qml_try_lock('scanner', 'b', '1 h') > :f1 AS greater;
SELECT qml_try_lock('Printer', 'b', '1 h') > :f1 AS greater;
SELECT resource, owner FROM qml.lock ORDER BY resource COLLATE "C";

-- Only the owner releases, once
SELECT qml_unlock('printer', 'b');
SELECT qml_unlock('nosuch', 'a');
SELECT qml_unlock('printer', 'a');
SELECT qml_unlock('printer', 'a');
SELECT resource FROM qml.lock ORDER BY resource COLLATE "C";
-- Then it is anybody's, under a greater number
SELECT qml_try_lock('printer', 'b', '1 us') AS f2 \gset
SELECT :f2 > :f1 AS greater;
-- Expired: not shown, not to be released, to be taken over
SELECT count(*) FROM qml.lock WHERE resource = 'printer';
SELECT qml_unlock('printer', 'b');
SELECT qml_try_lock('printer', 'b', '1 us') AS f2 \gset
SELECT qml_try_lock('printer', 'c', '1 us') AS f3 \gset
SELECT :f3 > :f2 AS greater;
-- The owner that let it expire gets a new number as well: somebody may have had it in between
SELECT qml_try_lock('printer', 'c', '1 h') AS f4 \gset
SELECT :f4 > :f3 AS greater;
SELECT owner, acquired_at > now() - interval '1 min' AS of_now FROM qml.lock WHERE resource = 'printer';
SELECT qml_try_lock('printer', 'a', '1 h') IS NULL AS refused;
-- Also after its row was cleaned away
SELECT qml_try_lock('printer', 'c', '1 us') = :f4 AS last_refresh;
SELECT count(*) FROM qml.lock_data;
SELECT qml_cleanup();
SELECT count(*) FROM qml.lock_data;
SELECT qml_try_lock('printer', 'a', '1 h') > :f4 AS greater;

-- They are part of the transaction
BEGIN;
SELECT qml_try_lock('tx', 'a', '1 h') AS f5 \gset
SELECT qml_unlock('scanner', 'b');
ROLLBACK;
SELECT resource, owner FROM qml.lock ORDER BY resource COLLATE "C";
SELECT qml_try_lock('tx', 'b', '1 h') > :f5 AS greater;
-- A long series
SELECT bool_and(fence > before OR before IS NULL) AS growing, count(*)
FROM (SELECT fence, lag(fence) OVER (ORDER BY n) AS before
	FROM (SELECT n, qml_try_lock('series', 'o' || n % 3, '1 us') AS fence FROM generate_series(1, 300) n) x) y;
-- Names
SELECT qml_try_lock(repeat('漢', 255), repeat('ü', 255), '3660 days') IS NOT NULL AS taken;
SELECT qml_unlock(repeat('漢', 255), repeat('ü', 255));
SELECT t.reset();

-- A lock belongs to the role that took it.  Others read the name of its owner, and gain
-- nothing by it: neither an end nor a new one, whatever the isolation level
CREATE ROLE regress_qml_a;
CREATE ROLE regress_qml_b;
CREATE ROLE regress_qml_member IN ROLE regress_qml_a;
CREATE ROLE regress_qml_apart NOINHERIT IN ROLE regress_qml_a;
CREATE ROLE regress_qml_admin;
CREATE ROLE regress_qml_queue;
SELECT qml_grant(r::regrole, 'work') FROM unnest(ARRAY['regress_qml_a', 'regress_qml_b', 'regress_qml_apart']) r;
SELECT qml_grant('regress_qml_admin', 'admin');
SELECT qml_grant('regress_qml_queue', 'admin', 'q');
SET ROLE regress_qml_a;
SELECT qml_try_lock('ours', 'worker', '1 h') AS f1 \gset
SELECT resource, owner, taken_by FROM qml.lock;
SET ROLE regress_qml_b;
SELECT resource, owner, taken_by FROM qml.lock;
SELECT qml_try_lock('ours', 'worker', '1 us') IS NULL AS refused, qml_unlock('ours', 'worker') AS unlocked;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT qml_try_lock('ours', 'worker', '1 us') IS NULL AS refused, qml_unlock('ours', 'worker') AS unlocked;
COMMIT;
SET ROLE regress_qml_queue;
SELECT qml_try_lock('ours', 'worker', '1 us') IS NULL AS refused, qml_unlock('ours', 'worker') AS unlocked;
SET ROLE regress_qml_apart;
SELECT qml_try_lock('ours', 'worker', '1 us') IS NULL AS refused, qml_unlock('ours', 'worker') AS unlocked;
-- Members and administrators may, and the lock stays whose it was
SET ROLE regress_qml_member;
SELECT qml_try_lock('ours', 'worker', '2 h') = :f1 AS refreshed;
SET ROLE regress_qml_admin;
SELECT qml_try_lock('ours', 'worker', '3 h') = :f1 AS refreshed;
SELECT qml_try_lock('ours', 'other', '3 h') IS NULL AS refused;
SELECT owner, taken_by, fence = :f1 AS same_fence, expires_at - now() BETWEEN interval '179 min' AND interval '181 min' AS three_hours FROM qml.lock;
SELECT qml_unlock('ours', 'worker');
-- When it has expired it is everybody's, and then the new one's
SET ROLE regress_qml_a;
SELECT qml_try_lock('ours', 'worker', '1 us') > :f1 AS greater;
SET ROLE regress_qml_b;
SELECT qml_try_lock('ours', 'worker', '1 h') > :f1 AS greater;
SELECT owner, taken_by FROM qml.lock;
SET ROLE regress_qml_a;
SELECT qml_unlock('ours', 'worker');
RESET ROLE;
-- One whose role was dropped is nobody's until it expires
DROP OWNED BY regress_qml_b;
DROP ROLE regress_qml_b;
SELECT owner, taken_by LIKE 'unknown (OID=%' AS dropped FROM qml.lock;
SET ROLE regress_qml_a;
SELECT qml_try_lock('ours', 'worker', '1 h') IS NULL AS refused, qml_unlock('ours', 'worker') AS unlocked;
SET ROLE regress_qml_admin;
SELECT qml_unlock('ours', 'worker');
RESET ROLE;
DROP OWNED BY regress_qml_a, regress_qml_apart, regress_qml_admin, regress_qml_queue;
DROP ROLE regress_qml_a, regress_qml_member, regress_qml_apart, regress_qml_admin, regress_qml_queue;
SELECT t.reset();

-- Producers take locks, too; who only monitors does not
SELECT t.reset();
CREATE ROLE regress_qml_producer;
CREATE ROLE regress_qml_watcher;
SELECT qml_grant('regress_qml_producer', 'enqueue', 'q'), qml_grant('regress_qml_watcher', 'monitor', 'q');
SET ROLE regress_qml_producer;
SELECT qml_try_lock('import', 'p', '1 h') > 0 AS taken;
SELECT resource, owner, taken_by FROM qml.lock;
SET ROLE regress_qml_watcher;
SELECT qml_try_lock('import', 'p', '1 h');
SELECT qml_unlock('import', 'p');
SET ROLE regress_qml_producer;
SELECT qml_unlock('import', 'p');
RESET ROLE;
SELECT qml_revoke('regress_qml_producer', 'enqueue', 'q');
SET ROLE regress_qml_producer;
SELECT qml_try_lock('import', 'p', '1 h');
-- The server refuses the schema, and qml adds what to do.  Other schemas are none of its business.
SELECT owner FROM qml.lock;
RESET ROLE;
CREATE SCHEMA regress_closed;
SET ROLE regress_qml_producer;
SELECT FROM regress_closed.lock;
RESET ROLE;
DROP SCHEMA regress_closed;
DROP OWNED BY regress_qml_producer, regress_qml_watcher;
DROP ROLE regress_qml_producer, regress_qml_watcher;
