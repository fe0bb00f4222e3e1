-- What qml is measured against: the same job in a plain table with the same
-- indexes and storage parameters, for SQL written by hand.  Ids are ordered by time, as qml's are:
-- with random ones the floor fetches a third fewer jobs.

CREATE SCHEMA floor;

CREATE TYPE floor.job_state AS ENUM
	('scheduled', 'enqueued', 'processing', 'awaiting_retry', 'succeeded', 'failed', 'deleted');

CREATE TABLE floor.live (
	id uuid PRIMARY KEY DEFAULT encode(overlay(uuid_send(gen_random_uuid()) PLACING
		substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
		FROM 1 FOR 6), 'hex')::uuid,
	created_at timestamptz NOT NULL DEFAULT now(),
	queue_id int NOT NULL,
	priority int NOT NULL DEFAULT 0,
	state floor.job_state NOT NULL DEFAULT 'enqueued',
	attempt int NOT NULL DEFAULT 0,
	max_retries int NOT NULL DEFAULT 5,
	timeout_ms int NOT NULL DEFAULT 300000,
	created_by regrole NOT NULL DEFAULT current_user::regrole,
	run_at timestamptz,
	started_at timestamptz,
	lease_expires_at timestamptz,
	worker text,
	server text,
	method text NOT NULL,
	job_type text,
	metadata jsonb,
	progress jsonb,
	errors jsonb,
	reason text,
	payload jsonb NOT NULL
) WITH (fillfactor = 42,
	autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
	autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 10000,
	autovacuum_vacuum_insert_threshold = 100000, autovacuum_vacuum_cost_delay = 0,
	vacuum_index_cleanup = on);

CREATE INDEX live_ready ON floor.live (queue_id, priority DESC, id) WHERE run_at IS NULL;
CREATE INDEX live_due ON floor.live (run_at) WHERE run_at IS NOT NULL;

CREATE TABLE floor.history (
	id uuid NOT NULL,
	created_at timestamptz NOT NULL,
	queue_id int NOT NULL,
	priority int NOT NULL,
	state floor.job_state NOT NULL,
	attempt int NOT NULL,
	max_retries int NOT NULL,
	timeout_ms int NOT NULL,
	created_by regrole NOT NULL,
	finished_at timestamptz NOT NULL,
	expires_at timestamptz NOT NULL,
	started_at timestamptz,
	worker text,
	server text,
	method text NOT NULL,
	job_type text,
	metadata jsonb,
	progress jsonb,
	errors jsonb,
	reason text,
	payload jsonb NOT NULL,
	result jsonb
);

CREATE INDEX history_id ON floor.history (id);
