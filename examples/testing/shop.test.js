// Tests of jobs with Jest and pg.
//
// Each test is a transaction that is rolled back: no worker sees its jobs, and nothing is left.
// The connection comes from PGDATABASE, PGHOST and so on; its user is the role of the handlers.
//
//     PGUSER=shop jest --config jest.config.js

const { Client } = require('pg');

let db;

const query = async (text, ...values) => (await db.query(text, values)).rows;

const enqueue = async (method, queue, payload) =>
  (await query('SELECT qml_enqueue($1, $2, queue => $3) AS id', method, payload, queue))[0].id;

// Runs a job here and now, and returns it as it is afterwards.
const run = async (id) => (await query('SELECT * FROM qml_run($1)', id))[0];

// Runs all jobs that there are, and those that they make; returns how many.
const drain = async (scheduled = false) =>
  (await query('SELECT qml_drain(scheduled => $1) AS count', scheduled))[0].count;

const receipts = async () =>
  (await query('SELECT customer FROM receipts')).map((row) => row.customer);

beforeAll(async () => {
  db = new Client();
  await db.connect();
});

afterAll(() => db.end());

beforeEach(async () => {
  await query('BEGIN');
  await query("INSERT INTO orders VALUES (1, 'Ada')");
});

afterEach(() => query('ROLLBACK'));

test('a job', async () => {
  const job = await run(await enqueue('send_receipt', 'mail', { order: 1 }));
  expect(job).toMatchObject({ state: 'succeeded', result: 'Ada' });
  expect(await receipts()).toEqual(['Ada']);
});

test('a job that fails', async () => {
  const job = await run(await enqueue('ship', 'orders', { order: 2 }));
  expect(job).toMatchObject({ state: 'awaiting_retry', error: 'there is no order 2' });
  expect(job.errors[0].error_type).toBe('P0002');
  // What it did is undone, and the transaction goes on.
  expect(await drain()).toBe(0);
  // The next attempt, without waiting for its time.
  await query("INSERT INTO orders VALUES (2, 'Bob')");
  expect(await run(job.id)).toMatchObject({ state: 'succeeded', tries: 2 });
});

test('jobs that make jobs', async () => {
  await enqueue('ship', 'orders', { order: 1 });
  expect(await drain()).toBe(2);
  expect(await receipts()).toEqual(['Ada']);
  // The reminder of tomorrow.
  expect(await drain(true)).toBe(1);
  expect(await receipts()).toEqual(['Ada', 'Ada']);
});

test('a worker outside the database', async () => {
  const id = await enqueue('print_label', 'orders', { order: 1 });
  const [job] = await query("SELECT * FROM qml_fetch_job($1, 'test')", id);
  expect(job).toMatchObject({ method: 'print_label', payload: { order: 1 }, attempt: 1 });
  const [{ state }] = await query("SELECT qml_fail($1, $2, 'out of paper') AS state", id, job.attempt);
  expect(state).toBe('awaiting_retry');
});

test('nothing is left', async () => {
  await query('ROLLBACK');
  expect(await query('SELECT count(*)::int FROM qml.job')).toEqual([{ count: 0 }]);
});
