// The floor from Node: the statements of sql/floor_work_many.sql and sql/floor_enqueue_many.sql, also for one job.
// In one statement, or one transaction, ends and claims of several sessions can deadlock: who skips locked rows
// waits all the same for one that was changed since its snapshot.
import { setTimeout as sleep } from "node:timers/promises";
import { MANY, TEN, main, onConnections } from "./measure.mjs";

const prepared = (name, text) => (values) => ({ name, text, values });
const ENQUEUE = prepared(
	"enqueue",
	`INSERT INTO floor.live (queue_id, method, payload)
		SELECT 1, 'peers', p FROM jsonb_array_elements($1::jsonb) p RETURNING id`,
);
const FETCH = prepared(
	"fetch",
	`WITH picked AS MATERIALIZED (
		SELECT id FROM floor.live
		WHERE queue_id = 1 AND run_at IS NULL AND state = 'enqueued'
		ORDER BY priority DESC, id LIMIT $1 FOR UPDATE SKIP LOCKED)
	UPDATE floor.live l
	SET state = 'processing', attempt = attempt + 1, started_at = now(),
		lease_expires_at = now() + interval '5 min', worker = $2
	FROM picked WHERE l.id = picked.id
	RETURNING l.id, l.attempt, l.payload`,
);
const FINISH = prepared(
	"finish",
	`WITH done AS (
		DELETE FROM floor.live l
		USING unnest($1::uuid[], $2::int[]) AS t(id, attempt)
		WHERE l.id = t.id AND l.attempt = t.attempt AND l.state = 'processing'
		RETURNING l.*)
	INSERT INTO floor.history
	SELECT id, created_at, queue_id, priority, 'succeeded', attempt, max_retries, timeout_ms,
		created_by, now(), now() + interval '24 h', started_at, worker, server, method, job_type,
		metadata, progress, errors, reason, payload, NULL
	FROM done`,
);

async function work(client, worker, ledger, size) {
	let rows;

	do {
		({ rows } = await client.query(FETCH([size, worker])));
		if (rows.length === 0) {
			await sleep(2);
			continue;
		}
		await Promise.all(rows.map(({ payload }) => ledger.run(payload)));
		await client.query(FINISH([rows.map(({ id }) => id), rows.map(({ attempt }) => attempt)]));
	} while (rows.length > 0 || !ledger.isOver());
}

await main(({ client, count }) => ({
	setup: () => {},
	clear: () => client.query("TRUNCATE floor.live, floor.history"),
	enqueue: (payloads) => client.query(ENQUEUE([JSON.stringify(payloads)])),
	unfinished: () => count("floor.live"),
	finished: () => count("floor.history"),

	async work(ledger, size, way) {
		const stop = await onConnections(size === 1 && way !== "single" ? MANY : TEN, (client, i) =>
			work(client, `peers-${i}`, ledger, size),
		);
		ledger.finish();
		return stop;
	},

	close: () => {},
}));
