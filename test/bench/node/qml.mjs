// qml, with node-postgres alone.
//
// SIZE 1 is one job a call: a job ends and the next one is fetched in one statement and one commit.  Each connection
// has several jobs in hand, and sends what ends one of them while the statement of another one runs, as
// doc/workers.md advises.  WAY "async" is the same for a queue of the class async, WAY "single" one job in hand on
// each of ten connections.  Another SIZE is that of a batch, of which each of ten connections has one in hand.
import { setTimeout as sleep } from "node:timers/promises";
import { MANY, TEN, main, onConnections } from "./measure.mjs";

// Where commits do not wait, a connection for each processor, and one more, is enough.
const FEW = { connections: 3, inHand: 4 };
const WAYS = { single: TEN, async: FEW };

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

	async work(ledger, size, way) {
		const stop = await onConnections(size === 1 ? (WAYS[way] ?? MANY) : TEN, (client, i) =>
			size === 1
				? workOneByOne(client, `peers-${i}`, ledger)
				: workInBatches(client, `peers-${i}`, ledger, size),
		);
		// Every job is acknowledged here.  The peers' time ends earlier, with the last job that ran.
		ledger.finish();
		return stop;
	},

	close: () => {},
}));
