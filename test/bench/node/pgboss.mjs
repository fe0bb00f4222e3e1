// pg-boss.  Its type definitions and its documentation (docs/api/workers.md) give the settings: ten
// workers in one process (localConcurrency), which fetch again at once while batches are full
// (burstWhenBatchFull), on a pool of ten connections, its default.  Nothing is maintained meanwhile.
import { PgBoss } from "pg-boss";
import { main } from "./measure.mjs";

const { PGHOST, PGPORT, PGUSER, PGDATABASE } = process.env;
const QUEUE = "peers";
const WORKERS = { localConcurrency: 10, burstWhenBatchFull: true, pollingIntervalSeconds: 0.5 };

await main(async ({ client, count }) => {
	const boss = new PgBoss({
		host: PGHOST,
		port: Number(PGPORT),
		user: PGUSER,
		database: PGDATABASE,
		max: 10,
		supervise: false,
		schedule: false,
	});
	const errors = [];

	boss.on("error", (error) => errors.push(error));
	await boss.start();
	return {
		setup: () => boss.createQueue(QUEUE),
		clear: () => client.query("TRUNCATE pgboss.job"),
		enqueue: (payloads) => boss.insert(QUEUE, payloads.map((data) => ({ data }))),
		unfinished: () => count("pgboss.job WHERE state < 'completed'"),
		finished: () => count("pgboss.job WHERE state = 'completed'"),

		async work(ledger, batchSize) {
			await boss.work(QUEUE, { ...WORKERS, batchSize }, async (jobs) => {
				await Promise.all(jobs.map(({ data }) => ledger.run(data)));
			});
			await ledger.allRan;
			return async () => {
				await boss.offWork(QUEUE);
				if (errors.length > 0) throw errors[0];
			};
		},

		close: () => boss.stop(),
	};
});
