// pg-boss.  Its type definitions and its documentation (docs/api/workers.md) give the settings: ten
// workers in one process (localConcurrency), which fetch again at once while batches are full
// (burstWhenBatchFull), on a pool of ten connections, its default.  That is ignored for single jobs:
// there, they do so while jobs were ready when they were last counted (burstWhenReadyExceeds).
// Nothing is maintained meanwhile.
import assert from "node:assert/strict";
import { PgBoss } from "pg-boss";
import { main } from "./measure.mjs";

const { PGHOST, PGPORT, PGUSER, PGDATABASE } = process.env;
const QUEUE = "peers";
const WORKERS = { localConcurrency: 10, pollingIntervalSeconds: 0.5 };

await main(async ({ client, count }) => {
	const options = {
		host: PGHOST,
		port: Number(PGPORT),
		user: PGUSER,
		database: PGDATABASE,
		max: 10,
		supervise: false,
		schedule: false,
	};
	const errors = [];
	const begun = async () => {
		const boss = new PgBoss(options);

		boss.on("error", (error) => errors.push(error));
		return boss.start();
	};
	const boss = await begun();

	return {
		setup: () => boss.createQueue(QUEUE),
		clear: () => client.query("TRUNCATE pgboss.job"),
		enqueue: (payloads) => boss.insert(QUEUE, payloads.map((data) => ({ data }))),
		unfinished: () => count("pgboss.job WHERE state < 'completed'"),
		finished: () => count("pgboss.job WHERE state = 'completed'"),

		async work(ledger, batchSize) {
			// It reads what was counted when it starts.
			await boss.supervise(QUEUE);
			const worker = await begun();
			const [{ readyCount }] = await worker.getQueues(QUEUE);
			const burst = batchSize > 1 ? { burstWhenBatchFull: true } : { burstWhenReadyExceeds: 1 };

			assert.ok(batchSize > 1 || readyCount > 1, "the jobs were not counted");
			await worker.work(QUEUE, { ...WORKERS, ...burst, batchSize }, async (jobs) => {
				await Promise.all(jobs.map(({ data }) => ledger.run(data)));
			});
			await ledger.allRan;
			return async () => {
				await worker.stop();
				if (errors.length > 0) throw errors[0];
			};
		},

		close: () => boss.stop(),
	};
});
