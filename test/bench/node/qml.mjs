// qml, with node-postgres alone: ten connections, which each hold one job, or one batch.
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { main } from "./measure.mjs";

const CLIENTS = 10;

// Prepared once a connection, as the peers' statements are.
const prepared = (name, text) => (values) => ({ name, text, values });
const ENQUEUE = prepared(
	"enqueue",
	`SELECT id FROM qml_enqueue_many(
		'peers', ARRAY(SELECT jsonb_array_elements($1::jsonb)), 'peers') AS id`,
);
const FETCH = prepared(
	"fetch",
	"SELECT id, attempt, method, payload FROM qml_fetch($1, 'peers', 1)",
);
const SUCCEED_FETCH = prepared(
	"succeed_fetch",
	`SELECT id, attempt, method, payload
		FROM qml_succeed_fetch($1, $2, worker => $3, queues => 'peers')`,
);
const SUCCEED_FETCH_MANY = prepared(
	"succeed_fetch_many",
	`SELECT id, attempt, method, payload
		FROM qml_succeed_fetch_many($1, $2, worker => $3, queues => 'peers', batch => $4)`,
);

async function workOneByOne(client, worker, ledger) {
	let { rows } = await client.query(FETCH([worker]));

	while (rows.length > 0) {
		const [{ id, attempt, payload }] = rows;
		await ledger.run(payload);
		({ rows } = await client.query(SUCCEED_FETCH([id, attempt, worker])));
	}
}

async function workInBatches(client, worker, ledger, size) {
	let rows = [];

	do {
		await Promise.all(rows.map(({ payload }) => ledger.run(payload)));
		const ids = rows.map(({ id }) => id);
		const attempts = rows.map(({ attempt }) => attempt);
		({ rows } = await client.query(SUCCEED_FETCH_MANY([ids, attempts, worker, size])));
		if (rows.length === 0) await sleep(2);
	} while (rows.length > 0 || !ledger.isOver());
}

// The storage class of the queue: "durable" where QML_STORAGE does not say another one.
const { QML_STORAGE } = process.env;
const OPTIONS = QML_STORAGE ? { storage: QML_STORAGE } : {};

await main(({ client, count }) => ({
	setup: () => client.query("SELECT qml_create_queue('peers', $1)", [OPTIONS]),
	clear: () => client.query("TRUNCATE qml.live, qml.history, qml.history_overflow"),
	enqueue: (payloads) => client.query(ENQUEUE([JSON.stringify(payloads)])),
	unfinished: () => count("qml.live"),
	finished: () => count("qml.history WHERE state = 'succeeded'"),

	async work(ledger, size) {
		const clients = Array.from({ length: CLIENTS }, () => new pg.Client());

		await Promise.all(clients.map((c) => c.connect()));
		await Promise.all(
			clients.map((c, i) =>
				size === 1
					? workOneByOne(c, `peers-${i}`, ledger)
					: workInBatches(c, `peers-${i}`, ledger, size),
			),
		);
		// Every job is acknowledged here.  The peers' time ends earlier, with the last job that ran.
		ledger.finish();
		return () => Promise.all(clients.map((c) => c.end()));
	},

	close: () => {},
}));
