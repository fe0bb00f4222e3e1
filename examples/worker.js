#!/usr/bin/env node
/* A worker for qml, with node-postgres (pg):
 *
 *     worker.js NAME QUEUE...
 *     worker.js --enqueue QUEUE METHOD PAYLOAD    enqueues a job and prints its id
 *
 * The connection comes from PGDATABASE, PGHOST and so on; QML_LEASE is the lease in seconds.
 * SIGTERM ends the worker after its current job; it releases the others that it holds.
 */
'use strict';

const { readFile } = require('node:fs/promises');
const { setTimeout: sleep } = require('node:timers/promises');
const { Client, DatabaseError } = require('pg');

const BATCH = 10;
const LEASE = Number(process.env.QML_LEASE ?? 60); // seconds; a heartbeat comes each third
const WAIT = 30; // seconds; SIGTERM ends it

const held = new Map(); // attempts by id, of the jobs that this worker holds
let stopping = false;
const stopped = new Promise((resolve) => {
  process.on('SIGTERM', resolve).on('SIGINT', resolve);
}).then(() => { stopping = true; });

const METHODS = {
  // A job in the database: what it writes commits together with the end of the job.
  async send_receipt(client, { order }) {
    const { rows } = await client.query(
      'UPDATE orders SET receipt_sent = true WHERE id = $1 RETURNING customer', [order]);
    if (rows.length === 0) throw new RangeError(`there is no order ${order}`);
    return { sent_to: rows[0].customer };
  },

  // A job outside: the log of another program, any bytes, must begin with "ok".
  async check_log(client, { path }) {
    const log = await readFile(path, 'utf8');
    if (!log.startsWith('ok')) throw new Error(log);
    return { characters: log.length };
  },
};

async function connect() {
  const client = new Client().on('error', () => {}); // the next query says it as well
  await client.connect();
  return client;
}

// The _many functions pass over a job that is not ours any more: that is no error.
async function doJob(client, { id, attempt, method, payload }) {
  try {
    await client.query('BEGIN');
    const result = await METHODS[method](client, payload);
    await client.query('SELECT qml_succeed($1, $2, $3)', [id, attempt, JSON.stringify(result)]);
    await client.query('COMMIT');
  } catch (e) {
    await client.query('ROLLBACK'); // an error here: the connection is lost
    if (['40001', '40P01'].includes(e.code)) return release(client, [[id, attempt]]); // a conflict
    await client.query('SELECT qml_fail_many($1::uuid[], $2::int[], $3, $4, $5)',
      [[id], [attempt], [clean(String(e.message))], [e.name], [clean(String(e.stack))]]);
  }
}

// Without zero characters and lone surrogates, which PostgreSQL does not accept.
function clean(text) {
  return Buffer.from(text.replaceAll('\0', ''), 'utf8').toString('utf8');
}

// Gives jobs back; their attempts do not count.
async function release(client, claims = [...held]) {
  await client.query('SELECT qml_release_many($1::uuid[], $2::int[])',
    [claims.map(([id]) => id), claims.map(([, attempt]) => attempt)]);
  for (const [id] of claims) held.delete(id);
}

// Extends the leases, on a connection of its own: the others are busy.
async function beat() {
  let client;
  for (;;) {
    await sleep(LEASE * 1000 / 3);
    if (held.size === 0) continue;
    try {
      client ??= await connect();
      const claims = [...held];
      const { rows } = await client.query(
        'SELECT id FROM qml_heartbeat_many($1::uuid[], $2::int[], make_interval(secs => $3))',
        [claims.map(([id]) => id), claims.map(([, attempt]) => attempt), LEASE]);
      for (const [id, attempt] of claims) { // those that are missing are not ours any more
        if (!rows.some((row) => row.id === id) && held.get(id) === attempt) held.delete(id);
      }
    } catch (e) {
      console.error(`no heartbeat: ${e.message}`);
      client?.end().catch(() => {});
      client = undefined;
    }
  }
}

async function work(client, waiter, name, queues) {
  const methods = Object.keys(METHODS);
  while (!stopping) {
    const { rows } = await client.query(
      'SELECT * FROM qml_fetch($1, $2::text[], $3, make_interval(secs => $4), $5)',
      [name, queues, BATCH, LEASE, methods]);
    for (const job of rows) held.set(job.id, job.attempt);
    for (const job of rows) {
      if (stopping || !held.has(job.id)) continue;
      await doJob(client, job);
      held.delete(job.id);
    }
    if (rows.length > 0) continue;
    const wait = waiter.query(
      'CALL qml_wait($1::text[], make_interval(secs => $2), $3)', [queues, WAIT, methods]);
    wait.catch(() => {}); // if SIGTERM was first
    await Promise.race([wait, stopped]);
  }
}

async function main([name, ...queues]) {
  if (name === '--enqueue') {
    const client = await connect();
    const { rows } = await client.query(
      'SELECT qml_enqueue(queue => $1, method => $2, payload => $3::jsonb) AS id', queues);
    console.log(rows[0].id);
    return client.end();
  }
  beat();
  let pause = 100; // milliseconds
  while (!stopping) {
    const clients = [];
    try {
      clients.push(await connect(), await connect());
      await release(clients[0]); // what it held when the last connection was lost
      pause = 100;
      await work(...clients, name, queues);
      await release(clients[0]);
    } catch (e) {
      // An SQLSTATE of another class is a mistake, such as a right that is missing.
      if (e instanceof DatabaseError && !/^(08|53|57)/.test(e.code)) throw e;
      console.error(`no connection: ${e.message}`);
      await Promise.race([sleep(pause * (0.5 + Math.random() / 2)), stopped]);
      pause = Math.min(2 * pause, 10000);
    } finally {
      for (const client of clients) client.end().catch(() => {});
    }
  }
  process.exit(0);
}

main(process.argv.slice(2));
