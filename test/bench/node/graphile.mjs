// graphile-worker.  Its documentation gives the settings: https://worker.graphile.org/docs/performance
//
// SIZE 1 is its default, without batching, with as many jobs at once as made it fastest; WAY "batched" is that with the jobs' ends in batches,
// which it advises everybody to do.  Another SIZE is that of the local queue, with the settings of
// its own performance test.  One connection of the pool listens.
import { Logger, makeWorkerUtils, run } from "graphile-worker";
import { main } from "./measure.mjs";

const { PGHOST, PGPORT, PGUSER, PGDATABASE } = process.env;
const connectionString =
	`postgres://${PGUSER}@localhost/${PGDATABASE}` +
	`?host=${encodeURIComponent(PGHOST)}&port=${PGPORT}`;
// A line for each job would be most of the work.
const logger = new Logger(() => () => {});

const ENDS_BATCHED = { completeJobBatchDelay: 0, failJobBatchDelay: 0 };
const concurrentJobs = Number(process.env.GRAPHILE_JOBS ?? 24);
const AT_ONCE = { concurrentJobs, maxPoolSize: concurrentJobs + 1 };
const settings = (size, way) => ({
	...AT_ONCE,
	...(size > 1 ? { localQueue: { size } } : {}),
	...(size > 1 || way === "batched" ? ENDS_BATCHED : {}),
});

await main(async ({ client, count }) => {
	const utils = await makeWorkerUtils({ connectionString, logger });

	return {
		setup: () => utils.migrate(),
		clear: () => client.query("TRUNCATE graphile_worker._private_jobs"),
		enqueue: (payloads) =>
			utils.addJobs(payloads.map((payload) => ({ identifier: "peers", payload }))),
		unfinished: () => count("graphile_worker._private_jobs"),

		async work(ledger, size, way) {
			const runner = await run({
				preset: { worker: { connectionString, logger, ...settings(size, way) } },
				taskList: { peers: (payload) => ledger.run(payload) },
				noHandleSignals: true,
			});
			await ledger.allRan;
			return () => runner.stop();
		},

		close: () => utils.release(),
	};
});
