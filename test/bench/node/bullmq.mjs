// BullMQ on a Redis server that writes to its append-only file and flushes it every second.  SIZE jobs at a
// time in one worker (concurrency), as its documentation advises for jobs that wait for something.  Jobs are
// enqueued by addBulk.  Finished jobs go away (removeOnComplete), which it advises for speed.
import { Queue, Worker } from "bullmq";
import { main } from "./measure.mjs";

const QUEUE = "peers";
const connection = { path: process.env.REDIS_SOCKET };

await main(async () => {
	const queue = new Queue(QUEUE, { connection, defaultJobOptions: { removeOnComplete: true } });

	await queue.waitUntilReady();
	return {
		setup: () => {},
		clear: () => queue.obliterate({ force: true }),
		enqueue: (payloads) => queue.addBulk(payloads.map((data) => ({ name: "peers", data }))),
		unfinished: async () => {
			const { wait, active, delayed } = await queue.getJobCounts("wait", "active", "delayed");
			return wait + active + delayed;
		},

		async work(ledger, size) {
			const worker = new Worker(QUEUE, (job) => ledger.run(job.data), { connection, concurrency: size });
			await ledger.allRan;
			return () => worker.close();
		},

		close: () => queue.close(),
	};
});
