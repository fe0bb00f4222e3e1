// PgQ: one consumer, which gets batches of events as the ticker cuts them, and finishes a batch as a whole.  It is no
// job queue: nothing is retried or known of a single event.  The ticker is called as often as the consumer needs it.
import { main } from "./measure.mjs";

const QUEUE = "peers";

await main(({ client, count }) => {
	let enqueued = 0;
	let done = 0;
	const tick = () => client.query("SELECT pgq.force_tick($1), pgq.ticker($1)", [QUEUE]);

	return {
		setup: () => client.query("CREATE EXTENSION pgq"),
		async clear() {
			await client.query("DO $$ BEGIN PERFORM pgq.drop_queue('peers', true) FROM pgq.queue WHERE queue_name = 'peers'; END $$");
			await client.query("SELECT pgq.create_queue($1)", [QUEUE]);
			await client.query("SELECT pgq.register_consumer($1, 'c')", [QUEUE]);
		},
		async enqueue(payloads) {
			await client.query(
				`SELECT count(pgq.insert_event($1, 'peers', p::text))
					FROM jsonb_array_elements($2::jsonb) p`,
				[QUEUE, JSON.stringify(payloads)],
			);
			enqueued += payloads.length;
		},
		unfinished: () => enqueued - done,

		async work(ledger) {
			await tick();
			while (done < enqueued) {
				const { rows } = await client.query({ name: "next", text: "SELECT pgq.next_batch($1, 'c') AS batch", values: [QUEUE] });
				const batch = rows[0].batch;
				if (batch === null) {
					await tick();
					continue;
				}
				const events = await client.query({ name: "events", text: "SELECT ev_data FROM pgq.get_batch_events($1)", values: [batch] });
				await Promise.all(events.rows.map(({ ev_data }) => ledger.run(JSON.parse(ev_data))));
				done += events.rows.length;
				await client.query({ name: "finish", text: "SELECT pgq.finish_batch($1)", values: [batch] });
			}
			ledger.finish();
			return () => {};
		},

		close: () => {},
	};
});
