\echo Use "CREATE EXTENSION qml" to load this file. \quit

-- The path is pinned before anything else, so that no name below can resolve to
-- an object that somebody else made (CVE-2018-1058, CVE-2022-2625).  Everything is
-- created by plain CREATE: an object that exists already must stop the script.
SET LOCAL search_path = pg_catalog, pg_temp;

CREATE SCHEMA qml;

-- No other setting of the session, the role or the database changes what is made here.  A
-- function sets them for the script alone: SET LOCAL would last to the end of the
-- caller's transaction.  It also tells of an older library that is still loaded, before a
-- function is missing in it.
CREATE FUNCTION qml.begin_script(library text) RETURNS void
	AS 'MODULE_PATHNAME', 'qml_begin_script' LANGUAGE C STRICT;
SELECT qml.begin_script('1.0');
DROP FUNCTION qml.begin_script(text);

REVOKE ALL ON SCHEMA qml FROM PUBLIC;
COMMENT ON SCHEMA qml IS 'qml background jobs: types, tables and views; the functions qml_* live in the schema of the extension';

-------------------------------------------------------------------------------
-- Marks of roles (src/model/role_mark.c).  qml grants REFERENCES on these tables, which
-- allows nothing, to each role that its rows name, so that the server refuses to drop it.
-- The names are for those who read the error: DROP ROLE lists what depends on the role in
-- the order in which it was made, so these come before everything else.
-------------------------------------------------------------------------------

CREATE TABLE qml.capabilities_see_qml_drop_role_objects (empty boolean CHECK (false));
REVOKE ALL ON TABLE qml.capabilities_see_qml_drop_role_objects FROM PUBLIC;
-- For publications, as all tables.
ALTER TABLE qml.capabilities_see_qml_drop_role_objects REPLICA IDENTITY FULL;
COMMENT ON TABLE qml.capabilities_see_qml_drop_role_objects IS 'empty; a privilege on it marks a role that has capabilities of qml: before DROP ROLE, remove them with qml_drop_role_objects(role)';
COMMENT ON COLUMN qml.capabilities_see_qml_drop_role_objects.empty IS 'nothing';

CREATE TABLE qml.registrations_see_qml_drop_role_objects (empty boolean CHECK (false));
REVOKE ALL ON TABLE qml.registrations_see_qml_drop_role_objects FROM PUBLIC;
-- For publications, as all tables.
ALTER TABLE qml.registrations_see_qml_drop_role_objects REPLICA IDENTITY FULL;
COMMENT ON TABLE qml.registrations_see_qml_drop_role_objects IS 'empty; a privilege on it marks a role that has handlers, hooks, middleware or schedules of qml: before DROP ROLE, remove them with qml_drop_role_objects(role)';
COMMENT ON COLUMN qml.registrations_see_qml_drop_role_objects.empty IS 'nothing';

-------------------------------------------------------------------------------
-- Types
-------------------------------------------------------------------------------

CREATE TYPE qml.job_state AS ENUM
	('scheduled', 'enqueued', 'processing', 'awaiting_retry', 'succeeded', 'failed', 'deleted',
	-- For dependencies between jobs: no function leads to it yet.
	'awaiting_parents');
REVOKE ALL ON TYPE qml.job_state FROM PUBLIC;
COMMENT ON TYPE qml.job_state IS 'state of a job; qml_can_transition() shows the allowed transitions';

-------------------------------------------------------------------------------
-- What indexes for the search of jobs are made of: see src/core/search_order.h and
-- src/model/search_index.c.  C code that writes rows computes the same without calling these.
-- TRUNCATE, REINDEX and plain SQL call them as the owner of the tables: open to all, because
-- another one may get the tables than the functions.
-------------------------------------------------------------------------------

CREATE FUNCTION qml.search_order(id uuid, created_at timestamptz) RETURNS bigint
	AS 'MODULE_PATHNAME', 'qml_search_order' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
REVOKE ALL ON FUNCTION qml.search_order(uuid, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION qml.search_order(uuid, timestamptz) IS 'where a job stands among all jobs: it grows with the time of creation';

CREATE FUNCTION qml.search_key(queue_id int, method text) RETURNS bigint
	AS 'MODULE_PATHNAME', 'qml_search_key' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
REVOKE ALL ON FUNCTION qml.search_key(int, text) FROM PUBLIC;
COMMENT ON FUNCTION qml.search_key(int, text) IS 'the queue of a job, and a hash of its method';

CREATE FUNCTION qml.search_own(id uuid, created_at timestamptz) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_search_own' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
REVOKE ALL ON FUNCTION qml.search_own(uuid, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION qml.search_own(uuid, timestamptz) IS 'whether the order of a job is not in its id: the caller brought its own';

CREATE FUNCTION qml.search_slow(created_at timestamptz, finished_at timestamptz) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_search_slow' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
REVOKE ALL ON FUNCTION qml.search_slow(timestamptz, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION qml.search_slow(timestamptz, timestamptz) IS 'whether more than a minute lies between the creation of a job and its end';

-------------------------------------------------------------------------------
-- Storage.  Jobs are written by C code through the table access method, not by SQL:
-- src/model/columns.h repeats the order of the columns, and src/model/columns.c checks
-- their names and types before a table is used.
-------------------------------------------------------------------------------

CREATE TABLE qml.queue_data (
	id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	name text NOT NULL UNIQUE,
	paused boolean NOT NULL DEFAULT false,
	dropped boolean NOT NULL DEFAULT false,
	options jsonb NOT NULL DEFAULT '{}',
	created_at timestamptz NOT NULL DEFAULT now(),
	paused_at timestamptz,
	paused_by text,
	pause_reason text
);
REVOKE ALL ON TABLE qml.queue_data FROM PUBLIC;
REVOKE ALL ON SEQUENCE qml.queue_data_id_seq FROM PUBLIC;
COMMENT ON TABLE qml.queue_data IS 'queues and their options; a dropped queue keeps its row, because finished jobs still name it';
COMMENT ON SEQUENCE qml.queue_data_id_seq IS 'ids of queues';
COMMENT ON COLUMN qml.queue_data.id IS 'id that jobs refer to';
COMMENT ON COLUMN qml.queue_data.name IS 'name that callers use';
COMMENT ON COLUMN qml.queue_data.paused IS 'whether the queue is paused: jobs can be enqueued, but none is claimed';
COMMENT ON COLUMN qml.queue_data.dropped IS 'whether the queue was dropped; creating it again, or enqueueing to it, restores it with default options';
COMMENT ON COLUMN qml.queue_data.options IS 'options given to qml_create_queue and qml_alter_queue, validated';
COMMENT ON COLUMN qml.queue_data.created_at IS 'when the queue was created, or created again';
COMMENT ON COLUMN qml.queue_data.paused_at IS 'when it was paused; NULL: it is not, or was so by hand';
COMMENT ON COLUMN qml.queue_data.paused_by IS 'name of the role that paused it';
COMMENT ON COLUMN qml.queue_data.pause_reason IS 'the reason given to qml_pause_queue';

-- Columns of fixed width come first, then what most jobs leave out, and the payload comes last.
-- Those that a claim changes stand side by side, from state to worker: its WAL record then contains
-- neither the columns before nor those after.  Pages are filled to less than half, so that every
-- job of a page can be claimed by a HOT update (measured in doc/internals/storage.md).  Vacuum
-- would leave dead entries in the indexes as long as few pages have dead rows, and a fetch would
-- read all of those before the first waiting job.
CREATE TABLE qml.live (
	id uuid NOT NULL PRIMARY KEY,
	created_at timestamptz NOT NULL,
	queue_id int NOT NULL,
	priority int NOT NULL,
	max_retries smallint NOT NULL,
	lineage smallint NOT NULL,
	created_by regrole NOT NULL,
	state qml.job_state NOT NULL,
	attempt int,
	ready_at timestamptz,
	run_at timestamptz,
	started_at timestamptz,
	lease_expires_at timestamptz,
	timeout_ms int,
	uncounted int,
	worker text,
	server text,
	method text NOT NULL,
	job_type text,
	metadata jsonb,
	progress jsonb,
	errors jsonb,
	reason text,
	payload jsonb NOT NULL,
	-- Nothing checks it when jobs are written: with it the planner leaves this table out where
	-- finished jobs are wanted.  src/model/shape.c knows it.
	CONSTRAINT live_state CHECK (state IN ('scheduled', 'enqueued', 'processing', 'awaiting_retry', 'awaiting_parents'))
) WITH (fillfactor = 42,
	autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
	autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 10000,
	autovacuum_vacuum_insert_threshold = 100000, autovacuum_vacuum_cost_delay = 0,
	vacuum_index_cleanup = on);
REVOKE ALL ON TABLE qml.live FROM PUBLIC;
-- Covers enqueued and processing rows alike, so that a claim changes no indexed
-- column and stays a HOT update; the order is that in which jobs are claimed.
CREATE INDEX live_ready ON qml.live (queue_id, priority DESC, id) WHERE run_at IS NULL;
CREATE INDEX live_due ON qml.live (run_at) WHERE run_at IS NOT NULL;
-- For searches; a claim changes none of these columns either.
CREATE INDEX live_later ON qml.live (queue_id, qml.search_order(id, created_at)) WHERE run_at IS NOT NULL;
CREATE INDEX live_own ON qml.live (qml.search_order(id, created_at), queue_id) WHERE qml.search_own(id, created_at);
COMMENT ON TABLE qml.live IS 'jobs that are not finished; read it through the view qml.job';
COMMENT ON INDEX qml.live_ready IS 'enqueued and processing jobs in the order in which they are claimed';
COMMENT ON INDEX qml.live_due IS 'scheduled and awaiting_retry jobs in the order in which they become due';
COMMENT ON INDEX qml.live_later IS 'the same jobs by queue, in the order of their creation';
COMMENT ON INDEX qml.live_own IS 'jobs whose id does not say when they were created';
COMMENT ON COLUMN qml.live.id IS 'job id, a version 7 uuid unless the caller brought its own';
COMMENT ON COLUMN qml.live.created_at IS 'when the job was enqueued';
COMMENT ON COLUMN qml.live.queue_id IS 'qml.queue_data.id; no foreign key, which would lock the parent row for every job';
COMMENT ON COLUMN qml.live.priority IS 'higher is claimed first';
COMMENT ON COLUMN qml.live.max_retries IS 'retries allowed after the first counted attempt; plus 4096 if they were asked for with the job or by its command';
COMMENT ON COLUMN qml.live.lineage IS 'the server, database and timeline in which the job was enqueued or last claimed, as a hash: where it differs, numbers of attempts may have been given that are not known here';
COMMENT ON COLUMN qml.live.created_by IS 'the role that enqueued the job, by oid';
COMMENT ON COLUMN qml.live.state IS 'scheduled, enqueued, processing, awaiting_retry or awaiting_parents';
COMMENT ON COLUMN qml.live.attempt IS 'number of the latest attempt; it never decreases, and is the fencing token of the current claim; NULL: none began';
COMMENT ON COLUMN qml.live.ready_at IS 'when the job became ready for its latest attempt; NULL: when it was enqueued, or run_at says it';
COMMENT ON COLUMN qml.live.run_at IS 'when a scheduled or awaiting_retry job becomes ready; NULL in the other states';
COMMENT ON COLUMN qml.live.started_at IS 'when the latest attempt began';
COMMENT ON COLUMN qml.live.lease_expires_at IS 'when the lease of the claim ends; NULL unless processing';
COMMENT ON COLUMN qml.live.timeout_ms IS 'time limit of an attempt, milliseconds; NULL: five minutes';
COMMENT ON COLUMN qml.live.uncounted IS 'how much of attempt does not count against max_retries: released attempts, all those before a manual retry, and numbers that were skipped; NULL: 0';
COMMENT ON COLUMN qml.live.worker IS 'the worker that holds the claim';
COMMENT ON COLUMN qml.live.server IS 'the server that the worker belongs to';
COMMENT ON COLUMN qml.live.method IS 'name of the work to do';
COMMENT ON COLUMN qml.live.job_type IS 'classification that the caller chose';
COMMENT ON COLUMN qml.live.metadata IS 'an object that the caller attached';
COMMENT ON COLUMN qml.live.progress IS 'latest value given to qml_progress';
COMMENT ON COLUMN qml.live.errors IS 'one object per failed attempt';
COMMENT ON COLUMN qml.live.reason IS 'the latest reason given to qml_release, qml_reschedule or qml_retry_later';
COMMENT ON COLUMN qml.live.payload IS 'arguments of the method';

CREATE TABLE qml.history (
	id uuid NOT NULL,
	created_at timestamptz NOT NULL,
	queue_id int NOT NULL,
	priority int NOT NULL,
	max_retries smallint NOT NULL,
	lineage smallint NOT NULL,
	created_by regrole NOT NULL,
	state qml.job_state NOT NULL,
	attempt int,
	ready_at timestamptz,
	finished_at timestamptz NOT NULL,
	expires_at timestamptz NOT NULL,
	started_at timestamptz,
	timeout_ms int,
	uncounted int,
	worker text,
	server text,
	method text NOT NULL,
	job_type text,
	metadata jsonb,
	progress jsonb,
	errors jsonb,
	reason text,
	payload jsonb NOT NULL,
	result jsonb,
	-- As that of qml.live.
	CONSTRAINT history_state CHECK (state IN ('succeeded', 'failed', 'deleted'))
) PARTITION BY RANGE (expires_at);
REVOKE ALL ON TABLE qml.history FROM PUBLIC;
-- Any publication can contain the table, and its rows must still be changed and deleted: an
-- id may be there twice, so there is no key.  Each partition is told the same.  The old row
-- is in the WAL only if wal_level is logical.
ALTER TABLE qml.history REPLICA IDENTITY FULL;
COMMENT ON TABLE qml.history IS 'finished jobs, in one partition for each day of expiry, or for thirty days if that is far ahead; src/jobs/partition.c creates the partitions, src/jobs/expiry.c drops them';
COMMENT ON COLUMN qml.history.id IS 'job id; unique among unexpired and unfinished jobs';
COMMENT ON COLUMN qml.history.created_at IS 'when the job was enqueued';
COMMENT ON COLUMN qml.history.queue_id IS 'qml.queue_data.id';
COMMENT ON COLUMN qml.history.priority IS 'higher is claimed first';
COMMENT ON COLUMN qml.history.max_retries IS 'retries allowed after the first counted attempt, as in qml.live';
COMMENT ON COLUMN qml.history.lineage IS 'where the job was enqueued or last claimed, as in qml.live';
COMMENT ON COLUMN qml.history.created_by IS 'the role that enqueued the job, by oid';
COMMENT ON COLUMN qml.history.state IS 'succeeded, failed or deleted';
COMMENT ON COLUMN qml.history.attempt IS 'number of the latest attempt; NULL: none began';
COMMENT ON COLUMN qml.history.ready_at IS 'when the job became ready for its latest attempt; NULL: when it was enqueued';
COMMENT ON COLUMN qml.history.finished_at IS 'when the job reached its final state';
COMMENT ON COLUMN qml.history.expires_at IS 'when the job stops being visible';
COMMENT ON COLUMN qml.history.started_at IS 'when the last attempt began';
COMMENT ON COLUMN qml.history.timeout_ms IS 'time limit of an attempt, milliseconds; NULL: five minutes';
COMMENT ON COLUMN qml.history.uncounted IS 'how much of attempt did not count against max_retries; NULL: 0';
COMMENT ON COLUMN qml.history.worker IS 'the worker that finished the job';
COMMENT ON COLUMN qml.history.server IS 'the server that the worker belonged to';
COMMENT ON COLUMN qml.history.method IS 'name of the work that was to do';
COMMENT ON COLUMN qml.history.job_type IS 'classification that the caller chose';
COMMENT ON COLUMN qml.history.metadata IS 'an object that the caller attached';
COMMENT ON COLUMN qml.history.progress IS 'latest value given to qml_progress';
COMMENT ON COLUMN qml.history.errors IS 'one object per failed attempt';
COMMENT ON COLUMN qml.history.reason IS 'the latest reason given to qml_release, qml_reschedule or qml_retry_later; of a deleted job that of qml_delete or qml_discard';
COMMENT ON COLUMN qml.history.payload IS 'arguments of the method';
COMMENT ON COLUMN qml.history.result IS 'result given to qml_succeed';

-- Where a job finishes whose partition is missing or locked, so that its end needs no DDL
-- and waits for nobody.  No partition of the history: a default partition would be locked
-- exclusively for each new partition.
CREATE TABLE qml.history_overflow (LIKE qml.history INCLUDING COMMENTS INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
REVOKE ALL ON TABLE qml.history_overflow FROM PUBLIC;
CREATE INDEX history_overflow_id ON qml.history_overflow (id);
CREATE INDEX history_overflow_search ON qml.history_overflow (qml.search_key(queue_id, method), qml.search_order(id, created_at));
CREATE INDEX history_overflow_state ON qml.history_overflow (state, qml.search_order(id, created_at), qml.search_key(queue_id, method)) WHERE state <> 'succeeded';
CREATE INDEX history_overflow_own ON qml.history_overflow (qml.search_order(id, created_at)) WHERE qml.search_own(id, created_at);
CREATE INDEX history_overflow_end ON qml.history_overflow (finished_at) WHERE qml.search_slow(created_at, finished_at);
ALTER TABLE qml.history_overflow REPLICA IDENTITY FULL;
COMMENT ON TABLE qml.history_overflow IS 'finished jobs that are not in a partition of the history yet; maintenance moves them there';
COMMENT ON INDEX qml.history_overflow_id IS 'finds a finished job by id';
COMMENT ON INDEX qml.history_overflow_search IS 'finished jobs by queue and method, in the order of their creation';
COMMENT ON INDEX qml.history_overflow_state IS 'failed and deleted jobs in the order of their creation';
COMMENT ON INDEX qml.history_overflow_own IS 'finished jobs whose id does not say when they were created';
COMMENT ON INDEX qml.history_overflow_end IS 'finished jobs that took long, in the order of their end';

-------------------------------------------------------------------------------
-- The same for the jobs of queues that are unlogged: nothing of them is in the WAL, and a crash
-- of the server leaves none.  Indexes have the names that model/catalog.c makes of that of the
-- table.
-------------------------------------------------------------------------------

CREATE UNLOGGED TABLE qml.live_unlogged (LIKE qml.live INCLUDING COMMENTS INCLUDING DEFAULTS INCLUDING CONSTRAINTS,
	CONSTRAINT live_unlogged_pkey PRIMARY KEY (id)
) WITH (fillfactor = 42,
	autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
	autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 10000,
	autovacuum_vacuum_insert_threshold = 100000, autovacuum_vacuum_cost_delay = 0,
	vacuum_index_cleanup = on);
REVOKE ALL ON TABLE qml.live_unlogged FROM PUBLIC;
CREATE INDEX live_unlogged_ready ON qml.live_unlogged (queue_id, priority DESC, id) WHERE run_at IS NULL;
CREATE INDEX live_unlogged_due ON qml.live_unlogged (run_at) WHERE run_at IS NOT NULL;
CREATE INDEX live_unlogged_later ON qml.live_unlogged (queue_id, qml.search_order(id, created_at)) WHERE run_at IS NOT NULL;
CREATE INDEX live_unlogged_own ON qml.live_unlogged (qml.search_order(id, created_at), queue_id) WHERE qml.search_own(id, created_at);
COMMENT ON TABLE qml.live_unlogged IS 'jobs of unlogged queues that are not finished; read it through the view qml.job';
COMMENT ON INDEX qml.live_unlogged_ready IS 'enqueued and processing jobs in the order in which they are claimed';
COMMENT ON INDEX qml.live_unlogged_due IS 'scheduled and awaiting_retry jobs in the order in which they become due';
COMMENT ON INDEX qml.live_unlogged_later IS 'the same jobs by queue, in the order of their creation';
COMMENT ON INDEX qml.live_unlogged_own IS 'jobs whose id does not say when they were created';

-- Its partitions are unlogged; a partitioned table has no rows of its own.
CREATE TABLE qml.history_unlogged (LIKE qml.history INCLUDING COMMENTS INCLUDING DEFAULTS INCLUDING CONSTRAINTS)
	PARTITION BY RANGE (expires_at);
REVOKE ALL ON TABLE qml.history_unlogged FROM PUBLIC;
ALTER TABLE qml.history_unlogged REPLICA IDENTITY FULL;
COMMENT ON TABLE qml.history_unlogged IS 'finished jobs of unlogged queues, in partitions as those of qml.history';

CREATE UNLOGGED TABLE qml.history_unlogged_overflow (LIKE qml.history INCLUDING COMMENTS INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
REVOKE ALL ON TABLE qml.history_unlogged_overflow FROM PUBLIC;
CREATE INDEX history_unlogged_overflow_id ON qml.history_unlogged_overflow (id);
CREATE INDEX history_unlogged_overflow_search ON qml.history_unlogged_overflow (qml.search_key(queue_id, method), qml.search_order(id, created_at));
CREATE INDEX history_unlogged_overflow_state ON qml.history_unlogged_overflow (state, qml.search_order(id, created_at), qml.search_key(queue_id, method)) WHERE state <> 'succeeded';
CREATE INDEX history_unlogged_overflow_own ON qml.history_unlogged_overflow (qml.search_order(id, created_at)) WHERE qml.search_own(id, created_at);
CREATE INDEX history_unlogged_overflow_end ON qml.history_unlogged_overflow (finished_at) WHERE qml.search_slow(created_at, finished_at);
ALTER TABLE qml.history_unlogged_overflow REPLICA IDENTITY FULL;
COMMENT ON TABLE qml.history_unlogged_overflow IS 'finished jobs of unlogged queues that are not in a partition yet; maintenance moves them there';
COMMENT ON INDEX qml.history_unlogged_overflow_id IS 'finds a finished job by id';
COMMENT ON INDEX qml.history_unlogged_overflow_search IS 'finished jobs by queue and method, in the order of their creation';
COMMENT ON INDEX qml.history_unlogged_overflow_state IS 'failed and deleted jobs in the order of their creation';
COMMENT ON INDEX qml.history_unlogged_overflow_own IS 'finished jobs whose id does not say when they were created';
COMMENT ON INDEX qml.history_unlogged_overflow_end IS 'finished jobs that took long, in the order of their end';

-- A crash begins another life of these tables, and of async queues: see src/model/life.c, which alone
-- writes the numbers.
CREATE SEQUENCE qml.lives AS int;
REVOKE ALL ON SEQUENCE qml.lives FROM PUBLIC;
COMMENT ON SEQUENCE qml.lives IS 'the latest number that was given to a life, from one crash of the server to the next';
CREATE UNLOGGED SEQUENCE qml.unlogged_life AS int;
REVOKE ALL ON SEQUENCE qml.unlogged_life FROM PUBLIC;
COMMENT ON SEQUENCE qml.unlogged_life IS 'the number of this life of the unlogged tables; never called: nothing was written to them since they were emptied';
CREATE UNLOGGED SEQUENCE qml.async_life AS int;
REVOKE ALL ON SEQUENCE qml.async_life FROM PUBLIC;
COMMENT ON SEQUENCE qml.async_life IS 'the number of this life of async queues; never called: none of their jobs was written since a crash';

CREATE TABLE qml.lock_data (
	resource text NOT NULL PRIMARY KEY,
	owner text NOT NULL,
	taken_by regrole NOT NULL,
	fence bigint NOT NULL,
	acquired_at timestamptz NOT NULL,
	expires_at timestamptz NOT NULL
);
REVOKE ALL ON TABLE qml.lock_data FROM PUBLIC;
COMMENT ON TABLE qml.lock_data IS 'named locks with an owner, an expiry time and a fencing number';
COMMENT ON COLUMN qml.lock_data.resource IS 'name of the lock';
COMMENT ON COLUMN qml.lock_data.owner IS 'owner that holds it, a name chosen by the caller';
COMMENT ON COLUMN qml.lock_data.taken_by IS 'the role that took it, by oid; it, its members and administrators of all queues refresh and release it';
COMMENT ON COLUMN qml.lock_data.fence IS 'fencing number of this acquisition, from qml.lock_fence';
COMMENT ON COLUMN qml.lock_data.acquired_at IS 'when the owner acquired it';
COMMENT ON COLUMN qml.lock_data.expires_at IS 'when it expires, and others can take it';

-- One sequence for all locks: a lock that is released and taken again must never get a
-- lower number than before.
CREATE SEQUENCE qml.lock_fence;
REVOKE ALL ON SEQUENCE qml.lock_fence FROM PUBLIC;
COMMENT ON SEQUENCE qml.lock_fence IS 'fencing numbers of named locks';

CREATE TABLE qml.recurring_data (
	id text NOT NULL PRIMARY KEY,
	created_at timestamptz NOT NULL,
	updated_at timestamptz NOT NULL,
	created_by regrole NOT NULL,
	enabled boolean NOT NULL,
	next_run_at timestamptz,
	last_run_at timestamptz,
	fired_through timestamptz,
	anchor timestamptz,
	last_job uuid,
	priority int NOT NULL,
	max_retries int,
	timeout_ms int,
	misfire text NOT NULL,
	overlap text NOT NULL DEFAULT 'allow',
	cron text NOT NULL,
	timezone text NOT NULL,
	queue text NOT NULL,
	method text NOT NULL,
	job_type text,
	metadata jsonb,
	error text,
	paused_at timestamptz,
	paused_by text,
	pause_reason text,
	open_jobs uuid[],
	imported jsonb,
	payload jsonb NOT NULL
) WITH (fillfactor = 70,
	autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
REVOKE ALL ON TABLE qml.recurring_data FROM PUBLIC;
CREATE INDEX recurring_due ON qml.recurring_data (next_run_at) WHERE enabled AND next_run_at IS NOT NULL;
COMMENT ON TABLE qml.recurring_data IS 'recurring jobs; read it through the view qml.recurring';
COMMENT ON INDEX qml.recurring_due IS 'schedules in the order in which they fire';
COMMENT ON COLUMN qml.recurring_data.id IS 'name of the schedule';
COMMENT ON COLUMN qml.recurring_data.created_at IS 'when it was created';
COMMENT ON COLUMN qml.recurring_data.updated_at IS 'when its definition last changed';
COMMENT ON COLUMN qml.recurring_data.created_by IS 'the role that defined it, by oid; its jobs are enqueued as this role';
COMMENT ON COLUMN qml.recurring_data.enabled IS 'whether it fires';
COMMENT ON COLUMN qml.recurring_data.next_run_at IS 'the next tick; NULL if it never fires again';
COMMENT ON COLUMN qml.recurring_data.last_run_at IS 'the latest tick that created a job';
COMMENT ON COLUMN qml.recurring_data.fired_through IS 'the latest tick at which one of this name fired, while that is ahead; NULL otherwise';
COMMENT ON COLUMN qml.recurring_data.anchor IS 'from which an interval is counted; NULL for a cron expression';
COMMENT ON COLUMN qml.recurring_data.last_job IS 'the job of that tick';
COMMENT ON COLUMN qml.recurring_data.priority IS 'of its jobs';
COMMENT ON COLUMN qml.recurring_data.max_retries IS 'of its jobs; NULL for the default of the queue';
COMMENT ON COLUMN qml.recurring_data.timeout_ms IS 'of its jobs, milliseconds; NULL for the default of the queue';
COMMENT ON COLUMN qml.recurring_data.misfire IS 'what happens to missed ticks: fire_once, skip or fire_all';
COMMENT ON COLUMN qml.recurring_data.overlap IS 'what happens to ticks while jobs are unfinished: allow, skip or queue_one';
COMMENT ON COLUMN qml.recurring_data.cron IS 'cron expression, or an interval: every ...';
COMMENT ON COLUMN qml.recurring_data.timezone IS 'time zone of the expression, by its full name';
COMMENT ON COLUMN qml.recurring_data.queue IS 'name of the queue of its jobs';
COMMENT ON COLUMN qml.recurring_data.method IS 'of its jobs';
COMMENT ON COLUMN qml.recurring_data.job_type IS 'of its jobs';
COMMENT ON COLUMN qml.recurring_data.metadata IS 'of its jobs, to which a key "recurring" is added';
COMMENT ON COLUMN qml.recurring_data.error IS 'why the latest tick created no job; NULL if it did';
COMMENT ON COLUMN qml.recurring_data.paused_at IS 'when it was paused; NULL: it is not, or was so by hand';
COMMENT ON COLUMN qml.recurring_data.paused_by IS 'name of the role that paused it';
COMMENT ON COLUMN qml.recurring_data.pause_reason IS 'the reason given to qml_pause_recurring; NULL: none, or it is not paused';
COMMENT ON COLUMN qml.recurring_data.open_jobs IS 'jobs that may be unfinished, if overlap is skip or queue_one';
COMMENT ON COLUMN qml.recurring_data.imported IS 'the job of pg_cron as it was when it was imported: schedule, command, username; NULL: it was not';
COMMENT ON COLUMN qml.recurring_data.payload IS 'of its jobs';

-- What became of each tick, also so that none fires twice.  The partitions are used in turns
-- and emptied by TRUNCATE when what they hold has expired: see src/schedule/occurrence.c,
-- which writes into them, and so their number is fixed.  Each has an index of its own, as
-- the partitions of the history.
CREATE TABLE qml.occurrence_data (
	occurrence timestamptz NOT NULL,
	recurring text NOT NULL,
	job uuid,
	fired_at timestamptz NOT NULL,
	partition smallint NOT NULL,
	outcome text NOT NULL,
	through timestamptz
) PARTITION BY LIST (partition);
REVOKE ALL ON TABLE qml.occurrence_data FROM PUBLIC;
-- For publications, as the history.
ALTER TABLE qml.occurrence_data REPLICA IDENTITY FULL;
COMMENT ON TABLE qml.occurrence_data IS 'ticks of recurring jobs; read it through the view qml.recurring_tick';
COMMENT ON COLUMN qml.occurrence_data.occurrence IS 'time of the tick';
COMMENT ON COLUMN qml.occurrence_data.recurring IS 'qml.recurring_data.id';
COMMENT ON COLUMN qml.occurrence_data.job IS 'the job that it created; NULL: none';
COMMENT ON COLUMN qml.occurrence_data.fired_at IS 'when that was decided';
COMMENT ON COLUMN qml.occurrence_data.partition IS 'the partition that the row is in';
COMMENT ON COLUMN qml.occurrence_data.outcome IS 'on_time, late, missed, skipped or error';
COMMENT ON COLUMN qml.occurrence_data.through IS 'the row stands for all ticks up to then; NULL: for one';

CREATE TABLE qml.occurrence_0 (LIKE qml.occurrence_data INCLUDING COMMENTS)
	WITH (autovacuum_vacuum_insert_threshold = -1);
REVOKE ALL ON TABLE qml.occurrence_0 FROM PUBLIC;
CREATE INDEX occurrence_0_tick ON qml.occurrence_0 (recurring, occurrence);
ALTER TABLE qml.occurrence_0 REPLICA IDENTITY FULL;
ALTER TABLE qml.occurrence_data ATTACH PARTITION qml.occurrence_0 FOR VALUES IN (0);
COMMENT ON TABLE qml.occurrence_0 IS 'a part of the record of ticks that is kept for a day';
COMMENT ON INDEX qml.occurrence_0_tick IS 'finds the ticks of a schedule';

CREATE TABLE qml.occurrence_1 (LIKE qml.occurrence_data INCLUDING COMMENTS)
	WITH (autovacuum_vacuum_insert_threshold = -1);
REVOKE ALL ON TABLE qml.occurrence_1 FROM PUBLIC;
CREATE INDEX occurrence_1_tick ON qml.occurrence_1 (recurring, occurrence);
ALTER TABLE qml.occurrence_1 REPLICA IDENTITY FULL;
ALTER TABLE qml.occurrence_data ATTACH PARTITION qml.occurrence_1 FOR VALUES IN (1);
COMMENT ON TABLE qml.occurrence_1 IS 'a part of the record of ticks that is kept for a day';
COMMENT ON INDEX qml.occurrence_1_tick IS 'finds the ticks of a schedule';

CREATE TABLE qml.occurrence_2 (LIKE qml.occurrence_data INCLUDING COMMENTS)
	WITH (autovacuum_vacuum_insert_threshold = -1);
REVOKE ALL ON TABLE qml.occurrence_2 FROM PUBLIC;
CREATE INDEX occurrence_2_tick ON qml.occurrence_2 (recurring, occurrence);
ALTER TABLE qml.occurrence_2 REPLICA IDENTITY FULL;
ALTER TABLE qml.occurrence_data ATTACH PARTITION qml.occurrence_2 FOR VALUES IN (2);
COMMENT ON TABLE qml.occurrence_2 IS 'a part of the record of ticks that is kept for a day';
COMMENT ON INDEX qml.occurrence_2_tick IS 'finds the ticks of a schedule';

CREATE TABLE qml.occurrence_3 (LIKE qml.occurrence_data INCLUDING COMMENTS)
	WITH (autovacuum_vacuum_insert_threshold = -1);
REVOKE ALL ON TABLE qml.occurrence_3 FROM PUBLIC;
CREATE INDEX occurrence_3_tick ON qml.occurrence_3 (recurring, occurrence);
ALTER TABLE qml.occurrence_3 REPLICA IDENTITY FULL;
ALTER TABLE qml.occurrence_data ATTACH PARTITION qml.occurrence_3 FOR VALUES IN (3);
COMMENT ON TABLE qml.occurrence_3 IS 'a part of the record of ticks that is kept for a day';
COMMENT ON INDEX qml.occurrence_3_tick IS 'finds the ticks of a schedule';

CREATE TABLE qml.occurrence_4 (LIKE qml.occurrence_data INCLUDING COMMENTS)
	WITH (autovacuum_vacuum_insert_threshold = -1);
REVOKE ALL ON TABLE qml.occurrence_4 FROM PUBLIC;
CREATE INDEX occurrence_4_tick ON qml.occurrence_4 (recurring, occurrence);
ALTER TABLE qml.occurrence_4 REPLICA IDENTITY FULL;
ALTER TABLE qml.occurrence_data ATTACH PARTITION qml.occurrence_4 FOR VALUES IN (4);
COMMENT ON TABLE qml.occurrence_4 IS 'a part of the record of ticks that is kept for longer';
COMMENT ON INDEX qml.occurrence_4_tick IS 'finds the ticks of a schedule';

CREATE TABLE qml.occurrence_5 (LIKE qml.occurrence_data INCLUDING COMMENTS)
	WITH (autovacuum_vacuum_insert_threshold = -1);
REVOKE ALL ON TABLE qml.occurrence_5 FROM PUBLIC;
CREATE INDEX occurrence_5_tick ON qml.occurrence_5 (recurring, occurrence);
ALTER TABLE qml.occurrence_5 REPLICA IDENTITY FULL;
ALTER TABLE qml.occurrence_data ATTACH PARTITION qml.occurrence_5 FOR VALUES IN (5);
COMMENT ON TABLE qml.occurrence_5 IS 'a part of the record of ticks that is kept for longer';
COMMENT ON INDEX qml.occurrence_5_tick IS 'finds the ticks of a schedule';

CREATE TABLE qml.occurrence_6 (LIKE qml.occurrence_data INCLUDING COMMENTS)
	WITH (autovacuum_vacuum_insert_threshold = -1);
REVOKE ALL ON TABLE qml.occurrence_6 FROM PUBLIC;
CREATE INDEX occurrence_6_tick ON qml.occurrence_6 (recurring, occurrence);
ALTER TABLE qml.occurrence_6 REPLICA IDENTITY FULL;
ALTER TABLE qml.occurrence_data ATTACH PARTITION qml.occurrence_6 FOR VALUES IN (6);
COMMENT ON TABLE qml.occurrence_6 IS 'a part of the record of ticks that is kept for longer';
COMMENT ON INDEX qml.occurrence_6_tick IS 'finds the ticks of a schedule';

CREATE TABLE qml.occurrence_7 (LIKE qml.occurrence_data INCLUDING COMMENTS)
	WITH (autovacuum_vacuum_insert_threshold = -1);
REVOKE ALL ON TABLE qml.occurrence_7 FROM PUBLIC;
CREATE INDEX occurrence_7_tick ON qml.occurrence_7 (recurring, occurrence);
ALTER TABLE qml.occurrence_7 REPLICA IDENTITY FULL;
ALTER TABLE qml.occurrence_data ATTACH PARTITION qml.occurrence_7 FOR VALUES IN (7);
COMMENT ON TABLE qml.occurrence_7 IS 'a part of the record of ticks that is kept for longer';
COMMENT ON INDEX qml.occurrence_7_tick IS 'finds the ticks of a schedule';

CREATE TABLE qml.occurrence_8 (LIKE qml.occurrence_data INCLUDING COMMENTS)
	WITH (autovacuum_vacuum_insert_threshold = -1);
REVOKE ALL ON TABLE qml.occurrence_8 FROM PUBLIC;
CREATE INDEX occurrence_8_tick ON qml.occurrence_8 (recurring, occurrence);
ALTER TABLE qml.occurrence_8 REPLICA IDENTITY FULL;
ALTER TABLE qml.occurrence_data ATTACH PARTITION qml.occurrence_8 FOR VALUES IN (8);
COMMENT ON TABLE qml.occurrence_8 IS 'a part of the record of ticks that is kept for longer';
COMMENT ON INDEX qml.occurrence_8_tick IS 'finds the ticks of a schedule';

CREATE TABLE qml.occurrence_9 (LIKE qml.occurrence_data INCLUDING COMMENTS)
	WITH (autovacuum_vacuum_insert_threshold = -1);
REVOKE ALL ON TABLE qml.occurrence_9 FROM PUBLIC;
CREATE INDEX occurrence_9_tick ON qml.occurrence_9 (recurring, occurrence);
ALTER TABLE qml.occurrence_9 REPLICA IDENTITY FULL;
ALTER TABLE qml.occurrence_data ATTACH PARTITION qml.occurrence_9 FOR VALUES IN (9);
COMMENT ON TABLE qml.occurrence_9 IS 'a part of the record of ticks that is kept for longer';
COMMENT ON INDEX qml.occurrence_9_tick IS 'finds the ticks of a schedule';

-------------------------------------------------------------------------------
-- Statistics.  As the ticks, they are in partitions that are used in turns: 0 to 3 have rows of
-- a minute, 4 to 7 rows of ten minutes; src/maintenance/stats_rows.c writes them.
-------------------------------------------------------------------------------

CREATE TABLE qml.stats_data (
	at timestamptz NOT NULL,
	until timestamptz NOT NULL,
	partition smallint NOT NULL,
	queue_id int NOT NULL,
	method text NOT NULL,
	enqueued bigint NOT NULL,
	started bigint NOT NULL,
	succeeded bigint NOT NULL,
	failed bigint NOT NULL,
	deleted bigint NOT NULL,
	retried bigint NOT NULL,
	released bigint NOT NULL,
	lost bigint NOT NULL,
	waited bigint NOT NULL,
	ran bigint NOT NULL,
	waits bytea NOT NULL,
	runs bytea NOT NULL
) PARTITION BY LIST (partition);
REVOKE ALL ON TABLE qml.stats_data FROM PUBLIC;
-- For publications, as the history.
ALTER TABLE qml.stats_data REPLICA IDENTITY FULL;
COMMENT ON TABLE qml.stats_data IS 'statistics by queue and method; read them through the view qml.stats_minute or with qml_stats()';
COMMENT ON COLUMN qml.stats_data.at IS 'begin of the time that the row stands for';
COMMENT ON COLUMN qml.stats_data.until IS 'end of that time; of ten minutes, that of the last minute in which something was counted';
COMMENT ON COLUMN qml.stats_data.partition IS 'the partition that the row is in';
COMMENT ON COLUMN qml.stats_data.queue_id IS 'qml.queue_data.id; 0: all queues and methods without a series of their own';
COMMENT ON COLUMN qml.stats_data.method IS 'of the jobs; empty if queue_id is 0';
COMMENT ON COLUMN qml.stats_data.enqueued IS 'jobs that were made';
COMMENT ON COLUMN qml.stats_data.started IS 'attempts that began';
COMMENT ON COLUMN qml.stats_data.succeeded IS 'jobs that succeeded';
COMMENT ON COLUMN qml.stats_data.failed IS 'jobs that failed for good';
COMMENT ON COLUMN qml.stats_data.deleted IS 'jobs that were deleted before they had ended';
COMMENT ON COLUMN qml.stats_data.retried IS 'attempts that failed or were lost, and are followed by another one';
COMMENT ON COLUMN qml.stats_data.released IS 'attempts that were given back, and do not count';
COMMENT ON COLUMN qml.stats_data.lost IS 'attempts whose worker was lost; each of them is counted in another column as well';
COMMENT ON COLUMN qml.stats_data.waited IS 'how long the jobs of the attempts that began had waited in all, microseconds';
COMMENT ON COLUMN qml.stats_data.ran IS 'how long the attempts that ended ran in all, microseconds; without those that were lost or that somebody else ended';
COMMENT ON COLUMN qml.stats_data.waits IS 'the same by duration, packed as src/core/histogram.c says';
COMMENT ON COLUMN qml.stats_data.runs IS 'the same by duration';

CREATE TABLE qml.stats_0 (LIKE qml.stats_data INCLUDING COMMENTS)
	WITH (autovacuum_vacuum_insert_threshold = -1);
REVOKE ALL ON TABLE qml.stats_0 FROM PUBLIC;
CREATE INDEX stats_0_at ON qml.stats_0 (at);
ALTER TABLE qml.stats_0 REPLICA IDENTITY FULL;
ALTER TABLE qml.stats_data ATTACH PARTITION qml.stats_0 FOR VALUES IN (0);
COMMENT ON TABLE qml.stats_0 IS 'a part of the statistics of a minute each';
COMMENT ON INDEX qml.stats_0_at IS 'finds the statistics of a time';

CREATE TABLE qml.stats_1 (LIKE qml.stats_data INCLUDING COMMENTS)
	WITH (autovacuum_vacuum_insert_threshold = -1);
REVOKE ALL ON TABLE qml.stats_1 FROM PUBLIC;
CREATE INDEX stats_1_at ON qml.stats_1 (at);
ALTER TABLE qml.stats_1 REPLICA IDENTITY FULL;
ALTER TABLE qml.stats_data ATTACH PARTITION qml.stats_1 FOR VALUES IN (1);
COMMENT ON TABLE qml.stats_1 IS 'a part of the statistics of a minute each';
COMMENT ON INDEX qml.stats_1_at IS 'finds the statistics of a time';

CREATE TABLE qml.stats_2 (LIKE qml.stats_data INCLUDING COMMENTS)
	WITH (autovacuum_vacuum_insert_threshold = -1);
REVOKE ALL ON TABLE qml.stats_2 FROM PUBLIC;
CREATE INDEX stats_2_at ON qml.stats_2 (at);
ALTER TABLE qml.stats_2 REPLICA IDENTITY FULL;
ALTER TABLE qml.stats_data ATTACH PARTITION qml.stats_2 FOR VALUES IN (2);
COMMENT ON TABLE qml.stats_2 IS 'a part of the statistics of a minute each';
COMMENT ON INDEX qml.stats_2_at IS 'finds the statistics of a time';

CREATE TABLE qml.stats_3 (LIKE qml.stats_data INCLUDING COMMENTS)
	WITH (autovacuum_vacuum_insert_threshold = -1);
REVOKE ALL ON TABLE qml.stats_3 FROM PUBLIC;
CREATE INDEX stats_3_at ON qml.stats_3 (at);
ALTER TABLE qml.stats_3 REPLICA IDENTITY FULL;
ALTER TABLE qml.stats_data ATTACH PARTITION qml.stats_3 FOR VALUES IN (3);
COMMENT ON TABLE qml.stats_3 IS 'a part of the statistics of a minute each';
COMMENT ON INDEX qml.stats_3_at IS 'finds the statistics of a time';

CREATE TABLE qml.stats_4 (LIKE qml.stats_data INCLUDING COMMENTS)
	WITH (autovacuum_vacuum_insert_threshold = -1);
REVOKE ALL ON TABLE qml.stats_4 FROM PUBLIC;
CREATE INDEX stats_4_at ON qml.stats_4 (at);
ALTER TABLE qml.stats_4 REPLICA IDENTITY FULL;
ALTER TABLE qml.stats_data ATTACH PARTITION qml.stats_4 FOR VALUES IN (4);
COMMENT ON TABLE qml.stats_4 IS 'a part of the statistics of ten minutes each';
COMMENT ON INDEX qml.stats_4_at IS 'finds the statistics of a time';

CREATE TABLE qml.stats_5 (LIKE qml.stats_data INCLUDING COMMENTS)
	WITH (autovacuum_vacuum_insert_threshold = -1);
REVOKE ALL ON TABLE qml.stats_5 FROM PUBLIC;
CREATE INDEX stats_5_at ON qml.stats_5 (at);
ALTER TABLE qml.stats_5 REPLICA IDENTITY FULL;
ALTER TABLE qml.stats_data ATTACH PARTITION qml.stats_5 FOR VALUES IN (5);
COMMENT ON TABLE qml.stats_5 IS 'a part of the statistics of ten minutes each';
COMMENT ON INDEX qml.stats_5_at IS 'finds the statistics of a time';

CREATE TABLE qml.stats_6 (LIKE qml.stats_data INCLUDING COMMENTS)
	WITH (autovacuum_vacuum_insert_threshold = -1);
REVOKE ALL ON TABLE qml.stats_6 FROM PUBLIC;
CREATE INDEX stats_6_at ON qml.stats_6 (at);
ALTER TABLE qml.stats_6 REPLICA IDENTITY FULL;
ALTER TABLE qml.stats_data ATTACH PARTITION qml.stats_6 FOR VALUES IN (6);
COMMENT ON TABLE qml.stats_6 IS 'a part of the statistics of ten minutes each';
COMMENT ON INDEX qml.stats_6_at IS 'finds the statistics of a time';

CREATE TABLE qml.stats_7 (LIKE qml.stats_data INCLUDING COMMENTS)
	WITH (autovacuum_vacuum_insert_threshold = -1);
REVOKE ALL ON TABLE qml.stats_7 FROM PUBLIC;
CREATE INDEX stats_7_at ON qml.stats_7 (at);
ALTER TABLE qml.stats_7 REPLICA IDENTITY FULL;
ALTER TABLE qml.stats_data ATTACH PARTITION qml.stats_7 FOR VALUES IN (7);
COMMENT ON TABLE qml.stats_7 IS 'a part of the statistics of ten minutes each';
COMMENT ON INDEX qml.stats_7_at IS 'finds the statistics of a time';

CREATE TABLE qml.mark_data (
	at timestamptz NOT NULL,
	label text NOT NULL,
	made_by regrole NOT NULL
);
REVOKE ALL ON TABLE qml.mark_data FROM PUBLIC;
ALTER TABLE qml.mark_data REPLICA IDENTITY FULL;
COMMENT ON TABLE qml.mark_data IS 'marks on charts; read them through the view qml.mark';
COMMENT ON COLUMN qml.mark_data.at IS 'when it was made';
COMMENT ON COLUMN qml.mark_data.label IS 'what it says';
COMMENT ON COLUMN qml.mark_data.made_by IS 'the role that made it, by oid';

-- Written by the scheduler only (src/maintenance/alert_rows.c).  The index on those that are active
-- is what keeps one from being begun twice.
CREATE TABLE qml.alert_data (
	id uuid NOT NULL PRIMARY KEY,
	kind text NOT NULL,
	queue_id int NOT NULL,
	method text NOT NULL,
	since timestamptz NOT NULL,
	until timestamptz,
	calm_since timestamptz,
	value float8 NOT NULL,
	bound float8 NOT NULL,
	detail text NOT NULL
);
REVOKE ALL ON TABLE qml.alert_data FROM PUBLIC;
CREATE UNIQUE INDEX alert_data_active ON qml.alert_data (kind, queue_id, method) WHERE until IS NULL;
CREATE INDEX alert_data_until ON qml.alert_data (until) WHERE until IS NOT NULL;
COMMENT ON TABLE qml.alert_data IS 'alerts that are active, and those that have ended; read them through the view qml.alert';
COMMENT ON INDEX qml.alert_data_active IS 'finds the active alert of a kind, queue and method';
COMMENT ON INDEX qml.alert_data_until IS 'finds alerts that ended long ago';
COMMENT ON COLUMN qml.alert_data.id IS 'id of the alert';
COMMENT ON COLUMN qml.alert_data.kind IS 'the bound that is exceeded, or the check that fails';
COMMENT ON COLUMN qml.alert_data.queue_id IS 'the queue; 0: it is about no queue, or about several';
COMMENT ON COLUMN qml.alert_data.method IS 'the method; empty: it is about no method';
COMMENT ON COLUMN qml.alert_data.since IS 'when it began';
COMMENT ON COLUMN qml.alert_data.until IS 'when it ended; NULL: it is active';
COMMENT ON COLUMN qml.alert_data.calm_since IS 'since when the value is low again; NULL: it is not';
COMMENT ON COLUMN qml.alert_data.value IS 'the worst value, noted each time that it has doubled';
COMMENT ON COLUMN qml.alert_data.bound IS 'the bound that the value exceeds';
COMMENT ON COLUMN qml.alert_data.detail IS 'what is the matter, in words';

-------------------------------------------------------------------------------
-- Servers, and functions of users
-------------------------------------------------------------------------------

-- Heartbeats are HOT updates.  Not dumped: a copy has servers of its own.
CREATE TABLE qml.server_data (
	id text NOT NULL PRIMARY KEY,
	name text NOT NULL,
	workers int NOT NULL,
	queues text[],
	registered_by regrole NOT NULL,
	registered_at timestamptz NOT NULL,
	heartbeat_at timestamptz NOT NULL,
	dead_at timestamptz
) WITH (fillfactor = 50,
	autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
REVOKE ALL ON TABLE qml.server_data FROM PUBLIC;
COMMENT ON TABLE qml.server_data IS 'servers that run outside the database; read it through the view qml.server';
COMMENT ON COLUMN qml.server_data.id IS 'id of this registration; workers fetch as <id>/<name>';
COMMENT ON COLUMN qml.server_data.name IS 'name given by the server';
COMMENT ON COLUMN qml.server_data.workers IS 'number of its workers';
COMMENT ON COLUMN qml.server_data.queues IS 'queues that it processes; NULL for all';
COMMENT ON COLUMN qml.server_data.registered_by IS 'the role that registered it, by oid';
COMMENT ON COLUMN qml.server_data.registered_at IS 'when it registered';
COMMENT ON COLUMN qml.server_data.heartbeat_at IS 'time of the latest heartbeat';
COMMENT ON COLUMN qml.server_data.dead_at IS 'when it was declared dead and its jobs were reclaimed';

-- Functions by name: an oid would not survive a dump, and a column of type
-- regprocedure would stop pg_upgrade.
CREATE TABLE qml.handler_data (
	method text NOT NULL PRIMARY KEY,
	schema text NOT NULL,
	name text NOT NULL,
	argument_types text[] NOT NULL,
	owner regrole NOT NULL,
	run_as regrole NOT NULL,
	registered_by regrole NOT NULL,
	registered_at timestamptz NOT NULL,
	options jsonb NOT NULL,
	command text NOT NULL
);
REVOKE ALL ON TABLE qml.handler_data FROM PUBLIC;
COMMENT ON TABLE qml.handler_data IS 'functions and commands that run jobs in the database; read it through the view qml.handler';
COMMENT ON COLUMN qml.handler_data.method IS 'method of the jobs';
COMMENT ON COLUMN qml.handler_data.schema IS 'schema of the function; empty for a command, like the next two';
COMMENT ON COLUMN qml.handler_data.name IS 'name of the function';
COMMENT ON COLUMN qml.handler_data.argument_types IS 'types of its arguments';
COMMENT ON COLUMN qml.handler_data.owner IS 'owner of the function when it was registered, by oid; 0 for a command';
COMMENT ON COLUMN qml.handler_data.run_as IS 'the role that jobs run as, by oid';
COMMENT ON COLUMN qml.handler_data.registered_by IS 'the role that registered it, by oid';
COMMENT ON COLUMN qml.handler_data.registered_at IS 'when it was registered';
COMMENT ON COLUMN qml.handler_data.options IS 'options given to qml_register_handler or qml_register_command, validated';
COMMENT ON COLUMN qml.handler_data.command IS 'the statement of a command; empty for a function';

-- State hooks and middleware: functions by name, as handlers are.
CREATE TABLE qml.hook_data (
	name text NOT NULL PRIMARY KEY,
	schema text NOT NULL,
	function text NOT NULL,
	argument_types text[] NOT NULL,
	owner regrole NOT NULL,
	run_as regrole NOT NULL,
	registered_at timestamptz NOT NULL,
	states qml.job_state[],
	errors int NOT NULL DEFAULT 0,
	broken boolean NOT NULL DEFAULT false,
	last_error text,
	last_error_at timestamptz,
	options jsonb NOT NULL DEFAULT '{}'
);
REVOKE ALL ON TABLE qml.hook_data FROM PUBLIC;
COMMENT ON TABLE qml.hook_data IS 'functions that run on every transition of a job, in its transaction or after it; read it through the view qml.hook';
COMMENT ON COLUMN qml.hook_data.name IS 'name of the hook; hooks are called in the order of their names';
COMMENT ON COLUMN qml.hook_data.schema IS 'schema of the function';
COMMENT ON COLUMN qml.hook_data.function IS 'name of the function';
COMMENT ON COLUMN qml.hook_data.argument_types IS 'types of its arguments';
COMMENT ON COLUMN qml.hook_data.owner IS 'owner of the function when it was registered, by oid';
COMMENT ON COLUMN qml.hook_data.run_as IS 'the role that registered it, and that it runs as, by oid';
COMMENT ON COLUMN qml.hook_data.registered_at IS 'when it was registered';
COMMENT ON COLUMN qml.hook_data.states IS 'new states that it is called for; NULL for all';
COMMENT ON COLUMN qml.hook_data.errors IS 'number of consecutive errors in transitions that no caller asked for; of an after-commit hook: of calls that failed for good';
COMMENT ON COLUMN qml.hook_data.broken IS 'whether it was disabled because of these errors';
COMMENT ON COLUMN qml.hook_data.last_error IS 'the latest of these errors';
COMMENT ON COLUMN qml.hook_data.last_error_at IS 'time of the latest of these errors';
COMMENT ON COLUMN qml.hook_data.options IS 'options given to qml_register_hook, validated';

CREATE TABLE qml.middleware_data (
	name text NOT NULL PRIMARY KEY,
	schema text NOT NULL,
	function text NOT NULL,
	argument_types text[] NOT NULL,
	owner regrole NOT NULL,
	run_as regrole NOT NULL,
	registered_at timestamptz NOT NULL,
	"position" int NOT NULL
);
REVOKE ALL ON TABLE qml.middleware_data FROM PUBLIC;
COMMENT ON TABLE qml.middleware_data IS 'functions that wrap handlers; read it through the view qml.middleware';
COMMENT ON COLUMN qml.middleware_data.name IS 'name of the middleware';
COMMENT ON COLUMN qml.middleware_data.schema IS 'schema of the function';
COMMENT ON COLUMN qml.middleware_data.function IS 'name of the function';
COMMENT ON COLUMN qml.middleware_data.argument_types IS 'types of its arguments';
COMMENT ON COLUMN qml.middleware_data.owner IS 'owner of the function when it was registered, by oid';
COMMENT ON COLUMN qml.middleware_data.run_as IS 'the role that registered it, and that it runs as, by oid';
COMMENT ON COLUMN qml.middleware_data.registered_at IS 'when it was registered';
COMMENT ON COLUMN qml.middleware_data."position" IS 'order of the calls: lower positions are further out; equal ones are ordered by name';

CREATE TABLE qml.acl_data (
	grantee regrole NOT NULL,
	capability text NOT NULL CHECK (capability IN ('enqueue', 'work', 'monitor', 'admin', 'usage', 'open')),
	queue text,
	grantor regrole NOT NULL,
	granted_at timestamptz NOT NULL DEFAULT now()
);
REVOKE ALL ON TABLE qml.acl_data FROM PUBLIC;
-- Two indexes, because UNIQUE NULLS NOT DISTINCT is not there before 15.
CREATE UNIQUE INDEX acl_queue ON qml.acl_data (grantee, capability, queue) WHERE queue IS NOT NULL;
CREATE UNIQUE INDEX acl_all ON qml.acl_data (grantee, capability) WHERE queue IS NULL;
-- For publications: no index is over columns that are never null.
ALTER TABLE qml.acl_data REPLICA IDENTITY FULL;
COMMENT ON TABLE qml.acl_data IS 'who may do what to which queue; written by qml_grant and qml_revoke';
COMMENT ON INDEX qml.acl_queue IS 'one row per grantee, capability and queue';
COMMENT ON INDEX qml.acl_all IS 'one row per grantee and capability for all queues';
COMMENT ON COLUMN qml.acl_data.grantee IS 'role, by oid';
COMMENT ON COLUMN qml.acl_data.capability IS 'enqueue, work, monitor or admin; or what is no capability: usage, if qml has granted USAGE on the schema of the functions, and open, if it has granted what somebody took from PUBLIC; it revokes that with the last capability or handler of the role';
COMMENT ON COLUMN qml.acl_data.queue IS 'name of the queue, which need not exist yet; NULL for all queues';
COMMENT ON COLUMN qml.acl_data.grantor IS 'role that granted it';
COMMENT ON COLUMN qml.acl_data.granted_at IS 'when it was granted';

CREATE TABLE qml.instance_data (
	system_identifier bigint NOT NULL,
	database oid NOT NULL,
	adopted_at timestamptz NOT NULL DEFAULT now()
);
REVOKE ALL ON TABLE qml.instance_data FROM PUBLIC;
-- For publications, as above.
ALTER TABLE qml.instance_data REPLICA IDENTITY FULL;
COMMENT ON TABLE qml.instance_data IS 'the server and database that these jobs belong to; if the row names another one, this database is a copy, which stays idle until qml_adopt() is called';
COMMENT ON COLUMN qml.instance_data.system_identifier IS 'system identifier of the server, from pg_control_system()';
COMMENT ON COLUMN qml.instance_data.database IS 'oid of the database';
COMMENT ON COLUMN qml.instance_data.adopted_at IS 'when the extension was created or the copy adopted';

-- While it has a row, no job of any queue is given out.
CREATE TABLE qml.pause_data (
	single boolean NOT NULL DEFAULT true PRIMARY KEY CHECK (single),
	paused_at timestamptz NOT NULL,
	paused_by text NOT NULL,
	pause_reason text
);
REVOKE ALL ON TABLE qml.pause_data FROM PUBLIC;
COMMENT ON TABLE qml.pause_data IS 'the pause of all queues: one row while they are paused, none otherwise';
COMMENT ON COLUMN qml.pause_data.single IS 'true, so that there is one row at most';
COMMENT ON COLUMN qml.pause_data.paused_at IS 'when all queues were paused';
COMMENT ON COLUMN qml.pause_data.paused_by IS 'name of the role that paused them';
COMMENT ON COLUMN qml.pause_data.pause_reason IS 'the reason given to qml_pause_all';

-------------------------------------------------------------------------------
-- The record of acts of control: src/model/audit.c writes it, and
-- src/maintenance/audit_partitions.c makes and drops its partitions, one a month.  Roles are
-- recorded by name, as they were called then.
-------------------------------------------------------------------------------

CREATE TABLE qml.audit_data (
	at timestamptz NOT NULL,
	action text NOT NULL,
	object_type text NOT NULL,
	object text,
	queue text,
	session_role text NOT NULL,
	effective_role text NOT NULL,
	claimed_actor text,
	client_address inet,
	before jsonb,
	after jsonb
) PARTITION BY RANGE (at);
REVOKE ALL ON TABLE qml.audit_data FROM PUBLIC;
-- For publications, as the history.
ALTER TABLE qml.audit_data REPLICA IDENTITY FULL;
COMMENT ON TABLE qml.audit_data IS 'acts of control, in one partition for each month; read it through the view qml.audit';
COMMENT ON COLUMN qml.audit_data.at IS 'when it was done';
COMMENT ON COLUMN qml.audit_data.action IS 'name of the function that was called';
COMMENT ON COLUMN qml.audit_data.object_type IS 'job, queue, schedule, handler, hook, middleware, role, server, bulk or database';
COMMENT ON COLUMN qml.audit_data.object IS 'id or name of the object; NULL: the database as a whole';
COMMENT ON COLUMN qml.audit_data.queue IS 'name of the queue that it is about; NULL: none, or all';
COMMENT ON COLUMN qml.audit_data.session_role IS 'the role that logged in';
COMMENT ON COLUMN qml.audit_data.effective_role IS 'the role whose rights counted: another one in a security-definer function';
COMMENT ON COLUMN qml.audit_data.claimed_actor IS 'what the client said of itself by the setting qml.actor; nothing checks it';
COMMENT ON COLUMN qml.audit_data.client_address IS 'network address of the client; NULL: a local socket, or a background process';
COMMENT ON COLUMN qml.audit_data.before IS 'what was changed, as it was; NULL: it was not there';
COMMENT ON COLUMN qml.audit_data.after IS 'the same, as it was then; NULL: it was not there any more';

-- Where an act goes whose partition is missing or locked.
CREATE TABLE qml.audit_overflow (LIKE qml.audit_data INCLUDING COMMENTS INCLUDING DEFAULTS);
REVOKE ALL ON TABLE qml.audit_overflow FROM PUBLIC;
ALTER TABLE qml.audit_overflow REPLICA IDENTITY FULL;
COMMENT ON TABLE qml.audit_overflow IS 'acts of control that are not in a partition yet; maintenance moves them there';

-- Bulk operations: src/maintenance/bulk.c and bulk_run.c, which alone write the table.  A chunk
-- changes no column of the index, so its update is a HOT one.
CREATE TABLE qml.bulk_data (
	id uuid NOT NULL PRIMARY KEY,
	made_at timestamptz NOT NULL,
	state_at timestamptz NOT NULL,
	worked_at timestamptz,
	not_before timestamptz,
	held_until timestamptz,
	made_by regrole NOT NULL,
	walked boolean NOT NULL DEFAULT false,
	looked bigint NOT NULL DEFAULT 0,
	cursor_order bigint,
	cursor_id uuid,
	state text NOT NULL CHECK (state IN ('running', 'paused', 'finished', 'canceled', 'failed')),
	action text NOT NULL,
	timezone text NOT NULL,
	outcomes jsonb NOT NULL DEFAULT '{}',
	held uuid[] NOT NULL DEFAULT '{}',
	query text NOT NULL,
	options jsonb NOT NULL,
	state_reason text,
	last_error text
) WITH (fillfactor = 50);
REVOKE ALL ON TABLE qml.bulk_data FROM PUBLIC;
COMMENT ON TABLE qml.bulk_data IS 'bulk operations; read them through the view qml.bulk';
COMMENT ON COLUMN qml.bulk_data.id IS 'the id that qml_bulk returned';
COMMENT ON COLUMN qml.bulk_data.made_at IS 'when it was made: jobs that were created later are not meant';
COMMENT ON COLUMN qml.bulk_data.state_at IS 'since when it has its state';
COMMENT ON COLUMN qml.bulk_data.worked_at IS 'when its last chunk was done; NULL: none was';
COMMENT ON COLUMN qml.bulk_data.not_before IS 'when the next chunk may be done; NULL: at once';
COMMENT ON COLUMN qml.bulk_data.held_until IS 'until when jobs that others have are tried; NULL: it has not met all jobs yet';
COMMENT ON COLUMN qml.bulk_data.made_by IS 'the role with whose rights it is done, by oid';
COMMENT ON COLUMN qml.bulk_data.walked IS 'whether it has met all jobs';
COMMENT ON COLUMN qml.bulk_data.looked IS 'how many jobs it has looked at';
COMMENT ON COLUMN qml.bulk_data.cursor_order IS 'the place of the last job that it has met, as qml.search_order makes it; NULL: none';
COMMENT ON COLUMN qml.bulk_data.cursor_id IS 'the id in that place';
COMMENT ON COLUMN qml.bulk_data.state IS 'running, paused, finished, canceled or failed';
COMMENT ON COLUMN qml.bulk_data.action IS 'retry, delete, move, priority or redrive';
COMMENT ON COLUMN qml.bulk_data.timezone IS 'the time zone of the session that made it, for the query';
COMMENT ON COLUMN qml.bulk_data.outcomes IS 'how many jobs had which outcome';
COMMENT ON COLUMN qml.bulk_data.held IS 'jobs that others had when it met them, and that are tried again';
COMMENT ON COLUMN qml.bulk_data.query IS 'which jobs are meant, as qml_search takes it';
COMMENT ON COLUMN qml.bulk_data.options IS 'the options given to qml_bulk';
COMMENT ON COLUMN qml.bulk_data.state_reason IS 'why it was paused or canceled, or has failed';
COMMENT ON COLUMN qml.bulk_data.last_error IS 'the error of the last job that it could not change';

-- A dump that left out jobs would lose them; history partitions are ordinary
-- tables to pg_dump and need no mark.
SELECT pg_catalog.pg_extension_config_dump('qml.queue_data', '');
SELECT pg_catalog.pg_extension_config_dump('qml.queue_data_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('qml.live', '');
SELECT pg_catalog.pg_extension_config_dump('qml.history_overflow', '');
SELECT pg_catalog.pg_extension_config_dump('qml.live_unlogged', '');
SELECT pg_catalog.pg_extension_config_dump('qml.history_unlogged_overflow', '');
SELECT pg_catalog.pg_extension_config_dump('qml.lives', '');
SELECT pg_catalog.pg_extension_config_dump('qml.unlogged_life', '');
SELECT pg_catalog.pg_extension_config_dump('qml.async_life', '');
SELECT pg_catalog.pg_extension_config_dump('qml.recurring_data', '');
SELECT pg_catalog.pg_extension_config_dump('qml.occurrence_0', '');
SELECT pg_catalog.pg_extension_config_dump('qml.occurrence_1', '');
SELECT pg_catalog.pg_extension_config_dump('qml.occurrence_2', '');
SELECT pg_catalog.pg_extension_config_dump('qml.occurrence_3', '');
SELECT pg_catalog.pg_extension_config_dump('qml.occurrence_4', '');
SELECT pg_catalog.pg_extension_config_dump('qml.occurrence_5', '');
SELECT pg_catalog.pg_extension_config_dump('qml.occurrence_6', '');
SELECT pg_catalog.pg_extension_config_dump('qml.occurrence_7', '');
SELECT pg_catalog.pg_extension_config_dump('qml.occurrence_8', '');
SELECT pg_catalog.pg_extension_config_dump('qml.occurrence_9', '');
SELECT pg_catalog.pg_extension_config_dump('qml.stats_0', '');
SELECT pg_catalog.pg_extension_config_dump('qml.stats_1', '');
SELECT pg_catalog.pg_extension_config_dump('qml.stats_2', '');
SELECT pg_catalog.pg_extension_config_dump('qml.stats_3', '');
SELECT pg_catalog.pg_extension_config_dump('qml.stats_4', '');
SELECT pg_catalog.pg_extension_config_dump('qml.stats_5', '');
SELECT pg_catalog.pg_extension_config_dump('qml.stats_6', '');
SELECT pg_catalog.pg_extension_config_dump('qml.stats_7', '');
SELECT pg_catalog.pg_extension_config_dump('qml.mark_data', '');
SELECT pg_catalog.pg_extension_config_dump('qml.alert_data', '');
SELECT pg_catalog.pg_extension_config_dump('qml.handler_data', '');
SELECT pg_catalog.pg_extension_config_dump('qml.hook_data', '');
SELECT pg_catalog.pg_extension_config_dump('qml.middleware_data', '');
SELECT pg_catalog.pg_extension_config_dump('qml.lock_data', '');
SELECT pg_catalog.pg_extension_config_dump('qml.lock_fence', '');
SELECT pg_catalog.pg_extension_config_dump('qml.acl_data', '');
SELECT pg_catalog.pg_extension_config_dump('qml.instance_data', '');
SELECT pg_catalog.pg_extension_config_dump('qml.pause_data', '');
SELECT pg_catalog.pg_extension_config_dump('qml.audit_overflow', '');
SELECT pg_catalog.pg_extension_config_dump('qml.bulk_data', '');

-- Backends cache queues, handlers, hooks, middleware, capabilities and the instance.  The
-- trigger makes them read a table again after any change: by qml's functions, by hand, by
-- a restore or by replication.
CREATE FUNCTION qml.invalidate() RETURNS trigger
	AS 'MODULE_PATHNAME', 'qml_invalidate' LANGUAGE C;
REVOKE ALL ON FUNCTION qml.invalidate() FROM PUBLIC;
COMMENT ON FUNCTION qml.invalidate() IS 'trigger: makes all backends read the table again';

CREATE FUNCTION qml.note_sql() RETURNS trigger
	AS 'MODULE_PATHNAME', 'qml_note_sql' LANGUAGE C;
REVOKE ALL ON FUNCTION qml.note_sql() FROM PUBLIC;
COMMENT ON FUNCTION qml.note_sql() IS 'trigger: what shared memory knows of ready and running jobs is made anew when the transaction ends';

-- Before the first row is written, so that also a statement that fails has told of itself.
CREATE TRIGGER note_sql BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON qml.live
	FOR EACH STATEMENT EXECUTE FUNCTION qml.note_sql();
ALTER TABLE qml.live ENABLE ALWAYS TRIGGER note_sql;
COMMENT ON TRIGGER note_sql ON qml.live IS 'tells qml of rows that are written by SQL';
CREATE TRIGGER note_sql BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON qml.live_unlogged
	FOR EACH STATEMENT EXECUTE FUNCTION qml.note_sql();
ALTER TABLE qml.live_unlogged ENABLE ALWAYS TRIGGER note_sql;
COMMENT ON TRIGGER note_sql ON qml.live_unlogged IS 'tells qml of rows that are written by SQL';
CREATE TRIGGER note_sql BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON qml.history
	FOR EACH STATEMENT EXECUTE FUNCTION qml.note_sql();
ALTER TABLE qml.history ENABLE ALWAYS TRIGGER note_sql;
COMMENT ON TRIGGER note_sql ON qml.history IS 'tells qml of rows that are written by SQL, but for those that are written into a partition by its name';
CREATE TRIGGER note_sql BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON qml.history_unlogged
	FOR EACH STATEMENT EXECUTE FUNCTION qml.note_sql();
ALTER TABLE qml.history_unlogged ENABLE ALWAYS TRIGGER note_sql;
COMMENT ON TRIGGER note_sql ON qml.history_unlogged IS 'tells qml of rows that are written by SQL, but for those that are written into a partition by its name';

CREATE TRIGGER invalidate AFTER INSERT OR UPDATE OR DELETE ON qml.queue_data
	FOR EACH ROW EXECUTE FUNCTION qml.invalidate();
CREATE TRIGGER invalidate_all AFTER TRUNCATE ON qml.queue_data
	FOR EACH STATEMENT EXECUTE FUNCTION qml.invalidate();
ALTER TABLE qml.queue_data ENABLE ALWAYS TRIGGER invalidate;
ALTER TABLE qml.queue_data ENABLE ALWAYS TRIGGER invalidate_all;
COMMENT ON TRIGGER invalidate ON qml.queue_data IS 'makes all backends read the queue that has changed again';
COMMENT ON TRIGGER invalidate_all ON qml.queue_data IS 'makes all backends read the queues again';
CREATE TRIGGER invalidate AFTER INSERT OR UPDATE OR DELETE ON qml.handler_data
	FOR EACH ROW EXECUTE FUNCTION qml.invalidate();
CREATE TRIGGER invalidate_all AFTER TRUNCATE ON qml.handler_data
	FOR EACH STATEMENT EXECUTE FUNCTION qml.invalidate();
ALTER TABLE qml.handler_data ENABLE ALWAYS TRIGGER invalidate;
ALTER TABLE qml.handler_data ENABLE ALWAYS TRIGGER invalidate_all;
COMMENT ON TRIGGER invalidate ON qml.handler_data IS 'makes all backends read the handlers again';
COMMENT ON TRIGGER invalidate_all ON qml.handler_data IS 'makes all backends read the handlers again';
CREATE TRIGGER invalidate AFTER INSERT OR UPDATE OR DELETE ON qml.hook_data
	FOR EACH ROW EXECUTE FUNCTION qml.invalidate();
CREATE TRIGGER invalidate_all AFTER TRUNCATE ON qml.hook_data
	FOR EACH STATEMENT EXECUTE FUNCTION qml.invalidate();
ALTER TABLE qml.hook_data ENABLE ALWAYS TRIGGER invalidate;
ALTER TABLE qml.hook_data ENABLE ALWAYS TRIGGER invalidate_all;
COMMENT ON TRIGGER invalidate ON qml.hook_data IS 'makes all backends read the hooks again';
COMMENT ON TRIGGER invalidate_all ON qml.hook_data IS 'makes all backends read the hooks again';
CREATE TRIGGER invalidate AFTER INSERT OR UPDATE OR DELETE ON qml.middleware_data
	FOR EACH ROW EXECUTE FUNCTION qml.invalidate();
CREATE TRIGGER invalidate_all AFTER TRUNCATE ON qml.middleware_data
	FOR EACH STATEMENT EXECUTE FUNCTION qml.invalidate();
ALTER TABLE qml.middleware_data ENABLE ALWAYS TRIGGER invalidate;
ALTER TABLE qml.middleware_data ENABLE ALWAYS TRIGGER invalidate_all;
COMMENT ON TRIGGER invalidate ON qml.middleware_data IS 'makes all backends read the middleware again';
COMMENT ON TRIGGER invalidate_all ON qml.middleware_data IS 'makes all backends read the middleware again';
CREATE TRIGGER invalidate AFTER INSERT OR UPDATE OR DELETE ON qml.acl_data
	FOR EACH ROW EXECUTE FUNCTION qml.invalidate();
CREATE TRIGGER invalidate_all AFTER TRUNCATE ON qml.acl_data
	FOR EACH STATEMENT EXECUTE FUNCTION qml.invalidate();
ALTER TABLE qml.acl_data ENABLE ALWAYS TRIGGER invalidate;
ALTER TABLE qml.acl_data ENABLE ALWAYS TRIGGER invalidate_all;
COMMENT ON TRIGGER invalidate ON qml.acl_data IS 'makes all backends read the capabilities again';
COMMENT ON TRIGGER invalidate_all ON qml.acl_data IS 'makes all backends read the capabilities again';
CREATE TRIGGER invalidate AFTER INSERT OR UPDATE OR DELETE ON qml.instance_data
	FOR EACH ROW EXECUTE FUNCTION qml.invalidate();
CREATE TRIGGER invalidate_all AFTER TRUNCATE ON qml.instance_data
	FOR EACH STATEMENT EXECUTE FUNCTION qml.invalidate();
ALTER TABLE qml.instance_data ENABLE ALWAYS TRIGGER invalidate;
ALTER TABLE qml.instance_data ENABLE ALWAYS TRIGGER invalidate_all;
COMMENT ON TRIGGER invalidate ON qml.instance_data IS 'makes all backends read the instance again';
COMMENT ON TRIGGER invalidate_all ON qml.instance_data IS 'makes all backends read the instance again';
CREATE TRIGGER invalidate AFTER INSERT OR UPDATE OR DELETE ON qml.pause_data
	FOR EACH ROW EXECUTE FUNCTION qml.invalidate();
CREATE TRIGGER invalidate_all AFTER TRUNCATE ON qml.pause_data
	FOR EACH STATEMENT EXECUTE FUNCTION qml.invalidate();
ALTER TABLE qml.pause_data ENABLE ALWAYS TRIGGER invalidate;
ALTER TABLE qml.pause_data ENABLE ALWAYS TRIGGER invalidate_all;
COMMENT ON TRIGGER invalidate ON qml.pause_data IS 'makes all backends read whether all queues are paused again';
COMMENT ON TRIGGER invalidate_all ON qml.pause_data IS 'makes all backends read whether all queues are paused again';

-- After the triggers: the trigger on this row makes the launcher look at the database.
INSERT INTO qml.instance_data (system_identifier, database)
	SELECT s.system_identifier, d.oid
	FROM pg_catalog.pg_control_system() s, pg_catalog.pg_database d
	WHERE d.datname = pg_catalog.current_database();

-------------------------------------------------------------------------------
-- Views.  The tables are read as the owner of the view, but functions in a view run as
-- its reader, so that qml.job_access() and others can check the reader's capabilities.
-------------------------------------------------------------------------------

CREATE FUNCTION qml.job_access(queue_id int, created_by regrole) RETURNS int
	AS 'MODULE_PATHNAME', 'qml_job_access' LANGUAGE C STABLE STRICT;
REVOKE ALL ON FUNCTION qml.job_access(int, regrole) FROM PUBLIC;
COMMENT ON FUNCTION qml.job_access(int, regrole) IS 'what the current role sees of a job: 0 nothing, 1 the job without its contents, more: its contents, too';

CREATE FUNCTION qml.job_document(queue_id int, method text, created_by regrole, name text, value jsonb) RETURNS jsonb
	AS 'MODULE_PATHNAME', 'qml_job_document' LANGUAGE C STABLE STRICT;
REVOKE ALL ON FUNCTION qml.job_document(int, text, regrole, text, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION qml.job_document(int, text, regrole, text, jsonb) IS 'what the current role sees of a document of a job that is in the column of this name';

CREATE FUNCTION qml.job_text(queue_id int, method text, created_by regrole, name text, value text) RETURNS text
	AS 'MODULE_PATHNAME', 'qml_job_text' LANGUAGE C STABLE STRICT;
REVOKE ALL ON FUNCTION qml.job_text(int, text, regrole, text, text) FROM PUBLIC;
COMMENT ON FUNCTION qml.job_text(int, text, regrole, text, text) IS 'the same of a text';

CREATE FUNCTION qml.queue_access(queue text) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_queue_access' LANGUAGE C STABLE STRICT;
REVOKE ALL ON FUNCTION qml.queue_access(text) FROM PUBLIC;
COMMENT ON FUNCTION qml.queue_access(text) IS 'whether the current role has any capability on the queue, or monitors all';

CREATE FUNCTION qml.recurring_access(queue text, created_by regrole) RETURNS int
	AS 'MODULE_PATHNAME', 'qml_recurring_access' LANGUAGE C STABLE STRICT;
REVOKE ALL ON FUNCTION qml.recurring_access(text, regrole) FROM PUBLIC;
COMMENT ON FUNCTION qml.recurring_access(text, regrole) IS 'what the current role sees of a recurring job: 0 nothing, 1 the schedule without its contents, more: its contents, too';

CREATE FUNCTION qml.recurring_document(queue text, method text, created_by regrole, name text, value jsonb) RETURNS jsonb
	AS 'MODULE_PATHNAME', 'qml_recurring_document' LANGUAGE C STABLE STRICT;
REVOKE ALL ON FUNCTION qml.recurring_document(text, text, regrole, text, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION qml.recurring_document(text, text, regrole, text, jsonb) IS 'what the current role sees of the payload or the metadata of a recurring job';

CREATE FUNCTION qml.next_runs(cron text, timezone text, anchor timestamptz, next_run_at timestamptz,
	enabled boolean) RETURNS timestamptz[]
	AS 'MODULE_PATHNAME', 'qml_next_runs' LANGUAGE C STABLE;
REVOKE ALL ON FUNCTION qml.next_runs(text, text, timestamptz, timestamptz, boolean) FROM PUBLIC;
COMMENT ON FUNCTION qml.next_runs(text, text, timestamptz, timestamptz, boolean) IS 'the next five ticks of a schedule; NULL if it is paused or never fires again';

CREATE FUNCTION qml.background_servers(OUT id text, OUT name text, OUT kind text, OUT run_as regrole,
	OUT started_at timestamptz, OUT heartbeat_at timestamptz) RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'qml_background_servers' LANGUAGE C STABLE;
REVOKE ALL ON FUNCTION qml.background_servers() FROM PUBLIC;
COMMENT ON FUNCTION qml.background_servers() IS 'the background processes of this database';

CREATE FUNCTION qml.background_databases(OUT name text, OUT state text, OUT workers int,
	OUT waiting_roles int, OUT served_at timestamptz, OUT due_at timestamptz, OUT problem text)
	RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'qml_background_databases' LANGUAGE C STABLE;
REVOKE ALL ON FUNCTION qml.background_databases() FROM PUBLIC;
COMMENT ON FUNCTION qml.background_databases() IS 'how this database is served by background processes; for superusers and members of pg_monitor also the other databases of the server';

CREATE FUNCTION qml.is_alive(heartbeat_at timestamptz, dead_at timestamptz) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_is_alive' LANGUAGE C STABLE;
REVOKE ALL ON FUNCTION qml.is_alive(timestamptz, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION qml.is_alive(timestamptz, timestamptz) IS 'whether a server sent a heartbeat within qml.dead_server_timeout and was not declared dead';

CREATE FUNCTION qml.handler_problem(method text) RETURNS text
	AS 'MODULE_PATHNAME', 'qml_handler_problem' LANGUAGE C STABLE STRICT;
REVOKE ALL ON FUNCTION qml.handler_problem(text) FROM PUBLIC;
COMMENT ON FUNCTION qml.handler_problem(text) IS 'why the handler of a method cannot run; NULL if it can';

CREATE FUNCTION qml.hook_problem(name text) RETURNS text
	AS 'MODULE_PATHNAME', 'qml_hook_problem' LANGUAGE C STABLE STRICT;
REVOKE ALL ON FUNCTION qml.hook_problem(text) FROM PUBLIC;
COMMENT ON FUNCTION qml.hook_problem(text) IS 'why a hook cannot be called, or is passed over; NULL if it is called';

CREATE FUNCTION qml.hook_access(run_as regrole, after_commit boolean) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_hook_access' LANGUAGE C STABLE STRICT;
REVOKE ALL ON FUNCTION qml.hook_access(regrole, boolean) FROM PUBLIC;
COMMENT ON FUNCTION qml.hook_access(regrole, boolean) IS 'whether the current role sees the errors of a hook, which may quote jobs';

CREATE FUNCTION qml.middleware_problem(name text) RETURNS text
	AS 'MODULE_PATHNAME', 'qml_middleware_problem' LANGUAGE C STABLE STRICT;
REVOKE ALL ON FUNCTION qml.middleware_problem(text) FROM PUBLIC;
COMMENT ON FUNCTION qml.middleware_problem(text) IS 'why a middleware cannot be called, or is passed over; NULL if it is called';

CREATE FUNCTION qml.role_problem(role regrole, registrations boolean) RETURNS text
	AS 'MODULE_PATHNAME', 'qml_role_problem' LANGUAGE C STABLE STRICT;
REVOKE ALL ON FUNCTION qml.role_problem(regrole, boolean) FROM PUBLIC;
COMMENT ON FUNCTION qml.role_problem(regrole, boolean) IS 'why capabilities of a role, or its registrations, count as revoked; NULL if they do not';

CREATE FUNCTION qml.is_admin() RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_is_admin' LANGUAGE C STABLE;
REVOKE ALL ON FUNCTION qml.is_admin() FROM PUBLIC;
COMMENT ON FUNCTION qml.is_admin() IS 'whether the current role has the capability admin for all queues';

CREATE FUNCTION qml.lease_end(id uuid, attempt int, lease_expires_at timestamptz) RETURNS timestamptz
	AS 'MODULE_PATHNAME', 'qml_lease_end' LANGUAGE C STABLE STRICT;
REVOKE ALL ON FUNCTION qml.lease_end(uuid, int, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION qml.lease_end(uuid, int, timestamptz) IS 'when the lease of an attempt ends, whose end in the table is given: a heartbeat that found the row held is in memory';

CREATE FUNCTION qml.retries_left(queue_id int, method text, created_by regrole, max_retries int, tries int) RETURNS int
	AS 'MODULE_PATHNAME', 'qml_retries_left' LANGUAGE C STABLE STRICT;
REVOKE ALL ON FUNCTION qml.retries_left(int, text, regrole, int, int) FROM PUBLIC;
COMMENT ON FUNCTION qml.retries_left(int, text, regrole, int, int) IS 'how many retries may still follow to an unfinished job with this stored max_retries and after so many tries';

CREATE FUNCTION qml.stats_access(queue_id int) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_stats_access' LANGUAGE C STABLE STRICT;
REVOKE ALL ON FUNCTION qml.stats_access(int) FROM PUBLIC;
COMMENT ON FUNCTION qml.stats_access(int) IS 'whether the current role monitors the queue, or (0) all queues';

CREATE FUNCTION qml.stats_quantile(histogram bytea, quantile float8) RETURNS interval
	AS 'MODULE_PATHNAME', 'qml_stats_quantile' LANGUAGE C IMMUTABLE STRICT;
REVOKE ALL ON FUNCTION qml.stats_quantile(bytea, float8) FROM PUBLIC;
COMMENT ON FUNCTION qml.stats_quantile(bytea, float8) IS 'the duration that this part of the durations of a histogram does not exceed; NULL if it has none';

CREATE FUNCTION qml.bulk_access(made_by regrole) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_bulk_access' LANGUAGE C STABLE STRICT;
REVOKE ALL ON FUNCTION qml.bulk_access(regrole) FROM PUBLIC;
COMMENT ON FUNCTION qml.bulk_access(regrole) IS 'whether the current role sees the bulk operations of a role';

CREATE FUNCTION qml.error_fingerprint(queue_id int, method text, created_by regrole, errors jsonb) RETURNS text
	AS 'MODULE_PATHNAME', 'qml_error_fingerprint' LANGUAGE C STABLE STRICT;
REVOKE ALL ON FUNCTION qml.error_fingerprint(int, text, regrole, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION qml.error_fingerprint(int, text, regrole, jsonb) IS 'what the last error of a job has in common with those that differ in numbers, ids and quoted values only; NULL if the current role does not see all of the job';

CREATE FUNCTION qml.scheduler_alert(OUT since timestamptz, OUT detail text) RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'qml_scheduler_alert' LANGUAGE C STABLE ROWS 1;
REVOKE ALL ON FUNCTION qml.scheduler_alert() FROM PUBLIC;
COMMENT ON FUNCTION qml.scheduler_alert() IS 'a row if this database has no scheduler, which would begin other alerts: since when, and why; for roles that monitor all queues';

-- A view with an unlogged table fails on a standby as a whole, when it is planned.  So these
-- tables are read by a function.
CREATE FUNCTION qml.unlogged_jobs(OUT id uuid, OUT created_at timestamptz, OUT queue_id int,
	OUT priority int, OUT state qml.job_state, OUT attempt int, OUT uncounted int,
	OUT max_retries smallint, OUT timeout_ms int, OUT created_by regrole, OUT ready_at timestamptz,
	OUT run_at timestamptz, OUT started_at timestamptz, OUT finished_at timestamptz,
	OUT expires_at timestamptz, OUT lease_expires_at timestamptz, OUT worker text, OUT server text,
	OUT method text, OUT job_type text, OUT metadata jsonb, OUT progress jsonb, OUT errors jsonb,
	OUT reason text, OUT payload jsonb, OUT result jsonb) RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'qml_unlogged_jobs' LANGUAGE C STABLE ROWS 10;
REVOKE ALL ON FUNCTION qml.unlogged_jobs() FROM PUBLIC;
COMMENT ON FUNCTION qml.unlogged_jobs() IS 'the jobs of unlogged queues that the current role may see, with what it may see of their contents; none on a standby';

CREATE FUNCTION qml.one_line(value text, width int) RETURNS text
	AS 'MODULE_PATHNAME', 'qml_one_line' LANGUAGE C STABLE;
REVOKE ALL ON FUNCTION qml.one_line(text, int) FROM PUBLIC;
COMMENT ON FUNCTION qml.one_line(text, int) IS 'the text in one line of at most that many columns of a terminal';

CREATE FUNCTION qml.brief(duration interval) RETURNS text
	AS 'MODULE_PATHNAME', 'qml_brief' LANGUAGE C STABLE;
REVOKE ALL ON FUNCTION qml.brief(interval) FROM PUBLIC;
COMMENT ON FUNCTION qml.brief(interval) IS 'a duration in at most five characters, such as 250ms, 1.5s, 12min, 3h, 20d';

-- Each view asks this before its first row.  The planner may not wait for that: EXPLAIN shows
-- what is known of the columns, and reads no row.
CREATE FUNCTION qml.may_read(view text) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_may_read' LANGUAGE C STABLE STRICT;
REVOKE ALL ON FUNCTION qml.may_read(text) FROM PUBLIC;
COMMENT ON FUNCTION qml.may_read(text) IS 'true if the current role may read the view; otherwise an error that says how to get the right';

-- The same.  It is marked as immutable so that the planner calls it; a plan may be kept for
-- another role, which qml.may_read() then asks.
CREATE FUNCTION qml.may_plan(view text) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_may_plan' LANGUAGE C IMMUTABLE STRICT;
REVOKE ALL ON FUNCTION qml.may_plan(text) FROM PUBLIC;
COMMENT ON FUNCTION qml.may_plan(text) IS 'the same, asked when a statement is planned';

-- The tables first, with the columns that jobs have in them, then once for all of them what a
-- reader gets.  The UNION must not be the outermost query: the planner takes that apart, and
-- then the view is no security barrier any more.
CREATE VIEW qml.job WITH (security_barrier = true) AS
SELECT j.id,
	q.name AS queue,
	j.method,
	qml.job_document(j.queue_id, j.method, j.created_by, 'payload', j.payload) AS payload,
	j.state,
	j.priority,
	j.attempt,
	j.attempt - j.uncounted AS tries,
	j.max_retries & 4095 AS max_retries,
	CASE WHEN j.finished_at IS NULL THEN qml.retries_left(j.queue_id, j.method, j.created_by,
		j.max_retries, j.attempt - j.uncounted) ELSE 0 END AS retries_left,
	j.run_at,
	j.created_at,
	coalesce(j.run_at, j.ready_at, j.created_at) AS ready_at,
	j.started_at,
	j.finished_at,
	j.expires_at,
	qml.lease_end(j.id, j.attempt, j.lease_expires_at) AS lease_expires_at,
	j.worker,
	j.server,
	j.timeout_ms * interval '1 millisecond' AS timeout,
	qml.job_document(j.queue_id, j.method, j.created_by, 'result', j.result) AS result,
	qml.job_document(j.queue_id, j.method, j.created_by, 'progress', j.progress) AS progress,
	qml.job_text(j.queue_id, j.method, j.created_by, 'error', j.errors -> -1 ->> 'error') AS error,
	qml.job_document(j.queue_id, j.method, j.created_by, 'errors', j.errors) AS errors,
	qml.job_document(j.queue_id, j.method, j.created_by, 'metadata', j.metadata) AS metadata,
	j.job_type,
	qml.job_text(j.queue_id, j.method, j.created_by, 'reason', j.reason) AS reason,
	pg_catalog.pg_get_userbyid(j.created_by) AS created_by
FROM (SELECT id, created_at, queue_id, priority, state, coalesce(attempt, 0) AS attempt,
		coalesce(uncounted, 0) AS uncounted, max_retries,
		coalesce(timeout_ms, 300000) AS timeout_ms, created_by, ready_at, run_at, started_at,
		NULL::timestamptz AS finished_at, NULL::timestamptz AS expires_at, lease_expires_at, worker, server, method, job_type,
		metadata, progress, errors, reason, payload, NULL::jsonb AS result
	FROM qml.live
	UNION ALL
	SELECT id, created_at, queue_id, priority, state, coalesce(attempt, 0) AS attempt,
		coalesce(uncounted, 0) AS uncounted, max_retries,
		coalesce(timeout_ms, 300000) AS timeout_ms, created_by, ready_at, NULL, started_at,
		finished_at, expires_at, NULL, worker, server, method, job_type,
		metadata, progress, errors, reason, payload, result
	FROM qml.history
	WHERE expires_at > pg_catalog.statement_timestamp()
	UNION ALL
	SELECT id, created_at, queue_id, priority, state, coalesce(attempt, 0) AS attempt,
		coalesce(uncounted, 0) AS uncounted, max_retries,
		coalesce(timeout_ms, 300000) AS timeout_ms, created_by, ready_at, NULL, started_at,
		finished_at, expires_at, NULL, worker, server, method, job_type,
		metadata, progress, errors, reason, payload, result
	FROM qml.history_overflow
	WHERE expires_at > pg_catalog.statement_timestamp()
	UNION ALL
	SELECT id, created_at, queue_id, priority, state, coalesce(attempt, 0) AS attempt,
		coalesce(uncounted, 0) AS uncounted, max_retries,
		coalesce(timeout_ms, 300000) AS timeout_ms, created_by, ready_at, run_at, started_at,
		finished_at, expires_at, lease_expires_at, worker, server, method, job_type,
		metadata, progress, errors, reason, payload, result
	FROM qml.unlogged_jobs()) j
JOIN qml.queue_data q ON q.id = j.queue_id
WHERE qml.may_plan('job') AND qml.may_read('job') AND qml.job_access(j.queue_id, j.created_by) > 0;
REVOKE ALL ON TABLE qml.job FROM PUBLIC;
COMMENT ON VIEW qml.job IS 'all jobs that the current role may see; contents (payload, result, progress, errors, metadata, reason) are NULL where it monitors other queues, and *** is in place of what option redact hides';
COMMENT ON COLUMN qml.job.id IS 'job id';
COMMENT ON COLUMN qml.job.queue IS 'name of the queue';
COMMENT ON COLUMN qml.job.method IS 'name of the work to do';
COMMENT ON COLUMN qml.job.payload IS 'arguments of the method';
COMMENT ON COLUMN qml.job.state IS 'state of the job';
COMMENT ON COLUMN qml.job.priority IS 'higher is claimed first';
COMMENT ON COLUMN qml.job.attempt IS 'number of the latest attempt; it only grows, and acknowledgements must name it';
COMMENT ON COLUMN qml.job.tries IS 'number of attempts started that count against max_retries';
COMMENT ON COLUMN qml.job.max_retries IS 'retries allowed after the first counted attempt';
COMMENT ON COLUMN qml.job.retries_left IS 'retries that may still follow; 0 in a final state, if the retry policy allows none, or if a command runs the job and nobody asked for them';
COMMENT ON COLUMN qml.job.run_at IS 'when a scheduled or awaiting_retry job becomes ready';
COMMENT ON COLUMN qml.job.created_at IS 'when the job was enqueued';
COMMENT ON COLUMN qml.job.ready_at IS 'when the job became ready for its latest attempt, or will be: it waited for started_at - ready_at';
COMMENT ON COLUMN qml.job.started_at IS 'when the latest attempt began';
COMMENT ON COLUMN qml.job.finished_at IS 'when the job reached a final state';
COMMENT ON COLUMN qml.job.expires_at IS 'when a finished job stops being visible';
COMMENT ON COLUMN qml.job.lease_expires_at IS 'when the lease of the claim ends';
COMMENT ON COLUMN qml.job.worker IS 'the worker that holds, or held, the claim';
COMMENT ON COLUMN qml.job.server IS 'the server that the worker belongs to';
COMMENT ON COLUMN qml.job.timeout IS 'time limit of an attempt';
COMMENT ON COLUMN qml.job.result IS 'result given to qml_succeed';
COMMENT ON COLUMN qml.job.progress IS 'latest value given to qml_progress';
COMMENT ON COLUMN qml.job.error IS 'error of the last failed attempt';
COMMENT ON COLUMN qml.job.errors IS 'one object per failed attempt: attempt, at, error, error_type, stack_trace, worker';
COMMENT ON COLUMN qml.job.metadata IS 'an object that the caller attached';
COMMENT ON COLUMN qml.job.job_type IS 'classification that the caller chose';
COMMENT ON COLUMN qml.job.reason IS 'the latest reason given to qml_release, qml_reschedule or qml_retry_later; of a deleted job that of qml_delete or qml_discard';
COMMENT ON COLUMN qml.job.created_by IS 'the role that enqueued the job';

-- The newest jobs, each in a line that is at most 120 columns wide with the frame that psql draws.
-- Each table gives its newest ones by its index on the id, so that the rest is not read; the rights
-- are asked of so many of them that a reader gets as many as there are for him, but not of all jobs,
-- as there may be millions that he does not see.
CREATE VIEW qml.recent WITH (security_barrier = true) AS
SELECT r.id, r.queue, r.method, r.state, r.tries, r.age, r.run_time,
	-- What the other columns leave of the line: the frame takes 23, the id 36, the names of columns
	-- are lines, too.
	qml.one_line(r.error, greatest(5, 61 - greatest(5, pg_catalog.max(pg_catalog.octet_length(r.queue)) OVER ())
		- greatest(6, pg_catalog.max(pg_catalog.octet_length(r.method)) OVER ())
		- greatest(5, pg_catalog.max(pg_catalog.length(r.state::pg_catalog.text)) OVER ())
		- greatest(5, pg_catalog.max(pg_catalog.length(r.tries::pg_catalog.text)) OVER ())
		- greatest(3, pg_catalog.max(pg_catalog.length(r.age)) OVER ()) - 8)) AS error
FROM (SELECT j.id, j.created_at, qml.one_line(q.name, 10) AS queue, qml.one_line(j.method, 12) AS method, j.state,
		coalesce(j.attempt, 0) - coalesce(j.uncounted, 0) AS tries,
		qml.brief(pg_catalog.statement_timestamp() - j.created_at) AS age,
		CASE WHEN j.finished_at IS NOT NULL THEN qml.brief(j.finished_at - j.started_at)
			WHEN j.state = 'processing' THEN qml.brief(pg_catalog.statement_timestamp() - j.started_at) END AS run_time,
		qml.job_text(j.queue_id, j.method, j.created_by, 'error', j.errors -> -1 ->> 'error') AS error
	FROM (SELECT a.* FROM (
			(SELECT id, created_at, queue_id, state, attempt, uncounted, started_at, finished_at, method, errors, created_by
				FROM (SELECT id, created_at, queue_id, state, attempt, uncounted, started_at, NULL::timestamptz AS finished_at, method, errors, created_by
					FROM qml.live ORDER BY id DESC LIMIT 5000) l
				WHERE qml.job_access(l.queue_id, l.created_by) > 0 ORDER BY l.id DESC LIMIT 50)
			UNION ALL
			(SELECT id, created_at, queue_id, state, attempt, uncounted, started_at, finished_at, method, errors, created_by
				FROM (SELECT id, created_at, queue_id, state, attempt, uncounted, started_at, finished_at, method, errors, created_by, expires_at
					FROM qml.history ORDER BY id DESC LIMIT 5000) h
				WHERE h.expires_at > pg_catalog.statement_timestamp()
					AND qml.job_access(h.queue_id, h.created_by) > 0 ORDER BY h.id DESC LIMIT 50)
			UNION ALL
			(SELECT id, created_at, queue_id, state, attempt, uncounted, started_at, finished_at, method, errors, created_by
				FROM (SELECT id, created_at, queue_id, state, attempt, uncounted, started_at, finished_at, method, errors, created_by, expires_at
					FROM qml.history_overflow ORDER BY id DESC LIMIT 5000) o
				WHERE o.expires_at > pg_catalog.statement_timestamp()
					AND qml.job_access(o.queue_id, o.created_by) > 0 ORDER BY o.id DESC LIMIT 50)
			UNION ALL
			(SELECT id, created_at, queue_id, state, attempt, uncounted, started_at, finished_at, method, errors, created_by
				FROM qml.unlogged_jobs() u WHERE qml.job_access(u.queue_id, u.created_by) > 0 ORDER BY u.id DESC LIMIT 50)) a
		WHERE qml.may_plan('recent') AND qml.may_read('recent')
		ORDER BY a.id DESC LIMIT 50) j
	JOIN qml.queue_data q ON q.id = j.queue_id) r
ORDER BY r.created_at DESC, r.id DESC;
REVOKE ALL ON TABLE qml.recent FROM PUBLIC;
COMMENT ON VIEW qml.recent IS 'the newest 50 jobs that the current role may see, each in a line for a terminal';
COMMENT ON COLUMN qml.recent.id IS 'job id';
COMMENT ON COLUMN qml.recent.queue IS 'name of the queue, cut to 10 columns';
COMMENT ON COLUMN qml.recent.method IS 'name of the work to do, cut to 12 columns';
COMMENT ON COLUMN qml.recent.state IS 'state of the job';
COMMENT ON COLUMN qml.recent.tries IS 'number of attempts started that count against max_retries';
COMMENT ON COLUMN qml.recent.age IS 'time since the job was enqueued';
COMMENT ON COLUMN qml.recent.run_time IS 'how long the attempt has run, or ran that finished the job';
COMMENT ON COLUMN qml.recent.error IS 'error of the last failed attempt, cut to what the other columns leave of the line';

CREATE VIEW qml.queue WITH (security_barrier = true) AS
SELECT q.name, q.paused, q.options, q.created_at, q.paused_at, q.paused_by, q.pause_reason
FROM qml.queue_data q
WHERE qml.may_plan('queue') AND qml.may_read('queue') AND NOT q.dropped AND qml.queue_access(q.name);
REVOKE ALL ON TABLE qml.queue FROM PUBLIC;
COMMENT ON VIEW qml.queue IS 'queues that the current role has a capability on';
COMMENT ON COLUMN qml.queue.name IS 'name of the queue';
COMMENT ON COLUMN qml.queue.paused IS 'whether the queue is paused: jobs can be enqueued, but none is claimed';
COMMENT ON COLUMN qml.queue.options IS 'options of the queue; the settings apply where an option is not set';
COMMENT ON COLUMN qml.queue.created_at IS 'when the queue was created';
COMMENT ON COLUMN qml.queue.paused_at IS 'when it was paused';
COMMENT ON COLUMN qml.queue.paused_by IS 'the role that paused it';
COMMENT ON COLUMN qml.queue.pause_reason IS 'the reason given to qml_pause_queue';

CREATE VIEW qml.pause WITH (security_barrier = true) AS
SELECT p.queue, p.schedule, p.paused_at, p.paused_by, p.pause_reason
FROM (SELECT NULL::text AS queue, NULL::text AS schedule, a.paused_at, a.paused_by, a.pause_reason
	FROM qml.pause_data a
	UNION ALL
	SELECT q.name, NULL, q.paused_at, q.paused_by, q.pause_reason
	FROM qml.queue_data q
	WHERE q.paused AND NOT q.dropped AND qml.queue_access(q.name)
	UNION ALL
	SELECT r.queue, r.id, r.paused_at, r.paused_by, r.pause_reason
	FROM qml.recurring_data r
	WHERE NOT r.enabled AND qml.recurring_access(r.queue, r.created_by) > 0) p
WHERE qml.may_plan('pause') AND qml.may_read('pause');
REVOKE ALL ON TABLE qml.pause FROM PUBLIC;
COMMENT ON VIEW qml.pause IS 'the pauses that hold now: of all queues, and of queues and schedules that the current role may see';
COMMENT ON COLUMN qml.pause.queue IS 'name of the queue, or that of the schedule; NULL: all queues';
COMMENT ON COLUMN qml.pause.schedule IS 'name of the schedule; NULL: a queue is paused, or all are';
COMMENT ON COLUMN qml.pause.paused_at IS 'when it was paused';
COMMENT ON COLUMN qml.pause.paused_by IS 'the role that paused it';
COMMENT ON COLUMN qml.pause.pause_reason IS 'the reason that was given';

CREATE VIEW qml.audit WITH (security_barrier = true) AS
SELECT a.at, a.action, a.object_type, a.object, a.queue, a.session_role, a.effective_role,
	a.claimed_actor, a.client_address, a.before, a.after
FROM (SELECT at, action, object_type, object, queue, session_role, effective_role, claimed_actor,
		client_address, before, after
	FROM qml.audit_data
	UNION ALL
	SELECT at, action, object_type, object, queue, session_role, effective_role, claimed_actor,
		client_address, before, after
	FROM qml.audit_overflow) a
WHERE qml.may_plan('audit') AND qml.may_read('audit');
REVOKE ALL ON TABLE qml.audit FROM PUBLIC;
COMMENT ON VIEW qml.audit IS 'what was done by hand: who changed what, when and from where; for administrators of all queues';
COMMENT ON COLUMN qml.audit.at IS 'when it was done';
COMMENT ON COLUMN qml.audit.action IS 'name of the function that was called';
COMMENT ON COLUMN qml.audit.object_type IS 'job, queue, schedule, handler, hook, middleware, role, server or database';
COMMENT ON COLUMN qml.audit.object IS 'id or name of the object; NULL: the database as a whole';
COMMENT ON COLUMN qml.audit.queue IS 'name of the queue that it is about; NULL: none, or all';
COMMENT ON COLUMN qml.audit.session_role IS 'the role that logged in';
COMMENT ON COLUMN qml.audit.effective_role IS 'the role whose rights counted: another one in a security-definer function';
COMMENT ON COLUMN qml.audit.claimed_actor IS 'what the client said of itself by the setting qml.actor; nothing checks it';
COMMENT ON COLUMN qml.audit.client_address IS 'network address of the client; NULL: a local socket, or a background process';
COMMENT ON COLUMN qml.audit.before IS 'what was changed, as it was; NULL: it was not there';
COMMENT ON COLUMN qml.audit.after IS 'the same, as it was then; NULL: it was not there any more';

CREATE VIEW qml.lock WITH (security_barrier = true) AS
SELECT l.resource, l.owner, pg_catalog.pg_get_userbyid(l.taken_by) AS taken_by, l.fence, l.acquired_at,
	l.expires_at
FROM qml.lock_data l
WHERE qml.may_plan('lock') AND qml.may_read('lock') AND l.expires_at > pg_catalog.statement_timestamp();
REVOKE ALL ON TABLE qml.lock FROM PUBLIC;
COMMENT ON VIEW qml.lock IS 'named locks that are held';
COMMENT ON COLUMN qml.lock.resource IS 'name of the lock';
COMMENT ON COLUMN qml.lock.owner IS 'owner that holds it, a name chosen by the caller';
COMMENT ON COLUMN qml.lock.taken_by IS 'the role that took it; it, its members and administrators of all queues refresh and release it';
COMMENT ON COLUMN qml.lock.fence IS 'fencing number of this acquisition';
COMMENT ON COLUMN qml.lock.acquired_at IS 'when the owner acquired it';
COMMENT ON COLUMN qml.lock.expires_at IS 'when it expires, and others can take it';

CREATE VIEW qml.recurring WITH (security_barrier = true) AS
SELECT r.id, r.cron, r.timezone, r.method,
	qml.recurring_document(r.queue, r.method, r.created_by, 'payload', r.payload) AS payload,
	r.queue, r.priority, r.max_retries,
	r.timeout_ms * interval '1 millisecond' AS timeout,
	r.misfire, r.overlap,
	qml.recurring_document(r.queue, r.method, r.created_by, 'metadata', r.metadata) AS metadata,
	r.job_type, r.enabled, r.pause_reason, r.next_run_at,
	qml.next_runs(r.cron, r.timezone, r.anchor, r.next_run_at, r.enabled) AS next_runs,
	r.last_run_at, r.last_job,
	CASE WHEN qml.recurring_access(r.queue, r.created_by) > 1
		THEN coalesce(qml.role_problem(r.created_by, true), r.error) END AS error,
	pg_catalog.pg_get_userbyid(r.created_by) AS created_by, r.created_at, r.updated_at,
	r.paused_at, r.paused_by
FROM qml.recurring_data r
WHERE qml.may_plan('recurring') AND qml.may_read('recurring') AND qml.recurring_access(r.queue, r.created_by) > 0;
REVOKE ALL ON TABLE qml.recurring FROM PUBLIC;
COMMENT ON VIEW qml.recurring IS 'recurring jobs that the current role may see; payload, metadata and error are NULL where it monitors other queues, and *** is in place of what option redact hides';
COMMENT ON COLUMN qml.recurring.id IS 'name of the schedule';
COMMENT ON COLUMN qml.recurring.cron IS 'cron expression, or an interval: every ...';
COMMENT ON COLUMN qml.recurring.timezone IS 'time zone of the expression';
COMMENT ON COLUMN qml.recurring.method IS 'of its jobs';
COMMENT ON COLUMN qml.recurring.payload IS 'of its jobs';
COMMENT ON COLUMN qml.recurring.queue IS 'of its jobs';
COMMENT ON COLUMN qml.recurring.priority IS 'of its jobs';
COMMENT ON COLUMN qml.recurring.max_retries IS 'of its jobs; NULL for the default of the queue';
COMMENT ON COLUMN qml.recurring.timeout IS 'of its jobs; NULL for the default of the queue';
COMMENT ON COLUMN qml.recurring.misfire IS 'what happens to missed ticks: fire_once, skip or fire_all';
COMMENT ON COLUMN qml.recurring.overlap IS 'what happens to ticks while jobs are unfinished: allow, skip or queue_one';
COMMENT ON COLUMN qml.recurring.metadata IS 'of its jobs, to which a key "recurring" is added';
COMMENT ON COLUMN qml.recurring.job_type IS 'of its jobs';
COMMENT ON COLUMN qml.recurring.enabled IS 'whether it fires; false while it is paused';
COMMENT ON COLUMN qml.recurring.pause_reason IS 'the reason given to qml_pause_recurring';
COMMENT ON COLUMN qml.recurring.next_run_at IS 'the next tick; NULL if it never fires again';
COMMENT ON COLUMN qml.recurring.next_runs IS 'the next five ticks; NULL if it is paused or never fires again';
COMMENT ON COLUMN qml.recurring.last_run_at IS 'the latest tick that created a job';
COMMENT ON COLUMN qml.recurring.last_job IS 'the job of that tick';
COMMENT ON COLUMN qml.recurring.error IS 'why it cannot fire, or why the latest tick created no job; NULL if it did';
COMMENT ON COLUMN qml.recurring.created_by IS 'the role that defined it; its jobs are enqueued as this role';
COMMENT ON COLUMN qml.recurring.created_at IS 'when it was created';
COMMENT ON COLUMN qml.recurring.updated_at IS 'when its definition last changed';
COMMENT ON COLUMN qml.recurring.paused_at IS 'when it was paused';
COMMENT ON COLUMN qml.recurring.paused_by IS 'the role that paused it';

-- Of a schedule that was removed and defined anew, the ticks of the present one.
CREATE VIEW qml.recurring_tick WITH (security_barrier = true) AS
SELECT r.id AS schedule, o.occurrence AS tick, o.fired_at, o.job, o.outcome,
	CASE WHEN pg_catalog.isfinite(o.occurrence) THEN o.fired_at - o.occurrence END AS late_by,
	o.through
FROM qml.recurring_data r
CROSS JOIN LATERAL (
	SELECT t.occurrence, t.fired_at, t.job, t.outcome, t.through
	FROM qml.occurrence_data t
	WHERE t.recurring = r.id AND t.fired_at >= r.created_at
		AND t.fired_at > pg_catalog.statement_timestamp() - interval '30 days'
	ORDER BY t.occurrence DESC
	LIMIT 1000) o
WHERE qml.may_plan('recurring_tick') AND qml.may_read('recurring_tick') AND qml.recurring_access(r.queue, r.created_by) > 0;
REVOKE ALL ON TABLE qml.recurring_tick FROM PUBLIC;
COMMENT ON VIEW qml.recurring_tick IS 'what became of the last 1,000 ticks of each recurring job that the current role may see, of the last 30 days';
COMMENT ON COLUMN qml.recurring_tick.schedule IS 'name of the schedule';
COMMENT ON COLUMN qml.recurring_tick.tick IS 'time of the tick';
COMMENT ON COLUMN qml.recurring_tick.fired_at IS 'when its job was enqueued, or when it was decided that there is none';
COMMENT ON COLUMN qml.recurring_tick.job IS 'the job of the tick; NULL: there is none';
COMMENT ON COLUMN qml.recurring_tick.outcome IS 'on_time or late: it made a job; missed: the misfire policy passed it over; skipped: the overlap policy did; error: the schedule could not fire';
COMMENT ON COLUMN qml.recurring_tick.late_by IS 'fired_at - tick';
COMMENT ON COLUMN qml.recurring_tick.through IS 'this row stands for all ticks from its own up to then; NULL: for its own alone';

-- As in qml.job, the UNION is not the outermost query, so that the view is a security barrier.
CREATE VIEW qml.server WITH (security_barrier = true) AS
SELECT s.id, s.name, s.kind, s.workers, s.queues, s.registered_by, s.started_at, s.heartbeat_at,
	s.alive, s.run_as
FROM (SELECT d.id, d.name, 'client' AS kind, d.workers, d.queues,
		pg_catalog.pg_get_userbyid(d.registered_by) AS registered_by,
		d.registered_at AS started_at, d.heartbeat_at,
		qml.is_alive(d.heartbeat_at, d.dead_at) AS alive, NULL::name AS run_as
	FROM qml.server_data d
	UNION ALL
	SELECT b.id, b.name, b.kind, NULL, NULL, NULL, b.started_at, b.heartbeat_at,
		qml.is_alive(b.heartbeat_at, NULL), pg_catalog.pg_get_userbyid(b.run_as)
	FROM qml.background_servers() b) s
WHERE qml.may_plan('server') AND qml.may_read('server');
REVOKE ALL ON TABLE qml.server FROM PUBLIC;
COMMENT ON VIEW qml.server IS 'servers that registered, and the background processes of this database';
COMMENT ON COLUMN qml.server.id IS 'id of this registration';
COMMENT ON COLUMN qml.server.name IS 'name given by the server, or qml.server_name';
COMMENT ON COLUMN qml.server.kind IS 'client, or scheduler or worker for background processes';
COMMENT ON COLUMN qml.server.workers IS 'number of its workers';
COMMENT ON COLUMN qml.server.queues IS 'queues that it processes; NULL for all';
COMMENT ON COLUMN qml.server.registered_by IS 'the role that registered it; NULL for background processes';
COMMENT ON COLUMN qml.server.started_at IS 'when it registered or started';
COMMENT ON COLUMN qml.server.heartbeat_at IS 'time of the latest heartbeat';
COMMENT ON COLUMN qml.server.alive IS 'whether it sent a heartbeat within qml.dead_server_timeout and was not declared dead';
COMMENT ON COLUMN qml.server.run_as IS 'role of a background process: for a worker, the role of the handlers that it calls; NULL for clients';

CREATE VIEW qml.database WITH (security_barrier = true) AS
SELECT d.name, d.state, d.workers, d.waiting_roles, d.served_at, d.due_at, d.problem
FROM qml.background_databases() d
WHERE qml.may_plan('database') AND qml.may_read('database');
REVOKE ALL ON TABLE qml.database FROM PUBLIC;
COMMENT ON VIEW qml.database IS 'how this database is served by background processes; for superusers and members of pg_monitor also the other databases of the server';
COMMENT ON COLUMN qml.database.name IS 'name of the database';
COMMENT ON COLUMN qml.database.state IS 'served, starting, waiting, resting, failed, copy or off; of a name in qml.databases that leads to no database to work in, unknown or refused';
COMMENT ON COLUMN qml.database.workers IS 'number of its workers';
COMMENT ON COLUMN qml.database.waiting_roles IS 'number of roles of handlers that wait for one more worker';
COMMENT ON COLUMN qml.database.served_at IS 'when it had a scheduler last; NULL: never';
COMMENT ON COLUMN qml.database.due_at IS 'when something is due, as far as it is known, while there is no scheduler';
COMMENT ON COLUMN qml.database.problem IS 'what it lacks; NULL: nothing';

CREATE VIEW qml.handler WITH (security_barrier = true) AS
SELECT h.method,
	CASE WHEN h.command = '' THEN
		pg_catalog.format('%I.%I(%s)', h.schema, h.name, pg_catalog.array_to_string(h.argument_types, ', '))
	END AS function,
	CASE WHEN h.command <> '' THEN
		CASE WHEN qml.is_admin() OR pg_catalog.pg_has_role(h.run_as, 'USAGE') THEN h.command ELSE '***' END
	END AS command,
	pg_catalog.pg_get_userbyid(h.run_as) AS run_as, h.options,
	pg_catalog.pg_get_userbyid(h.registered_by) AS registered_by, h.registered_at,
	qml.handler_problem(h.method) AS problem
FROM qml.handler_data h
WHERE qml.may_plan('handler') AND qml.may_read('handler');
REVOKE ALL ON TABLE qml.handler FROM PUBLIC;
COMMENT ON VIEW qml.handler IS 'functions and commands that run jobs in the database';
COMMENT ON COLUMN qml.handler.method IS 'method of the jobs';
COMMENT ON COLUMN qml.handler.function IS 'the function or procedure; NULL for a command';
COMMENT ON COLUMN qml.handler.command IS 'the statement of a command; *** for those who have neither the capability admin nor the rights of the role that it runs as; NULL for a function';
COMMENT ON COLUMN qml.handler.run_as IS 'the role that jobs run as';
COMMENT ON COLUMN qml.handler.options IS 'options given to qml_register_handler or qml_register_command';
COMMENT ON COLUMN qml.handler.registered_by IS 'the role that registered it';
COMMENT ON COLUMN qml.handler.registered_at IS 'when it was registered';
COMMENT ON COLUMN qml.handler.problem IS 'why its jobs cannot run; NULL if they can';

CREATE VIEW qml.hook WITH (security_barrier = true) AS
SELECT x.name,
	pg_catalog.format('%I.%I(%s)', x.schema, x.function, pg_catalog.array_to_string(x.argument_types, ', ')) AS function,
	x.states, pg_catalog.pg_get_userbyid(x.run_as) AS run_as, x.options, x.registered_at,
	x.errors, x.broken,
	CASE WHEN qml.hook_access(x.run_as, x.options @> '{"after_commit": true}') THEN x.last_error END AS last_error,
	x.last_error_at, qml.hook_problem(x.name) AS problem
FROM qml.hook_data x
WHERE qml.may_plan('hook') AND qml.may_read('hook');
REVOKE ALL ON TABLE qml.hook FROM PUBLIC;
COMMENT ON VIEW qml.hook IS 'functions that run on every transition of a job';
COMMENT ON COLUMN qml.hook.name IS 'name of the hook';
COMMENT ON COLUMN qml.hook.function IS 'the function';
COMMENT ON COLUMN qml.hook.states IS 'new states that it is called for; NULL for all, or, with the option alerts, for none';
COMMENT ON COLUMN qml.hook.run_as IS 'the role that registered it, and that it runs as';
COMMENT ON COLUMN qml.hook.options IS 'options given to qml_register_hook';
COMMENT ON COLUMN qml.hook.registered_at IS 'when it was registered';
COMMENT ON COLUMN qml.hook.errors IS 'number of consecutive errors in transitions that no caller asked for; of an after-commit hook: of calls that failed for good';
COMMENT ON COLUMN qml.hook.broken IS 'whether it was disabled because of these errors';
COMMENT ON COLUMN qml.hook.last_error IS 'the latest of these errors; NULL for a role that does not see the jobs of all queues';
COMMENT ON COLUMN qml.hook.last_error_at IS 'time of the latest of these errors';
COMMENT ON COLUMN qml.hook.problem IS 'why it cannot be called, or is passed over; NULL if it is called';

CREATE VIEW qml.middleware WITH (security_barrier = true) AS
SELECT x.name,
	pg_catalog.format('%I.%I(%s)', x.schema, x.function, pg_catalog.array_to_string(x.argument_types, ', ')) AS function,
	x."position", pg_catalog.pg_get_userbyid(x.run_as) AS run_as, x.registered_at,
	qml.middleware_problem(x.name) AS problem
FROM qml.middleware_data x
WHERE qml.may_plan('middleware') AND qml.may_read('middleware');
REVOKE ALL ON TABLE qml.middleware FROM PUBLIC;
COMMENT ON VIEW qml.middleware IS 'functions that wrap handlers';
COMMENT ON COLUMN qml.middleware.name IS 'name of the middleware';
COMMENT ON COLUMN qml.middleware.function IS 'the function';
COMMENT ON COLUMN qml.middleware."position" IS 'order of the calls: lower positions are further out';
COMMENT ON COLUMN qml.middleware.run_as IS 'the role that registered it, and that it runs as';
COMMENT ON COLUMN qml.middleware.registered_at IS 'when it was registered';
COMMENT ON COLUMN qml.middleware.problem IS 'why it cannot be called, or is passed over; NULL if it is called';

CREATE VIEW qml.acl WITH (security_barrier = true) AS
SELECT pg_catalog.pg_get_userbyid(a.grantee) AS grantee, a.capability, a.queue,
	pg_catalog.pg_get_userbyid(a.grantor) AS grantor, a.granted_at,
	qml.role_problem(a.grantee, false) AS problem
FROM qml.acl_data a
WHERE qml.may_plan('acl') AND qml.may_read('acl') AND a.capability NOT IN ('usage', 'open') AND (qml.is_admin() OR pg_catalog.pg_has_role(a.grantee, 'USAGE'));
REVOKE ALL ON TABLE qml.acl FROM PUBLIC;
COMMENT ON VIEW qml.acl IS 'capabilities: all of them for an administrator, the own ones for others';
COMMENT ON COLUMN qml.acl.grantee IS 'role that has the capability';
COMMENT ON COLUMN qml.acl.capability IS 'enqueue, work, monitor or admin';
COMMENT ON COLUMN qml.acl.queue IS 'name of the queue; NULL for all queues';
COMMENT ON COLUMN qml.acl.grantor IS 'role that granted it';
COMMENT ON COLUMN qml.acl.granted_at IS 'when it was granted';
COMMENT ON COLUMN qml.acl.problem IS 'why it counts as revoked; NULL if it counts';

-- Minutes of the last day, and ten minutes of what is older: no time is in two rows.  As in qml.job,
-- the tables first, then once for all rows what a reader gets.
CREATE VIEW qml.stats_minute WITH (security_barrier = true) AS
SELECT s.at, CASE WHEN s.partition < 4 THEN s.until - s.at ELSE greatest(s.until - s.at, interval '10 min') END AS span,
	q.name AS queue, nullif(s.method, '') AS method,
	s.enqueued, s.started, s.succeeded, s.failed, s.deleted, s.retried, s.released, s.lost,
	s.waited * interval '1 microsecond' AS waited,
	qml.stats_quantile(s.waits, 0.5) AS wait_p50,
	qml.stats_quantile(s.waits, 0.95) AS wait_p95,
	qml.stats_quantile(s.waits, 0.99) AS wait_p99,
	s.ran * interval '1 microsecond' AS ran,
	qml.stats_quantile(s.runs, 0.5) AS run_p50,
	qml.stats_quantile(s.runs, 0.95) AS run_p95,
	qml.stats_quantile(s.runs, 0.99) AS run_p99
FROM qml.stats_data s
LEFT JOIN qml.queue_data q ON q.id = s.queue_id
WHERE qml.may_plan('stats_minute') AND qml.may_read('stats_minute') AND qml.stats_access(s.queue_id)
	AND (s.partition < 4
			AND s.at >= pg_catalog.date_bin('10 min', pg_catalog.statement_timestamp() - interval '24 h', '2000-01-01 00:00:00+00')
		OR s.partition >= 4
			AND s.at < pg_catalog.date_bin('10 min', pg_catalog.statement_timestamp() - interval '24 h', '2000-01-01 00:00:00+00')
			AND s.at >= pg_catalog.statement_timestamp() - interval '7 days');
REVOKE ALL ON TABLE qml.stats_minute FROM PUBLIC;
COMMENT ON VIEW qml.stats_minute IS 'statistics by queue and method: each minute of the last 24 hours, each ten minutes of the 6 days before';
COMMENT ON COLUMN qml.stats_minute.at IS 'begin of the time that the row stands for';
COMMENT ON COLUMN qml.stats_minute.span IS 'length of that time: a minute, ten minutes, or longer where nobody stored them';
COMMENT ON COLUMN qml.stats_minute.queue IS 'name of the queue; NULL: of all queues and methods beyond qml.stats_series';
COMMENT ON COLUMN qml.stats_minute.method IS 'method of the jobs; NULL as the queue';
COMMENT ON COLUMN qml.stats_minute.enqueued IS 'jobs that were made';
COMMENT ON COLUMN qml.stats_minute.started IS 'attempts that began';
COMMENT ON COLUMN qml.stats_minute.succeeded IS 'jobs that succeeded';
COMMENT ON COLUMN qml.stats_minute.failed IS 'jobs that failed for good';
COMMENT ON COLUMN qml.stats_minute.deleted IS 'jobs that were deleted before they had ended';
COMMENT ON COLUMN qml.stats_minute.retried IS 'attempts that failed or were lost, and are followed by another one';
COMMENT ON COLUMN qml.stats_minute.released IS 'attempts that were given back, and do not count';
COMMENT ON COLUMN qml.stats_minute.lost IS 'attempts whose worker was lost; each of them is counted in another column as well';
COMMENT ON COLUMN qml.stats_minute.waited IS 'how long the jobs of the attempts that began had waited, in all';
COMMENT ON COLUMN qml.stats_minute.wait_p50 IS 'half of them had not waited longer';
COMMENT ON COLUMN qml.stats_minute.wait_p95 IS '95 of 100 had not waited longer';
COMMENT ON COLUMN qml.stats_minute.wait_p99 IS '99 of 100 had not waited longer';
COMMENT ON COLUMN qml.stats_minute.ran IS 'how long the attempts that ended ran, in all; without those that were lost or that somebody else ended';
COMMENT ON COLUMN qml.stats_minute.run_p50 IS 'half of them did not run longer';
COMMENT ON COLUMN qml.stats_minute.run_p95 IS '95 of 100 did not run longer';
COMMENT ON COLUMN qml.stats_minute.run_p99 IS '99 of 100 did not run longer';

CREATE VIEW qml.mark WITH (security_barrier = true) AS
SELECT m.at, m.label, pg_catalog.pg_get_userbyid(m.made_by) AS made_by
FROM qml.mark_data m
WHERE qml.may_plan('mark') AND qml.may_read('mark');
REVOKE ALL ON TABLE qml.mark FROM PUBLIC;
COMMENT ON VIEW qml.mark IS 'marks on charts, of the last 30 days';
COMMENT ON COLUMN qml.mark.at IS 'when it was made';
COMMENT ON COLUMN qml.mark.label IS 'what it says';
COMMENT ON COLUMN qml.mark.made_by IS 'the role that made it';

-- Failed jobs by what their errors have in common.  The rows are grouped before anything of a job is
-- shown, and what is shown is that of one job, as the reader sees it in qml.job.
CREATE VIEW qml.dead_letter WITH (security_barrier = true) AS
SELECT g.fingerprint,
	q.name AS queue,
	g.method,
	s.error_type,
	s.error,
	g.jobs AS count,
	g.first_failed_at,
	g.last_failed_at,
	g.sample
FROM (SELECT f.queue_id, f.method,
		qml.error_fingerprint(f.queue_id, f.method, f.created_by, f.errors) AS fingerprint,
		pg_catalog.count(*) AS jobs,
		pg_catalog.min(f.finished_at) AS first_failed_at,
		pg_catalog.max(f.finished_at) AS last_failed_at,
		pg_catalog.max(f.id::text)::uuid AS sample
	FROM (SELECT id, queue_id, method, created_by, errors, finished_at
		FROM qml.history
		WHERE state = 'failed' AND expires_at > pg_catalog.statement_timestamp()
		UNION ALL
		SELECT id, queue_id, method, created_by, errors, finished_at
		FROM qml.history_overflow
		WHERE state = 'failed' AND expires_at > pg_catalog.statement_timestamp()
		UNION ALL
		SELECT id, queue_id, method, created_by, errors, finished_at
		FROM qml.unlogged_jobs()
		WHERE state = 'failed') f
	WHERE qml.may_plan('dead_letter') AND qml.may_read('dead_letter')
		AND qml.job_access(f.queue_id, f.created_by) > 0
	GROUP BY 1, 2, 3) g
JOIN qml.queue_data q ON q.id = g.queue_id
LEFT JOIN LATERAL (SELECT j.error, j.errors -> -1 ->> 'error_type' AS error_type
	FROM qml.job j WHERE j.id = g.sample) s ON g.fingerprint IS NOT NULL;
REVOKE ALL ON TABLE qml.dead_letter FROM PUBLIC;
COMMENT ON VIEW qml.dead_letter IS 'failed jobs that the current role may see, grouped by queue, method and fingerprint of the error; errors and fingerprints are NULL where it may only monitor';
COMMENT ON COLUMN qml.dead_letter.fingerprint IS 'what the errors have in common: of method, type and message without numbers, ids and quoted values; qml_search and qml_bulk take it as fingerprint:';
COMMENT ON COLUMN qml.dead_letter.queue IS 'name of the queue';
COMMENT ON COLUMN qml.dead_letter.method IS 'name of the work that failed';
COMMENT ON COLUMN qml.dead_letter.error_type IS 'type of the errors';
COMMENT ON COLUMN qml.dead_letter.error IS 'error of one of the jobs';
COMMENT ON COLUMN qml.dead_letter.count IS 'number of jobs';
COMMENT ON COLUMN qml.dead_letter.first_failed_at IS 'when the first of them failed for good';
COMMENT ON COLUMN qml.dead_letter.last_failed_at IS 'when the last of them did';
COMMENT ON COLUMN qml.dead_letter.sample IS 'id of the job whose error is shown';

CREATE VIEW qml.bulk WITH (security_barrier = true) AS
SELECT b.id,
	b.action,
	b.query,
	b.options,
	b.state,
	b.state_at,
	b.state_reason AS reason,
	pg_catalog.pg_get_userbyid(b.made_by) AS made_by,
	b.made_at,
	b.worked_at,
	CASE WHEN b.cursor_order IS NOT NULL AND NOT b.walked
		THEN timestamptz 'epoch' + (b.cursor_order >> 16) * interval '1 millisecond' END AS reached,
	b.looked,
	coalesce((b.outcomes ->> 'changed')::bigint, 0) AS changed,
	(SELECT coalesce(pg_catalog.sum(o.value::bigint), 0)::bigint
		FROM pg_catalog.jsonb_each_text(b.outcomes) o WHERE o.key <> 'changed') AS skipped,
	b.outcomes,
	pg_catalog.cardinality(b.held) AS held,
	b.last_error
FROM qml.bulk_data b
WHERE qml.may_plan('bulk') AND qml.may_read('bulk') AND qml.bulk_access(b.made_by);
REVOKE ALL ON TABLE qml.bulk FROM PUBLIC;
COMMENT ON VIEW qml.bulk IS 'bulk operations that the current role may steer: those of roles whose privileges it has; for administrators of all queues all of them';
COMMENT ON COLUMN qml.bulk.id IS 'the id that qml_bulk returned';
COMMENT ON COLUMN qml.bulk.action IS 'retry, delete, move, priority or redrive';
COMMENT ON COLUMN qml.bulk.query IS 'which jobs are meant, as qml_search takes it';
COMMENT ON COLUMN qml.bulk.options IS 'the options given to qml_bulk';
COMMENT ON COLUMN qml.bulk.state IS 'running, paused, finished, canceled or failed';
COMMENT ON COLUMN qml.bulk.state_at IS 'since when it has this state';
COMMENT ON COLUMN qml.bulk.reason IS 'why it was paused or canceled, or has failed';
COMMENT ON COLUMN qml.bulk.made_by IS 'the role that made it, with whose rights it is done';
COMMENT ON COLUMN qml.bulk.made_at IS 'when it was made: jobs that were created later are not meant';
COMMENT ON COLUMN qml.bulk.worked_at IS 'when its last chunk was done; NULL: none was';
COMMENT ON COLUMN qml.bulk.reached IS 'how far back it has come: the newest jobs are met first, and this is when the last one was created; NULL: it has not begun, or has met all';
COMMENT ON COLUMN qml.bulk.looked IS 'number of jobs that it has looked at';
COMMENT ON COLUMN qml.bulk.changed IS 'number of jobs that it has changed';
COMMENT ON COLUMN qml.bulk.skipped IS 'number of jobs that it has met and left as they were';
COMMENT ON COLUMN qml.bulk.outcomes IS 'these numbers by outcome: changed; unchanged (it was so already), not_permitted, changed_meanwhile, locked, error';
COMMENT ON COLUMN qml.bulk.held IS 'number of jobs that others had when it met them, and that are tried again';
COMMENT ON COLUMN qml.bulk.last_error IS 'the error of the last job that could not be changed';

-- That there is no scheduler is no row of the table: nobody is there to write it.
CREATE VIEW qml.alert WITH (security_barrier = true) AS
SELECT a.id, a.kind, q.name AS queue, nullif(a.method, '') AS method, a.since, a.until, a.value, a.bound,
	a.detail
FROM (SELECT id, kind, queue_id, method, since, until, value, bound, detail
	FROM qml.alert_data
	UNION ALL
	SELECT NULL, 'scheduler', 0, '', s.since, NULL,
		greatest(extract(epoch FROM pg_catalog.statement_timestamp() - s.since), 0)::float8, 0, s.detail
	FROM qml.scheduler_alert() s) a
LEFT JOIN qml.queue_data q ON q.id = a.queue_id
WHERE qml.may_plan('alert') AND qml.may_read('alert') AND qml.stats_access(a.queue_id);
REVOKE ALL ON TABLE qml.alert FROM PUBLIC;
COMMENT ON VIEW qml.alert IS 'alerts that are active, and those that ended within 30 days, of queues that the current role monitors';
COMMENT ON COLUMN qml.alert.id IS 'id of the alert; NULL: it is shown while there is no scheduler';
COMMENT ON COLUMN qml.alert.kind IS 'the bound that is exceeded, such as max_age, or the check that fails';
COMMENT ON COLUMN qml.alert.queue IS 'name of the queue; NULL: it is about no queue, or about several';
COMMENT ON COLUMN qml.alert.method IS 'the method; NULL: it is about no method';
COMMENT ON COLUMN qml.alert.since IS 'when it began';
COMMENT ON COLUMN qml.alert.until IS 'when it ended; NULL: it is active';
COMMENT ON COLUMN qml.alert.value IS 'the worst value, noted each time that it has doubled; times are in seconds';
COMMENT ON COLUMN qml.alert.bound IS 'the bound that the value exceeds';
COMMENT ON COLUMN qml.alert.detail IS 'what is the matter, in words';

-------------------------------------------------------------------------------
-- Producers
-------------------------------------------------------------------------------

CREATE FUNCTION @extschema@.qml_enqueue(method text, payload jsonb DEFAULT '{}',
	queue text DEFAULT 'default', priority int DEFAULT 0, run_at timestamptz DEFAULT NULL,
	max_retries int DEFAULT NULL, timeout interval DEFAULT NULL, metadata jsonb DEFAULT NULL,
	job_type text DEFAULT NULL, id uuid DEFAULT NULL, delay interval DEFAULT NULL,
	options jsonb DEFAULT NULL) RETURNS uuid
	AS 'MODULE_PATHNAME', 'qml_enqueue' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_enqueue(text, jsonb, text, int, timestamptz, int, interval, jsonb, text, uuid, interval, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_enqueue(text, jsonb, text, int, timestamptz, int, interval, jsonb, text, uuid, interval, jsonb) IS
	'enqueue a job as part of the current transaction; returns its id';

CREATE FUNCTION @extschema@.qml_try_enqueue(method text, payload jsonb DEFAULT '{}',
	queue text DEFAULT 'default', priority int DEFAULT 0, run_at timestamptz DEFAULT NULL,
	max_retries int DEFAULT NULL, timeout interval DEFAULT NULL, metadata jsonb DEFAULT NULL,
	job_type text DEFAULT NULL, id uuid DEFAULT NULL, delay interval DEFAULT NULL,
	options jsonb DEFAULT NULL)
	RETURNS TABLE (id uuid, created boolean, state qml.job_state)
	AS 'MODULE_PATHNAME', 'qml_try_enqueue' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_try_enqueue(text, jsonb, text, int, timestamptz, int, interval, jsonb, text, uuid, interval, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_try_enqueue(text, jsonb, text, int, timestamptz, int, interval, jsonb, text, uuid, interval, jsonb) IS
	'the same; returns also whether the job was made, or was there already, and its state';

CREATE PROCEDURE @extschema@.qml_enqueue_job(method text, payload jsonb DEFAULT '{}',
	queue text DEFAULT 'default', priority int DEFAULT 0, run_at timestamptz DEFAULT NULL,
	max_retries int DEFAULT NULL, timeout interval DEFAULT NULL, metadata jsonb DEFAULT NULL,
	job_type text DEFAULT NULL, delay interval DEFAULT NULL, options jsonb DEFAULT NULL,
	INOUT id uuid DEFAULT NULL)
	AS 'MODULE_PATHNAME', 'qml_enqueue_job' LANGUAGE C;
REVOKE ALL ON PROCEDURE @extschema@.qml_enqueue_job(text, jsonb, text, int, timestamptz, int, interval, jsonb, text, interval, jsonb, uuid) FROM PUBLIC;
COMMENT ON PROCEDURE @extschema@.qml_enqueue_job(text, jsonb, text, int, timestamptz, int, interval, jsonb, text, interval, jsonb, uuid) IS
	'qml_enqueue for clients that take a SELECT for a read; returns the id';

CREATE FUNCTION @extschema@.qml_enqueue_many(method text, payloads jsonb[],
	queue text DEFAULT 'default', priority int DEFAULT 0, run_at timestamptz DEFAULT NULL,
	max_retries int DEFAULT NULL, timeout interval DEFAULT NULL, metadata jsonb DEFAULT NULL,
	job_type text DEFAULT NULL, delay interval DEFAULT NULL, options jsonb DEFAULT NULL)
	RETURNS SETOF uuid
	AS 'MODULE_PATHNAME', 'qml_enqueue_many' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_enqueue_many(text, jsonb[], text, int, timestamptz, int, interval, jsonb, text, interval, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_enqueue_many(text, jsonb[], text, int, timestamptz, int, interval, jsonb, text, interval, jsonb) IS
	'enqueue one job per payload; returns their ids in the order of the payloads';

-------------------------------------------------------------------------------
-- Workers
-------------------------------------------------------------------------------

-- Queues are an array of names, or a text.  That is what the type of `queues` is for, here and
-- below: a parameter or literal whose type the server is to find becomes a text, which
-- common/args.c reads.  A second form for texts would be ambiguous where arguments are missing.
CREATE FUNCTION @extschema@.qml_fetch(worker text DEFAULT NULL, queues anycompatible DEFAULT NULL::text,
	batch int DEFAULT 1, lease interval DEFAULT NULL, methods text[] DEFAULT NULL) RETURNS SETOF qml.job
	AS 'MODULE_PATHNAME', 'qml_fetch' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_fetch(text, anycompatible, int, interval, text[]) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_fetch(text, anycompatible, int, interval, text[]) IS
	'claim up to batch ready jobs; no row when none is ready; never waits for a lock';

CREATE FUNCTION @extschema@.qml_fetch_job(id uuid, worker text DEFAULT NULL) RETURNS qml.job
	AS 'MODULE_PATHNAME', 'qml_fetch_job' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_fetch_job(uuid, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_fetch_job(uuid, text) IS 'claim one ready job by its id; an error if it is not ready';

CREATE FUNCTION @extschema@.qml_succeed_fetch(id uuid, attempt int, result jsonb DEFAULT NULL,
	worker text DEFAULT NULL, queues anycompatible DEFAULT NULL::text, batch int DEFAULT 1,
	lease interval DEFAULT NULL, methods text[] DEFAULT NULL) RETURNS SETOF qml.job
	AS 'MODULE_PATHNAME', 'qml_succeed_fetch' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_succeed_fetch(uuid, int, jsonb, text, anycompatible, int, interval, text[]) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_succeed_fetch(uuid, int, jsonb, text, anycompatible, int, interval, text[]) IS
	'finish a claimed job with its result, and claim up to batch ready jobs';

CREATE FUNCTION @extschema@.qml_succeed_fetch_many(ids uuid[], attempts int[], results jsonb[] DEFAULT NULL,
	worker text DEFAULT NULL, queues anycompatible DEFAULT NULL::text, batch int DEFAULT 1,
	lease interval DEFAULT NULL, methods text[] DEFAULT NULL) RETURNS SETOF qml.job
	AS 'MODULE_PATHNAME', 'qml_succeed_fetch_many' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_succeed_fetch_many(uuid[], int[], jsonb[], text, anycompatible, int, interval, text[]) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_succeed_fetch_many(uuid[], int[], jsonb[], text, anycompatible, int, interval, text[]) IS
	'finish several claimed jobs, and claim up to batch ready jobs; stale claims are passed over, with a warning';

CREATE FUNCTION @extschema@.qml_heartbeat(id uuid, attempt int, lease interval DEFAULT NULL)
	RETURNS timestamptz
	AS 'MODULE_PATHNAME', 'qml_heartbeat' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_heartbeat(uuid, int, interval) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_heartbeat(uuid, int, interval) IS
	'extend the lease of a claimed job, without waiting; returns its new end, NULL if it was not extended';

CREATE FUNCTION @extschema@.qml_heartbeat_many(ids uuid[], attempts int[], lease interval DEFAULT NULL)
	RETURNS TABLE (id uuid, lease_expires_at timestamptz)
	AS 'MODULE_PATHNAME', 'qml_heartbeat_many' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_heartbeat_many(uuid[], int[], interval) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_heartbeat_many(uuid[], int[], interval) IS
	'extend the leases of several claimed jobs, without waiting; returns those that are not lost, with the new ends';

CREATE FUNCTION @extschema@.qml_progress(id uuid, attempt int, progress jsonb) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_progress' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_progress(uuid, int, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_progress(uuid, int, jsonb) IS 'record the progress of a claimed job';

CREATE FUNCTION @extschema@.qml_succeed(id uuid, attempt int, result jsonb DEFAULT NULL) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_succeed' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_succeed(uuid, int, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_succeed(uuid, int, jsonb) IS 'finish a claimed job with its result';

CREATE FUNCTION @extschema@.qml_succeed_many(ids uuid[], attempts int[], results jsonb[] DEFAULT NULL)
	RETURNS SETOF uuid
	AS 'MODULE_PATHNAME', 'qml_succeed_many' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_succeed_many(uuid[], int[], jsonb[]) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_succeed_many(uuid[], int[], jsonb[]) IS
	'finish several claimed jobs; returns the ids that were accepted, stale claims are passed over';

CREATE FUNCTION @extschema@.qml_fail(id uuid, attempt int, error text, error_type text DEFAULT NULL,
	stack_trace text DEFAULT NULL, retry boolean DEFAULT true, retry_at timestamptz DEFAULT NULL)
	RETURNS qml.job_state
	AS 'MODULE_PATHNAME', 'qml_fail' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_fail(uuid, int, text, text, text, boolean, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_fail(uuid, int, text, text, text, boolean, timestamptz) IS
	'report a failed attempt; returns awaiting_retry, or failed when no retry is left';

CREATE FUNCTION @extschema@.qml_fail_many(ids uuid[], attempts int[], errors text[], error_types text[] DEFAULT NULL,
	stack_traces text[] DEFAULT NULL, retry boolean DEFAULT true, retry_at timestamptz DEFAULT NULL)
	RETURNS SETOF uuid
	AS 'MODULE_PATHNAME', 'qml_fail_many' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_fail_many(uuid[], int[], text[], text[], text[], boolean, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_fail_many(uuid[], int[], text[], text[], text[], boolean, timestamptz) IS
	'report several failed attempts; returns the ids that were accepted, stale claims are passed over';

CREATE FUNCTION @extschema@.qml_release(id uuid, attempt int, run_at timestamptz DEFAULT NULL,
	reason text DEFAULT NULL) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_release' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_release(uuid, int, timestamptz, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_release(uuid, int, timestamptz, text) IS
	'return a claimed job to its queue, now or at run_at; the attempt does not count against its retries';

CREATE FUNCTION @extschema@.qml_release_many(ids uuid[], attempts int[], run_at timestamptz DEFAULT NULL,
	reason text DEFAULT NULL) RETURNS SETOF uuid
	AS 'MODULE_PATHNAME', 'qml_release_many' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_release_many(uuid[], int[], timestamptz, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_release_many(uuid[], int[], timestamptz, text) IS
	'return several claimed jobs to their queues; returns the ids that were accepted, stale claims are passed over';

CREATE FUNCTION @extschema@.qml_discard(id uuid, attempt int, reason text DEFAULT NULL) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_discard' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_discard(uuid, int, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_discard(uuid, int, text) IS 'delete a claimed job, which is not to be done any more';

-- The same without a result row, for clients that want none, or take a SELECT for a read.

CREATE PROCEDURE @extschema@.qml_progress_job(id uuid, attempt int, progress jsonb)
	AS 'MODULE_PATHNAME', 'qml_progress_job' LANGUAGE C;
REVOKE ALL ON PROCEDURE @extschema@.qml_progress_job(uuid, int, jsonb) FROM PUBLIC;
COMMENT ON PROCEDURE @extschema@.qml_progress_job(uuid, int, jsonb) IS 'qml_progress without a result';

CREATE PROCEDURE @extschema@.qml_succeed_job(id uuid, attempt int, result jsonb DEFAULT NULL)
	AS 'MODULE_PATHNAME', 'qml_succeed_job' LANGUAGE C;
REVOKE ALL ON PROCEDURE @extschema@.qml_succeed_job(uuid, int, jsonb) FROM PUBLIC;
COMMENT ON PROCEDURE @extschema@.qml_succeed_job(uuid, int, jsonb) IS 'qml_succeed without a result';

CREATE PROCEDURE @extschema@.qml_fail_job(id uuid, attempt int, error text, error_type text DEFAULT NULL,
	stack_trace text DEFAULT NULL, retry boolean DEFAULT true, retry_at timestamptz DEFAULT NULL)
	AS 'MODULE_PATHNAME', 'qml_fail_job' LANGUAGE C;
REVOKE ALL ON PROCEDURE @extschema@.qml_fail_job(uuid, int, text, text, text, boolean, timestamptz) FROM PUBLIC;
COMMENT ON PROCEDURE @extschema@.qml_fail_job(uuid, int, text, text, text, boolean, timestamptz) IS 'qml_fail without a result';

CREATE PROCEDURE @extschema@.qml_release_job(id uuid, attempt int, run_at timestamptz DEFAULT NULL,
	reason text DEFAULT NULL)
	AS 'MODULE_PATHNAME', 'qml_release_job' LANGUAGE C;
REVOKE ALL ON PROCEDURE @extschema@.qml_release_job(uuid, int, timestamptz, text) FROM PUBLIC;
COMMENT ON PROCEDURE @extschema@.qml_release_job(uuid, int, timestamptz, text) IS 'qml_release without a result';

CREATE PROCEDURE @extschema@.qml_discard_job(id uuid, attempt int, reason text DEFAULT NULL)
	AS 'MODULE_PATHNAME', 'qml_discard_job' LANGUAGE C;
REVOKE ALL ON PROCEDURE @extschema@.qml_discard_job(uuid, int, text) FROM PUBLIC;
COMMENT ON PROCEDURE @extschema@.qml_discard_job(uuid, int, text) IS 'qml_discard without a result';

-------------------------------------------------------------------------------
-- Control and reading
-------------------------------------------------------------------------------

CREATE FUNCTION @extschema@.qml_can_transition("from" qml.job_state, "to" qml.job_state) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_can_transition' LANGUAGE C STABLE;
REVOKE ALL ON FUNCTION @extschema@.qml_can_transition(qml.job_state, qml.job_state) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_can_transition(qml.job_state, qml.job_state) IS 'whether the transition from one state to the other is allowed';

CREATE FUNCTION @extschema@.qml_job(id uuid) RETURNS SETOF qml.job
	AS 'MODULE_PATHNAME', 'qml_job' LANGUAGE C ROWS 1;
REVOKE ALL ON FUNCTION @extschema@.qml_job(uuid) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_job(uuid) IS 'one job; no row if it is unknown, expired or not visible to the current role';

CREATE FUNCTION @extschema@.qml_search(query text, lim int DEFAULT 50, after text DEFAULT NULL) RETURNS SETOF qml.job
	AS 'MODULE_PATHNAME', 'qml_search' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_search(text, int, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_search(text, int, text) IS 'jobs that match a query, the newest first; after: the id of the last job of the page before';

CREATE FUNCTION @extschema@.qml_counts() RETURNS TABLE (state qml.job_state, count bigint)
	AS 'MODULE_PATHNAME', 'qml_counts' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_counts() FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_counts() IS 'number of jobs by state, all states listed';

CREATE FUNCTION @extschema@.qml_queue_counts() RETURNS TABLE (queue text, state qml.job_state, count bigint)
	AS 'MODULE_PATHNAME', 'qml_queue_counts' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_queue_counts() FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_queue_counts() IS 'number of jobs by queue and state, where there are any';

CREATE FUNCTION @extschema@.qml_queue_depth(queue text, missing_ok boolean DEFAULT false) RETURNS bigint
	AS 'MODULE_PATHNAME', 'qml_queue_depth' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_queue_depth(text, boolean) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_queue_depth(text, boolean) IS 'number of ready jobs of a queue; an error if there is none with that name, or NULL with missing_ok';

CREATE FUNCTION @extschema@.qml_explain(id uuid) RETURNS TABLE (reason text, detail text, remedy text)
	AS 'MODULE_PATHNAME', 'qml_explain' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_explain(uuid) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_explain(uuid) IS 'every reason why a job does not run, with what helps; or who runs it, or how it ended';

CREATE FUNCTION @extschema@.qml_explain_queue(queue text) RETURNS TABLE (reason text, detail text, remedy text)
	AS 'MODULE_PATHNAME', 'qml_explain_queue' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_explain_queue(text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_explain_queue(text) IS 'every reason why a queue does not move, with what helps';

CREATE FUNCTION @extschema@.qml_status() RETURNS TABLE (check_name text, ok boolean, detail text, remedy text)
	AS 'MODULE_PATHNAME', 'qml_status' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_status() FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_status() IS 'whether anything is missing for jobs to run here: a row for each check, with what helps; ok is NULL where it cannot be told';

CREATE FUNCTION @extschema@.qml_delete(id uuid, reason text DEFAULT NULL) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_delete' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_delete(uuid, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_delete(uuid, text) IS 'delete a job; false if it was deleted already';

CREATE FUNCTION @extschema@.qml_cancel(id uuid, reason text DEFAULT NULL) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_cancel' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_cancel(uuid, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_cancel(uuid, text) IS 'delete a job, as an administrator; false if it was deleted already';

CREATE FUNCTION @extschema@.qml_retry(id uuid) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_retry' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_retry(uuid) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_retry(uuid) IS 'enqueue a failed, scheduled or awaiting_retry job now; false if it is enqueued already';

CREATE FUNCTION @extschema@.qml_reschedule(id uuid, run_at timestamptz, reason text DEFAULT NULL) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_reschedule' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_reschedule(uuid, timestamptz, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_reschedule(uuid, timestamptz, text) IS 'postpone an enqueued or scheduled job until run_at; false if that is its time already';

CREATE FUNCTION @extschema@.qml_set_state(id uuid, state qml.job_state, data jsonb DEFAULT '{}') RETURNS qml.job
	AS 'MODULE_PATHNAME', 'qml_set_state' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_set_state(uuid, qml.job_state, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_set_state(uuid, qml.job_state, jsonb) IS 'make any allowed transition of a job, as an administrator; returns the job';

CREATE FUNCTION @extschema@.qml_update_job(id uuid, changes jsonb) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_update_job' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_update_job(uuid, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_update_job(uuid, jsonb) IS 'change queue, priority, payload, max_retries, timeout, run_at or metadata of a job that does not run; false if it is so already';

CREATE FUNCTION @extschema@.qml_peek(queues anycompatible DEFAULT NULL::text, lim int DEFAULT 10) RETURNS SETOF qml.job
	AS 'MODULE_PATHNAME', 'qml_peek' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_peek(anycompatible, int) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_peek(anycompatible, int) IS 'up to lim jobs that would be given out next, in that order; none is claimed';

-------------------------------------------------------------------------------
-- Bulk operations
-------------------------------------------------------------------------------

CREATE FUNCTION @extschema@.qml_bulk(action text, query text, options jsonb DEFAULT '{}') RETURNS uuid
	AS 'MODULE_PATHNAME', 'qml_bulk' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_bulk(text, text, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_bulk(text, text, jsonb) IS 'retry, delete, move, redrive or give a priority to all jobs that a query matches, in the background; returns the id of the operation, which the view qml.bulk shows';

CREATE FUNCTION @extschema@.qml_bulk_preview(action text, query text)
	RETURNS TABLE (queue text, method text, state qml.job_state, count bigint)
	AS 'MODULE_PATHNAME', 'qml_bulk_preview' LANGUAGE C STABLE;
REVOKE ALL ON FUNCTION @extschema@.qml_bulk_preview(text, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_bulk_preview(text, text) IS 'how many jobs a bulk operation would change now';

CREATE FUNCTION @extschema@.qml_pause_bulk(id uuid, reason text DEFAULT NULL) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_pause_bulk' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_pause_bulk(uuid, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_pause_bulk(uuid, text) IS 'pause a bulk operation; false if it was paused already';

CREATE FUNCTION @extschema@.qml_resume_bulk(id uuid) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_resume_bulk' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_resume_bulk(uuid) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_resume_bulk(uuid) IS 'go on with a bulk operation that was paused or has failed, from where it was; false if it was running';

CREATE FUNCTION @extschema@.qml_cancel_bulk(id uuid, reason text DEFAULT NULL) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_cancel_bulk' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_cancel_bulk(uuid, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_cancel_bulk(uuid, text) IS 'end a bulk operation; what it has done stays done; false if it was canceled already';

-------------------------------------------------------------------------------
-- Statistics and metrics
-------------------------------------------------------------------------------

CREATE FUNCTION @extschema@.qml_stats(since interval DEFAULT '1 hour', queue text DEFAULT NULL, method text DEFAULT NULL)
	RETURNS TABLE (queue text, method text, enqueued bigint, started bigint, succeeded bigint,
		failed bigint, deleted bigint, retried bigint, released bigint, lost bigint,
		enqueue_rate float8, finish_rate float8, failure_rate float8,
		wait_p50 interval, wait_p95 interval, wait_p99 interval,
		run_p50 interval, run_p95 interval, run_p99 interval,
		depth bigint, running bigint, oldest_ready interval)
	AS 'MODULE_PATHNAME', 'qml_stats' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_stats(interval, text, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_stats(interval, text, text) IS 'what happened to jobs lately, by queue (method is NULL) and by queue and method: numbers, rates per second, percentiles of wait and run; of queues also what is there now';

CREATE FUNCTION @extschema@.qml_metrics() RETURNS text
	AS 'MODULE_PATHNAME', 'qml_metrics' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_metrics() FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_metrics() IS 'statistics and numbers of jobs in the text format of Prometheus';

CREATE FUNCTION @extschema@.qml_mark(label text) RETURNS timestamptz
	AS 'MODULE_PATHNAME', 'qml_mark' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_mark(text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_mark(text) IS 'put a mark on charts, such as a deployment; returns its time';

-------------------------------------------------------------------------------
-- Queues
-------------------------------------------------------------------------------

CREATE FUNCTION @extschema@.qml_create_queue(name text, options jsonb DEFAULT '{}') RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_create_queue' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_create_queue(text, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_create_queue(text, jsonb) IS 'create a queue with options';

CREATE FUNCTION @extschema@.qml_alter_queue(name text, options jsonb) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_alter_queue' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_alter_queue(text, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_alter_queue(text, jsonb) IS 'set options of a queue; null resets an option, so that the setting applies';

CREATE FUNCTION @extschema@.qml_drop_queue(name text, missing_ok boolean DEFAULT false) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_drop_queue' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_drop_queue(text, boolean) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_drop_queue(text, boolean) IS 'drop a queue that has no unfinished jobs, with the capabilities granted on it; an error if there is none with that name, or false with missing_ok';

CREATE FUNCTION @extschema@.qml_pause_queue(name text, reason text DEFAULT NULL,
	missing_ok boolean DEFAULT false) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_pause_queue' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_pause_queue(text, text, boolean) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_pause_queue(text, text, boolean) IS 'stop handing out jobs of a queue; an error if there is none with that name, or false with missing_ok';

CREATE FUNCTION @extschema@.qml_resume_queue(name text, missing_ok boolean DEFAULT false) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_resume_queue' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_resume_queue(text, boolean) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_resume_queue(text, boolean) IS 'hand out jobs of a paused queue again; an error if there is none with that name, or false with missing_ok';

CREATE FUNCTION @extschema@.qml_purge_queue(name text, reason text DEFAULT NULL,
	missing_ok boolean DEFAULT false) RETURNS bigint
	AS 'MODULE_PATHNAME', 'qml_purge_queue' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_purge_queue(text, text, boolean) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_purge_queue(text, text, boolean) IS 'delete all jobs of a queue that do not run; returns how many; an error if there is none with that name, or 0 with missing_ok';

CREATE FUNCTION @extschema@.qml_pause_all(reason text DEFAULT NULL) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_pause_all' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_pause_all(text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_pause_all(text) IS 'stop handing out jobs of all queues, also of those that come later; false if they were paused already';

CREATE FUNCTION @extschema@.qml_resume_all() RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_resume_all' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_resume_all() FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_resume_all() IS 'end the pause of all queues; those that were paused one by one stay so; false if there was none';

-------------------------------------------------------------------------------
-- Maintenance
-------------------------------------------------------------------------------

CREATE FUNCTION @extschema@.qml_promote_due(max int DEFAULT 1000) RETURNS int
	AS 'MODULE_PATHNAME', 'qml_promote_due' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_promote_due(int) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_promote_due(int) IS 'enqueue up to max scheduled and awaiting_retry jobs that are due; returns how many';

CREATE FUNCTION @extschema@.qml_reclaim(max int DEFAULT 1000) RETURNS int
	AS 'MODULE_PATHNAME', 'qml_reclaim' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_reclaim(int) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_reclaim(int) IS 'reclaim up to max jobs whose lease has expired; returns how many';

CREATE FUNCTION @extschema@.qml_cleanup() RETURNS bigint
	AS 'MODULE_PATHNAME', 'qml_cleanup' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_cleanup() FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_cleanup() IS 'drop expired partitions of the history, create those needed soon, delete expired locks; returns how many jobs and locks were removed, estimated for large partitions';

CREATE FUNCTION @extschema@.qml_maintain() RETURNS jsonb
	AS 'MODULE_PATHNAME', 'qml_maintain' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_maintain() FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_maintain() IS 'all maintenance in one call; returns what each step did';

CREATE FUNCTION @extschema@.qml_adopt() RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_adopt' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_adopt() FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_adopt() IS 'start work in a restored or copied database: jobs that were processing are enqueued again';

-------------------------------------------------------------------------------
-- Recurring jobs
-------------------------------------------------------------------------------

CREATE FUNCTION @extschema@.qml_schedule_recurring(id text, cron text, method text,
	payload jsonb DEFAULT '{}', queue text DEFAULT 'default', timezone text DEFAULT 'UTC',
	priority int DEFAULT 0, max_retries int DEFAULT NULL, timeout interval DEFAULT NULL,
	misfire text DEFAULT 'fire_once', metadata jsonb DEFAULT NULL,
	overlap text DEFAULT 'allow', job_type text DEFAULT NULL) RETURNS timestamptz
	AS 'MODULE_PATHNAME', 'qml_schedule_recurring' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_schedule_recurring(text, text, text, jsonb, text, text, int, int, interval, text, jsonb, text, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_schedule_recurring(text, text, text, jsonb, text, text, int, int, interval, text, jsonb, text, text) IS
	'make a recurring job, or make the one of that id be as given; returns when it fires next, NULL when one that was there never does again; one that is as given already is not changed';

CREATE FUNCTION @extschema@.qml_remove_recurring(id text, missing_ok boolean DEFAULT false) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_remove_recurring' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_remove_recurring(text, boolean) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_remove_recurring(text, boolean) IS 'remove a recurring job; an error if there is none with that id, or false with missing_ok';

CREATE FUNCTION @extschema@.qml_pause_recurring(id text, reason text DEFAULT NULL, missing_ok boolean DEFAULT false) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_pause_recurring' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_pause_recurring(text, text, boolean) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_pause_recurring(text, text, boolean) IS 'stop a recurring job from firing; an error if there is none with that id, or false with missing_ok';

CREATE FUNCTION @extschema@.qml_resume_recurring(id text, missing_ok boolean DEFAULT false) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_resume_recurring' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_resume_recurring(text, boolean) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_resume_recurring(text, boolean) IS 'resume a paused recurring job, from its next tick on; an error if there is none with that id, or false with missing_ok';

CREATE FUNCTION @extschema@.qml_run_recurring(id text) RETURNS uuid
	AS 'MODULE_PATHNAME', 'qml_run_recurring' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_run_recurring(text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_run_recurring(text) IS 'enqueue a job of a schedule now, in addition to its ticks; returns the id of the job';

CREATE FUNCTION @extschema@.qml_cron_next(cron text, after timestamptz DEFAULT now(),
	timezone text DEFAULT 'UTC', n int DEFAULT 1) RETURNS SETOF timestamptz
	AS 'MODULE_PATHNAME', 'qml_cron_next' LANGUAGE C STABLE;
REVOKE ALL ON FUNCTION @extschema@.qml_cron_next(text, timestamptz, text, int) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_cron_next(text, timestamptz, text, int) IS 'the next n times at which a cron expression fires, or an interval that is counted from then; fewer if it never fires again';

CREATE FUNCTION @extschema@.qml_poll_recurring(max int DEFAULT 256) RETURNS int
	AS 'MODULE_PATHNAME', 'qml_poll_recurring' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_poll_recurring(int) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_poll_recurring(int) IS 'fire up to max recurring jobs that are due; returns how many jobs were enqueued';

CREATE FUNCTION @extschema@.qml_pg_cron_schedule() RETURNS SETOF bigint
	AS 'MODULE_PATHNAME', 'qml_pg_cron_schedule' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_pg_cron_schedule() FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_pg_cron_schedule() IS 'schedule the maintenance with pg_cron, every minute; returns the ids of the pg_cron jobs';

CREATE FUNCTION @extschema@.qml_pg_cron_unschedule() RETURNS int
	AS 'MODULE_PATHNAME', 'qml_pg_cron_unschedule' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_pg_cron_unschedule() FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_pg_cron_unschedule() IS 'remove the maintenance from pg_cron; returns how many pg_cron jobs were removed';

CREATE FUNCTION @extschema@.qml_import_pg_cron() RETURNS TABLE (jobid bigint, jobname text, schedule text, problem text)
	AS 'MODULE_PATHNAME', 'qml_import_pg_cron' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_import_pg_cron() FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_import_pg_cron() IS 'make a command and a paused schedule of each job that pg_cron has in this database; resuming the schedule unschedules the job';

-------------------------------------------------------------------------------
-- Servers
-------------------------------------------------------------------------------

CREATE FUNCTION @extschema@.qml_register_server(name text, workers int DEFAULT 1,
	queues anycompatible DEFAULT NULL::text) RETURNS text
	AS 'MODULE_PATHNAME', 'qml_register_server' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_register_server(text, int, anycompatible) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_register_server(text, int, anycompatible) IS 'register a server, whose workers then fetch as <id>/<name>; returns its id';

CREATE FUNCTION @extschema@.qml_heartbeat_server(id text, missing_ok boolean DEFAULT false) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_heartbeat_server' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_heartbeat_server(text, boolean) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_heartbeat_server(text, boolean) IS 'record the heartbeat of a server; false if it was declared dead and must register again; an error if it is unknown, or false with missing_ok';

CREATE FUNCTION @extschema@.qml_unregister_server(id text, missing_ok boolean DEFAULT false) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_unregister_server' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_unregister_server(text, boolean) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_unregister_server(text, boolean) IS 'unregister a server; jobs that its workers hold are reclaimed; an error if it is unknown, or false with missing_ok';

CREATE FUNCTION @extschema@.qml_reclaim_server(id text, missing_ok boolean DEFAULT false) RETURNS int
	AS 'MODULE_PATHNAME', 'qml_reclaim_server' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_reclaim_server(text, boolean) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_reclaim_server(text, boolean) IS 'declare a server dead and reclaim the jobs that its workers hold; returns how many; an error if it is unknown, unless missing_ok';

-------------------------------------------------------------------------------
-- Handlers
-------------------------------------------------------------------------------

CREATE FUNCTION @extschema@.qml_register_handler(method text, function regprocedure, options jsonb DEFAULT '{}') RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_register_handler' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_register_handler(text, regprocedure, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_register_handler(text, regprocedure, jsonb) IS 'let a function or procedure run the jobs of a method; replaces the present handler';

-- This form accepts a literal that is the bare name of a function, if it is not overloaded.
CREATE FUNCTION @extschema@.qml_register_handler(method text, function text, options jsonb DEFAULT '{}') RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_register_handler_name' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_register_handler(text, text, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_register_handler(text, text, jsonb) IS 'the same, for a function given by its name, with or without its argument types';

-- A kind of handler of its own: the statement runs at the top level of a worker.
CREATE FUNCTION @extschema@.qml_register_command(method text, command text, options jsonb DEFAULT '{}') RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_register_command' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_register_command(text, text, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_register_command(text, text, jsonb) IS 'let a statement, such as VACUUM, run the jobs of a method, which have no payload; replaces the present handler';

CREATE FUNCTION @extschema@.qml_unregister_handler(method text, missing_ok boolean DEFAULT false) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_unregister_handler' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_unregister_handler(text, boolean) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_unregister_handler(text, boolean) IS 'unregister the handler of a method, whose jobs are then left to workers outside the database; an error if it has none, or false with missing_ok';

-------------------------------------------------------------------------------
-- Waiting.  Procedures, because they end their transaction before they wait.
-------------------------------------------------------------------------------

CREATE PROCEDURE @extschema@.qml_wait(queues anycompatible DEFAULT NULL::text, timeout interval DEFAULT '30 s',
	methods text[] DEFAULT NULL, INOUT ready boolean DEFAULT NULL)
	AS 'MODULE_PATHNAME', 'qml_wait' LANGUAGE C;
REVOKE ALL ON PROCEDURE @extschema@.qml_wait(anycompatible, interval, text[], boolean) FROM PUBLIC;
COMMENT ON PROCEDURE @extschema@.qml_wait(anycompatible, interval, text[], boolean) IS 'sleep until a job may be ready or the timeout ends; the result is true or false';

CREATE PROCEDURE @extschema@.qml_wait_for(id uuid, timeout interval DEFAULT '30 s',
	INOUT state qml.job_state DEFAULT NULL)
	AS 'MODULE_PATHNAME', 'qml_wait_for' LANGUAGE C;
REVOKE ALL ON PROCEDURE @extschema@.qml_wait_for(uuid, interval, qml.job_state) FROM PUBLIC;
COMMENT ON PROCEDURE @extschema@.qml_wait_for(uuid, interval, qml.job_state) IS 'sleep until the job is finished or the timeout ends; returns its state then, NULL if it is finished and not kept';

CREATE PROCEDURE @extschema@.qml_watch(INOUT version bigint DEFAULT NULL, timeout interval DEFAULT '30 s')
	AS 'MODULE_PATHNAME', 'qml_watch' LANGUAGE C;
REVOKE ALL ON PROCEDURE @extschema@.qml_watch(bigint, interval) FROM PUBLIC;
COMMENT ON PROCEDURE @extschema@.qml_watch(bigint, interval) IS 'sleep until something changes that the current role may monitor, or the timeout ends; returns another version then, and otherwise the one given';

-- State hooks and middleware, each in two forms, as qml_register_handler().
CREATE FUNCTION @extschema@.qml_register_hook(name text, function regprocedure, states qml.job_state[] DEFAULT NULL,
	options jsonb DEFAULT '{}') RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_register_hook' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_register_hook(text, regprocedure, qml.job_state[], jsonb) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_register_hook(text, regprocedure, qml.job_state[], jsonb) IS 'call a function after each transition to these states, in its transaction or after the commit, as the current role; replaces one of the same name';

CREATE FUNCTION @extschema@.qml_register_hook(name text, function text, states qml.job_state[] DEFAULT NULL,
	options jsonb DEFAULT '{}') RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_register_hook_name' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_register_hook(text, text, qml.job_state[], jsonb) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_register_hook(text, text, qml.job_state[], jsonb) IS 'the same, for a function given by its name, with or without its argument types';

CREATE FUNCTION @extschema@.qml_unregister_hook(name text, missing_ok boolean DEFAULT false) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_unregister_hook' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_unregister_hook(text, boolean) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_unregister_hook(text, boolean) IS 'remove a hook; an error if there is none with that name, or false with missing_ok';

CREATE FUNCTION @extschema@.qml_register_middleware(name text, function regprocedure, "position" int DEFAULT 0,
	options jsonb DEFAULT '{}') RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_register_middleware' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_register_middleware(text, regprocedure, int, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_register_middleware(text, regprocedure, int, jsonb) IS 'call a function around each job that runs in the database, as the current role; around those of its own handlers only, unless the role has the privileges of the owner; replaces one of the same name';

CREATE FUNCTION @extschema@.qml_register_middleware(name text, function text, "position" int DEFAULT 0,
	options jsonb DEFAULT '{}') RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_register_middleware_name' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_register_middleware(text, text, int, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_register_middleware(text, text, int, jsonb) IS 'the same, for a function given by its name, with or without its argument types';

CREATE FUNCTION @extschema@.qml_unregister_middleware(name text, missing_ok boolean DEFAULT false) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_unregister_middleware' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_unregister_middleware(text, boolean) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_unregister_middleware(text, boolean) IS 'remove a middleware; an error if there is none with that name, or false with missing_ok';

CREATE FUNCTION @extschema@.qml_next() RETURNS jsonb
	AS 'MODULE_PATHNAME', 'qml_next' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_next() FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_next() IS 'in a middleware: run the rest of the chain, that is other middleware and the handler; returns its result';

CREATE FUNCTION @extschema@.qml_tracing(job qml.job) RETURNS jsonb
	AS 'MODULE_PATHNAME', 'qml_tracing' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_tracing(qml.job) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_tracing(qml.job) IS 'a middleware: log each job with its duration and W3C traceparent, and pass the latter to jobs that it enqueues';

-- Inside a job that runs in the database.  qml_register_handler() lets the role of the
-- handler call these.

CREATE FUNCTION @extschema@.qml_current_job() RETURNS qml.job
	AS 'MODULE_PATHNAME', 'qml_current_job' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_current_job() FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_current_job() IS 'the job that runs in this session; NULL outside of one';

CREATE FUNCTION @extschema@.qml_progress(progress jsonb) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_show_progress' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_progress(jsonb) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_progress(jsonb) IS 'record the progress of the job that runs in this session; others see it at once';

CREATE FUNCTION @extschema@.qml_retry_later(delay interval, reason text DEFAULT NULL) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_retry_later' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_retry_later(interval, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_retry_later(interval, text) IS 'after the handler returns, run the job of this session again after a delay; the attempt does not count';

CREATE FUNCTION @extschema@.qml_discard(reason text DEFAULT NULL) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_discard_current' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_discard(text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_discard(text) IS 'after the handler returns, delete the job of this session';

-------------------------------------------------------------------------------
-- Tests of users
-------------------------------------------------------------------------------

CREATE FUNCTION @extschema@.qml_run(id uuid) RETURNS qml.job
	AS 'MODULE_PATHNAME', 'qml_run' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_run(uuid) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_run(uuid) IS 'run a job in the transaction of the caller, who must be the role of its handler; returns the job afterwards';

CREATE FUNCTION @extschema@.qml_drain(queues anycompatible DEFAULT NULL::text, max int DEFAULT 1000,
	scheduled boolean DEFAULT false) RETURNS int
	AS 'MODULE_PATHNAME', 'qml_drain' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_drain(anycompatible, int, boolean) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_drain(anycompatible, int, boolean) IS 'run jobs in the transaction of the caller until none is left that its role runs; returns how many';

-------------------------------------------------------------------------------
-- Named locks
-------------------------------------------------------------------------------

CREATE FUNCTION @extschema@.qml_try_lock(resource text, owner text, ttl interval) RETURNS bigint
	AS 'MODULE_PATHNAME', 'qml_try_lock' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_try_lock(text, text, interval) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_try_lock(text, text, interval) IS 'take or refresh a named lock; returns its fencing number, NULL if another owner or another role holds it';

CREATE FUNCTION @extschema@.qml_unlock(resource text, owner text) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_unlock' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_unlock(text, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_unlock(text, text) IS 'release a named lock; false if the owner does not hold it, or another role took it';

-------------------------------------------------------------------------------
-- Rights
-------------------------------------------------------------------------------

CREATE FUNCTION @extschema@.qml_grant(grantee regrole, capability text, queue text DEFAULT NULL) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_grant' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_grant(regrole, text, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_grant(regrole, text, text) IS 'grant a capability (enqueue, work, monitor, admin) to a role, on one queue or on all';

CREATE FUNCTION @extschema@.qml_revoke(grantee regrole, capability text, queue text DEFAULT NULL) RETURNS boolean
	AS 'MODULE_PATHNAME', 'qml_revoke' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_revoke(regrole, text, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_revoke(regrole, text, text) IS 'revoke a capability; without a queue, on all queues';

CREATE FUNCTION @extschema@.qml_drop_role_objects(role regrole) RETURNS jsonb
	AS 'MODULE_PATHNAME', 'qml_drop_role_objects' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.qml_drop_role_objects(regrole) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_drop_role_objects(regrole) IS 'remove the capabilities, handlers, hooks, middleware and schedules of a role, so that it can be dropped; returns how many of each';

-------------------------------------------------------------------------------
-- Default privileges of the installing role may have granted privileges on any of the
-- above to others.  The function is dropped afterwards: it would also revoke what is
-- granted later.
-------------------------------------------------------------------------------

CREATE FUNCTION qml.revoke_default_privileges() RETURNS void
	AS 'MODULE_PATHNAME', 'qml_revoke_default_privileges' LANGUAGE C;
SELECT qml.revoke_default_privileges();
DROP FUNCTION qml.revoke_default_privileges();

-------------------------------------------------------------------------------
-- Whoever lacks a right is told by qml which statement gives it, not by the server, which
-- knows nothing of capabilities.  So everybody may call each function that asks for a
-- capability before it does anything else, and read each view that asks qml.may_read().
-- The functions and tables that are not named here are the owner's.
--
-- The schema stays closed: whoever may name a table can lock it by PREPARE or CREATE RULE,
-- without any privilege on it, and stop all work.  qml_grant opens it to those who have a
-- capability.
-------------------------------------------------------------------------------

GRANT EXECUTE ON FUNCTION qml.job_access(int, regrole) TO PUBLIC;
GRANT EXECUTE ON FUNCTION qml.job_document(int, text, regrole, text, jsonb) TO PUBLIC;
GRANT EXECUTE ON FUNCTION qml.job_text(int, text, regrole, text, text) TO PUBLIC;
GRANT EXECUTE ON FUNCTION qml.queue_access(text) TO PUBLIC;
GRANT EXECUTE ON FUNCTION qml.recurring_access(text, regrole) TO PUBLIC;
GRANT EXECUTE ON FUNCTION qml.recurring_document(text, text, regrole, text, jsonb) TO PUBLIC;
GRANT EXECUTE ON FUNCTION qml.next_runs(text, text, timestamptz, timestamptz, boolean) TO PUBLIC;
GRANT EXECUTE ON FUNCTION qml.background_servers() TO PUBLIC;
GRANT EXECUTE ON FUNCTION qml.background_databases() TO PUBLIC;
GRANT EXECUTE ON FUNCTION qml.is_alive(timestamptz, timestamptz) TO PUBLIC;
GRANT EXECUTE ON FUNCTION qml.handler_problem(text) TO PUBLIC;
GRANT EXECUTE ON FUNCTION qml.hook_problem(text) TO PUBLIC;
GRANT EXECUTE ON FUNCTION qml.hook_access(regrole, boolean) TO PUBLIC;
GRANT EXECUTE ON FUNCTION qml.middleware_problem(text) TO PUBLIC;
GRANT EXECUTE ON FUNCTION qml.role_problem(regrole, boolean) TO PUBLIC;
GRANT EXECUTE ON FUNCTION qml.is_admin() TO PUBLIC;
GRANT EXECUTE ON FUNCTION qml.lease_end(uuid, int, timestamptz) TO PUBLIC;
GRANT EXECUTE ON FUNCTION qml.retries_left(int, text, regrole, int, int) TO PUBLIC;
GRANT EXECUTE ON FUNCTION qml.stats_access(int) TO PUBLIC;
GRANT EXECUTE ON FUNCTION qml.bulk_access(regrole) TO PUBLIC;
GRANT EXECUTE ON FUNCTION qml.error_fingerprint(int, text, regrole, jsonb) TO PUBLIC;
GRANT EXECUTE ON FUNCTION qml.scheduler_alert() TO PUBLIC;
GRANT EXECUTE ON FUNCTION qml.stats_quantile(bytea, float8) TO PUBLIC;
GRANT EXECUTE ON FUNCTION qml.unlogged_jobs() TO PUBLIC;
GRANT EXECUTE ON FUNCTION qml.search_order(uuid, timestamptz) TO PUBLIC;
GRANT EXECUTE ON FUNCTION qml.search_key(int, text) TO PUBLIC;
GRANT EXECUTE ON FUNCTION qml.search_own(uuid, timestamptz) TO PUBLIC;
GRANT EXECUTE ON FUNCTION qml.search_slow(timestamptz, timestamptz) TO PUBLIC;
GRANT EXECUTE ON FUNCTION qml.one_line(text, int) TO PUBLIC;
GRANT EXECUTE ON FUNCTION qml.brief(interval) TO PUBLIC;
GRANT EXECUTE ON FUNCTION qml.may_read(text) TO PUBLIC;
GRANT EXECUTE ON FUNCTION qml.may_plan(text) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_enqueue(text, jsonb, text, int, timestamptz, int, interval, jsonb, text, uuid, interval, jsonb) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_try_enqueue(text, jsonb, text, int, timestamptz, int, interval, jsonb, text, uuid, interval, jsonb) TO PUBLIC;
GRANT EXECUTE ON PROCEDURE @extschema@.qml_enqueue_job(text, jsonb, text, int, timestamptz, int, interval, jsonb, text, interval, jsonb, uuid) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_enqueue_many(text, jsonb[], text, int, timestamptz, int, interval, jsonb, text, interval, jsonb) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_fetch(text, anycompatible, int, interval, text[]) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_fetch_job(uuid, text) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_succeed_fetch(uuid, int, jsonb, text, anycompatible, int, interval, text[]) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_succeed_fetch_many(uuid[], int[], jsonb[], text, anycompatible, int, interval, text[]) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_heartbeat(uuid, int, interval) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_heartbeat_many(uuid[], int[], interval) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_progress(uuid, int, jsonb) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_succeed(uuid, int, jsonb) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_succeed_many(uuid[], int[], jsonb[]) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_fail(uuid, int, text, text, text, boolean, timestamptz) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_fail_many(uuid[], int[], text[], text[], text[], boolean, timestamptz) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_release(uuid, int, timestamptz, text) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_release_many(uuid[], int[], timestamptz, text) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_discard(uuid, int, text) TO PUBLIC;
GRANT EXECUTE ON PROCEDURE @extschema@.qml_progress_job(uuid, int, jsonb) TO PUBLIC;
GRANT EXECUTE ON PROCEDURE @extschema@.qml_succeed_job(uuid, int, jsonb) TO PUBLIC;
GRANT EXECUTE ON PROCEDURE @extschema@.qml_fail_job(uuid, int, text, text, text, boolean, timestamptz) TO PUBLIC;
GRANT EXECUTE ON PROCEDURE @extschema@.qml_release_job(uuid, int, timestamptz, text) TO PUBLIC;
GRANT EXECUTE ON PROCEDURE @extschema@.qml_discard_job(uuid, int, text) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_can_transition(qml.job_state, qml.job_state) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_job(uuid) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_search(text, int, text) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_counts() TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_queue_counts() TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_queue_depth(text, boolean) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_explain(uuid) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_explain_queue(text) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_status() TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_delete(uuid, text) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_cancel(uuid, text) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_retry(uuid) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_reschedule(uuid, timestamptz, text) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_update_job(uuid, jsonb) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_peek(anycompatible, int) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_set_state(uuid, qml.job_state, jsonb) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_bulk(text, text, jsonb) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_bulk_preview(text, text) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_pause_bulk(uuid, text) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_resume_bulk(uuid) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_cancel_bulk(uuid, text) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_stats(interval, text, text) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_metrics() TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_mark(text) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_create_queue(text, jsonb) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_alter_queue(text, jsonb) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_drop_queue(text, boolean) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_pause_queue(text, text, boolean) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_purge_queue(text, text, boolean) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_pause_all(text) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_resume_all() TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_resume_queue(text, boolean) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_promote_due(int) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_reclaim(int) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_cleanup() TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_maintain() TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_adopt() TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_schedule_recurring(text, text, text, jsonb, text, text, int, int, interval, text, jsonb, text, text) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_remove_recurring(text, boolean) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_pause_recurring(text, text, boolean) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_resume_recurring(text, boolean) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_run_recurring(text) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_cron_next(text, timestamptz, text, int) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_poll_recurring(int) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_pg_cron_schedule() TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_pg_cron_unschedule() TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_import_pg_cron() TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_register_server(text, int, anycompatible) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_heartbeat_server(text, boolean) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_unregister_server(text, boolean) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_reclaim_server(text, boolean) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_register_handler(text, regprocedure, jsonb) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_register_handler(text, text, jsonb) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_register_command(text, text, jsonb) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_unregister_handler(text, boolean) TO PUBLIC;
GRANT EXECUTE ON PROCEDURE @extschema@.qml_wait(anycompatible, interval, text[], boolean) TO PUBLIC;
GRANT EXECUTE ON PROCEDURE @extschema@.qml_wait_for(uuid, interval, qml.job_state) TO PUBLIC;
GRANT EXECUTE ON PROCEDURE @extschema@.qml_watch(bigint, interval) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_register_hook(text, regprocedure, qml.job_state[], jsonb) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_register_hook(text, text, qml.job_state[], jsonb) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_unregister_hook(text, boolean) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_register_middleware(text, regprocedure, int, jsonb) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_register_middleware(text, text, int, jsonb) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_unregister_middleware(text, boolean) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_next() TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_tracing(qml.job) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_current_job() TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_progress(jsonb) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_retry_later(interval, text) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_discard(text) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_run(uuid) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_drain(anycompatible, int, boolean) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_try_lock(text, text, interval) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_unlock(text, text) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_grant(regrole, text, text) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_revoke(regrole, text, text) TO PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.qml_drop_role_objects(regrole) TO PUBLIC;
GRANT SELECT ON TABLE qml.job TO PUBLIC;
GRANT SELECT ON TABLE qml.recent TO PUBLIC;
GRANT SELECT ON TABLE qml.queue TO PUBLIC;
GRANT SELECT ON TABLE qml.pause TO PUBLIC;
GRANT SELECT ON TABLE qml.audit TO PUBLIC;
GRANT SELECT ON TABLE qml.lock TO PUBLIC;
GRANT SELECT ON TABLE qml.recurring TO PUBLIC;
GRANT SELECT ON TABLE qml.recurring_tick TO PUBLIC;
GRANT SELECT ON TABLE qml.server TO PUBLIC;
GRANT SELECT ON TABLE qml.database TO PUBLIC;
GRANT SELECT ON TABLE qml.handler TO PUBLIC;
GRANT SELECT ON TABLE qml.hook TO PUBLIC;
GRANT SELECT ON TABLE qml.middleware TO PUBLIC;
GRANT SELECT ON TABLE qml.acl TO PUBLIC;
GRANT SELECT ON TABLE qml.stats_minute TO PUBLIC;
GRANT SELECT ON TABLE qml.mark TO PUBLIC;
GRANT SELECT ON TABLE qml.bulk TO PUBLIC;
GRANT SELECT ON TABLE qml.dead_letter TO PUBLIC;
GRANT SELECT ON TABLE qml.alert TO PUBLIC;
GRANT USAGE ON TYPE qml.job_state TO PUBLIC;

CREATE FUNCTION qml.check_service() RETURNS void
	AS 'MODULE_PATHNAME', 'qml_check_service' LANGUAGE C;
SELECT qml.check_service();
DROP FUNCTION qml.check_service();
