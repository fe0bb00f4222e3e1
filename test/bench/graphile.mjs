// What qml's workers are measured against: graphile-worker with its local queue,
// and tasks that do nothing.  graphile.mjs URL JOBS: makes the schema if need be,
// works off that many jobs, and prints the seconds that it took.
import { Logger, makeWorkerUtils, run } from "graphile-worker";

const [connectionString, jobs] = process.argv.slice(2);

if (jobs === undefined) {
	const utils = await makeWorkerUtils({ connectionString });
	await utils.migrate();
	await utils.release();
	process.exit(0);
}

let left = Number(jobs);
let finish;
const finished = new Promise((resolve) => {
	finish = resolve;
});
const start = process.hrtime.bigint();
const runner = await run({
	preset: {
		worker: {
			connectionString,
			// A line for each job would be most of the work.
			logger: new Logger(() => () => {}),
			concurrentJobs: 24,
			maxPoolSize: 25,
			localQueue: { size: 500 },
			completeJobBatchDelay: 0,
			failJobBatchDelay: 0,
		},
	},
	taskList: {
		nothing: () => {
			left -= 1;
			if (left === 0) finish();
		},
	},
	noHandleSignals: true,
});
await finished;
await runner.stop();
console.log(Number(process.hrtime.bigint() - start) / 1e9);
