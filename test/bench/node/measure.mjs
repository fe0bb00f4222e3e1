// What the programs that measure one system from Node share.  Each of them is called
//
//     SYSTEM.mjs setup                    makes the schema
//     SYSTEM.mjs enqueue JOBS SIZE        enqueues, SIZE jobs a call, on one connection
//     SYSTEM.mjs work JOBS SIZE [WAY]     works off jobs that were enqueued before
//     SYSTEM.mjs steady JOBS SIZE SECONDS BACKLOG
//                                         works while as many are enqueued as are done
//
// and prints jobs a second; at a steady state it prints [[jobs, seconds], ...] instead.  The first fifth of the jobs comes on top of JOBS, and is not in the
// time: until then connections are made, plans are cached, and code is compiled.  Every job must
// have run exactly once, and the database must say so too; otherwise the program fails.
//
// The connection comes from PGHOST, PGPORT, PGUSER and PGDATABASE.
import assert from "node:assert/strict";
import { writeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";

// A call that enqueues before something else is measured.
const FILLING = 1000;

const now = () => Number(process.hrtime.bigint()) / 1e9;

// As long as that of the other benchmarks, and different for each job.
const payloads = (from, count) =>
	Array.from({ length: count }, (_, i) => ({ customer: from + i, template: "welcome" }));

// Books which jobs ran, and when.
class Ledger {
	#runs;
	#count = 0;
	#warmUp;
	#endless;
	#start;
	#end;
	#resolve;

	// Endless: more jobs may come when there are none.
	constructor(total, warmUp, endless = false) {
		this.#runs = new Uint8Array(total);
		this.#warmUp = warmUp;
		this.#endless = endless;
		// Fulfilled when as many jobs ran as there are.
		this.allRan = new Promise((resolve) => {
			this.#resolve = resolve;
		});
	}

	// The work of a job: an asynchronous function, as workers have them.
	async run({ customer }) {
		this.#runs[customer] += 1;
		this.#count += 1;
		if (this.#count === this.#warmUp) this.#start = now();
		if (this.#count === this.#runs.length) {
			this.#end = now();
			this.#resolve();
		}
	}

	get count() {
		return this.#count;
	}

	// Whether a worker that finds no job can end.
	isOver() {
		return !this.#endless || this.#count >= this.#runs.length;
	}

	// The time ends with the last job that ran, or with a later call of this.
	finish() {
		this.#end = now();
	}

	rate() {
		for (const [customer, runs] of this.#runs.entries()) {
			assert.equal(runs, 1, `job ${customer} ran ${runs} times`);
		}
		return (this.#runs.length - this.#warmUp) / (this.#end - this.#start);
	}
}

async function enqueue(system, jobs, size) {
	const warmUp = Math.ceil(jobs / size / 5);
	const calls = warmUp + Math.ceil(jobs / size);
	let start;

	for (let call = 0; call < calls; call += 1) {
		if (call === warmUp) start = now();
		await system.enqueue(payloads(call * size, size));
	}
	const seconds = now() - start;
	assert.equal(await system.unfinished(), calls * size, "unfinished jobs");
	return ((calls - warmUp) * size) / seconds;
}

async function work(system, client, jobs, size, way) {
	const warmUp = Math.ceil(jobs / 5);
	const total = warmUp + jobs;
	const ledger = new Ledger(total, warmUp);

	for (let done = 0; done < total; done += FILLING) {
		await system.enqueue(payloads(done, Math.min(FILLING, total - done)));
	}
	assert.equal(await system.unfinished(), total, "unfinished jobs before");
	// So that plans fit, and no vacuum of what was there before falls into the time.
	await client.query("VACUUM ANALYZE");
	const stop = await system.work(ledger, size, way);
	// A peer's last acknowledgements may still be on their way.
	for (let tries = 0; tries < 200 && (await system.unfinished()) > 0; tries += 1) await sleep(50);
	await stop();
	const rate = ledger.rate();
	assert.equal(await system.unfinished(), 0, "unfinished jobs");
	// graphile-worker keeps no finished jobs.
	if (system.finished) assert.equal(await system.finished(), total, "finished jobs");
	return rate;
}

// Until all jobs are done, or the time is over.
async function steady(system, jobs, size, seconds, backlog) {
	// Those that are enqueued last need not be done.
	const ledger = new Ledger(jobs + backlog + FILLING, 1, true);
	const marks = [];
	const start = now();
	let made = 0;

	const working = async () => {
		await system.work(ledger, size);
	};
	const failed = new Promise((_, reject) => {
		working().catch(reject);
	});
	const measuring = async () => {
		while (ledger.count < jobs && now() - start < seconds) {
			marks.push([ledger.count, now() - start]);
			if (made < Math.min(ledger.count + backlog, jobs + backlog)) {
				await system.enqueue(payloads(made, FILLING));
				made += FILLING;
			} else {
				await sleep(2);
			}
		}
	};
	await Promise.race([measuring(), failed]);
	marks.push([ledger.count, now() - start]);
	return marks;
}

// All of a text that is longer than a pipe has room for: what console.log() has not written yet is lost at an exit.
function print(text) {
	const bytes = Buffer.from(`${text}\n`);

	for (let done = 0; done < bytes.length; ) {
		try {
			done += writeSync(process.stdout.fd, bytes, done);
		} catch (error) {
			if (error.code !== "EAGAIN") throw error;
		}
	}
}

// How a worker uses node-postgres itself: so many connections, of which each has so many jobs in hand, and
// sends the next statement while one of another job runs.
export const TEN = { connections: 10, inHand: 1 };
// Commits that wait for the disk wait together, so each costs less when there are more of them at once.
export const MANY = { connections: 24, inHand: 2 };

// Calls work(client, number of the client) for each job in hand, until all are done; returns a function that ends
// the connections.
export async function onConnections({ connections, inHand }, work) {
	const clients = Array.from(
		{ length: connections },
		() => new pg.Client({ pipeline: inHand > 1 }),
	);

	await Promise.all(clients.map((client) => client.connect()));
	await Promise.all(
		clients.flatMap((client, i) => Array.from({ length: inHand }, () => work(client, i))),
	);
	return () => Promise.all(clients.map((client) => client.end()));
}

// What a system is: setup(), clear(), enqueue(payloads), unfinished(), finished() where it keeps
// finished jobs, close(), and work(ledger, size, way), which returns when all jobs ran, with a
// function that ends the workers.
export async function main(makeSystem) {
	const [mode, jobs, size, way] = process.argv.slice(2);
	const client = new pg.Client();

	await client.connect();
	const count = async (from) => {
		const { rows } = await client.query(`SELECT count(*)::int AS n FROM ${from}`);
		return rows[0].n;
	};
	const system = await makeSystem({ client, count });
	if (mode === "setup") {
		await system.setup();
	} else if (mode === "steady") {
		await system.clear();
		print(JSON.stringify(await steady(system, ...process.argv.slice(3).map(Number))));
		// Its workers would go on.
		process.exit(0);
	} else {
		await system.clear();
		const rate =
			mode === "enqueue"
				? await enqueue(system, Number(jobs), Number(size))
				: await work(system, client, Number(jobs), Number(size), way);
		console.log(rate.toFixed(0));
	}
	await system.close();
	await client.end();
}
