#!/usr/bin/python3
"""A worker for qml, with asyncpg:

    worker_asyncpg.py NAME QUEUE...
    worker_asyncpg.py --enqueue QUEUE METHOD PAYLOAD    enqueues a job and prints its id

The connection comes from PGDATABASE, PGHOST and so on; QML_LEASE is the lease in seconds.
SIGTERM ends the worker after its current job; it releases the others that it holds.
"""

import asyncio
import json
import os
import random
import signal
import sys
import traceback
from datetime import timedelta

import asyncpg

BATCH = 10
LEASE = timedelta(seconds=float(os.environ.get("QML_LEASE", "60")))  # a heartbeat each third
WAIT = timedelta(seconds=30)  # SIGTERM ends it
# The last one comes when a connection is lost while a statement is prepared.
asyncpg_errors = asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError
held = {}  # attempts by id, of the jobs that this worker holds


async def send_receipt(conn, order):
    """A job in the database: what it writes commits together with the end of the job."""
    customer = await conn.fetchval(
        "UPDATE orders SET receipt_sent = true WHERE id = $1 RETURNING customer", order
    )
    if customer is None:
        raise LookupError(f"there is no order {order}")
    return {"sent_to": customer}


async def check_log(conn, path):
    """A job outside: the log of another program, any bytes, must begin with "ok"."""
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        log = file.read()
    if not log.startswith("ok"):
        raise ValueError(log)
    return {"characters": len(log)}


METHODS = {"send_receipt": send_receipt, "check_log": check_log}


async def connect():
    # Without named statements, which some poolers do not support.
    return await asyncpg.connect(statement_cache_size=0)


async def do(conn, job):
    """The _many functions pass over a job that is not ours any more: that is no error."""
    try:
        async with conn.transaction():
            result = await METHODS[job["method"]](conn, **json.loads(job["payload"]))
            sql = "SELECT qml_succeed($1, $2, $3)"
            await conn.execute(sql, job["id"], job["attempt"], json.dumps(result))
    except (asyncpg.SerializationError, asyncpg.DeadlockDetectedError):  # another was in the way
        await release(conn, {job["id"]: job["attempt"]})
    except Exception as e:
        error = [clean(str(e))], [type(e).__name__], [clean(traceback.format_exc())]
        sql = "SELECT qml_fail_many($1, $2, $3, $4, $5)"
        await conn.execute(sql, [job["id"]], [job["attempt"]], *error)


def clean(text):
    """Without what PostgreSQL does not accept: zero characters and lone surrogates."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


async def release(conn, claims):
    """Gives jobs back; their attempts do not count."""
    await conn.execute("SELECT qml_release_many($1, $2)", list(claims), list(claims.values()))


async def beat():
    """Extends the leases, on a connection of its own: the others are busy."""
    conn = None
    while True:
        await asyncio.sleep(LEASE.total_seconds() / 3)
        claims = dict(held)
        if not claims:
            continue
        try:
            if conn is None or conn.is_closed():
                conn = await connect()
            sql = "SELECT id FROM qml_heartbeat_many($1, $2, $3)"
            rows = await conn.fetch(sql, list(claims), list(claims.values()), LEASE)
            for id in claims.keys() - {row["id"] for row in rows}:
                if held.get(id) == claims[id]:
                    del held[id]  # it is not ours any more
        except (OSError, *asyncpg_errors) as e:
            print(f"no heartbeat: {e}", file=sys.stderr)


async def work(conn, waiter, stop, name, queues):
    methods = list(METHODS)
    while not stop.done():
        sql = "SELECT * FROM qml_fetch($1, $2::text[], $3, $4, $5)"
        jobs = await conn.fetch(sql, name, queues, BATCH, LEASE, methods)
        held.update((job["id"], job["attempt"]) for job in jobs)
        for job in jobs:
            if job["id"] in held and not stop.done():
                await do(conn, job)
                held.pop(job["id"], None)
        if not jobs:
            sql = "CALL qml_wait($1::text[], $2, $3)"
            wait = asyncio.create_task(waiter.execute(sql, queues, WAIT, methods))
            await asyncio.wait([wait, stop], return_when=asyncio.FIRST_COMPLETED)
            wait.result() if wait.done() else wait.cancel()


async def main(name, *queues):
    if name == "--enqueue":
        sql = "SELECT qml_enqueue(queue => $1, method => $2, payload => $3)"
        print(await (await connect()).fetchval(sql, *queues))
        return
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    stop = asyncio.create_task(stopping.wait())
    beats = asyncio.create_task(beat())
    pause = 0.1
    while not stop.done():
        conns = []
        try:
            conns += [await connect(), await connect()]
            await release(conns[0], held)  # what it held when the last connection was lost
            held.clear()
            pause = 0.1
            await work(*conns, stop, name, queues)
            await release(conns[0], held)
        except (OSError, *asyncpg_errors) as e:
            if (getattr(e, "sqlstate", None) or "08")[:2] not in ("08", "53", "57"):
                raise
            print(f"no connection: {e}", file=sys.stderr)
            await asyncio.wait([stop], timeout=pause * random.uniform(0.5, 1))
            pause = min(2 * pause, 10)
        finally:
            for conn in conns:
                conn.terminate()
    beats.cancel()


asyncio.run(main(*sys.argv[1:]))
