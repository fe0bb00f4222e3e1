#!/usr/bin/python3
"""A worker for qml, with psycopg 3:

    worker.py NAME QUEUE...
    worker.py --enqueue QUEUE METHOD PAYLOAD    enqueues a job and prints its id

The connection comes from PGDATABASE, PGHOST and so on; QML_LEASE is the lease in seconds.
SIGTERM ends the worker after its current job; it releases the others that it holds.
"""

import os
import random
import signal
import sys
import threading
import time
import traceback

import psycopg
from psycopg.errors import DeadlockDetected, SerializationFailure
from psycopg.rows import namedtuple_row
from psycopg.types.json import Jsonb

BATCH = 10
LEASE = float(os.environ.get("QML_LEASE", "60"))  # seconds; a heartbeat comes each third
OPTIONS = {"autocommit": True, "prepare_threshold": None}  # poolers may not keep statements
WAIT = 5  # seconds; SIGTERM takes effect after the wait, so it is short

stopping = threading.Event()
held = {}  # attempts by id, of the jobs that this worker holds


def send_receipt(conn, order):
    """A job in the database: what it writes commits together with the end of the job."""
    row = conn.execute(
        "UPDATE orders SET receipt_sent = true WHERE id = %s RETURNING customer", (order,)
    ).fetchone()
    if row is None:
        raise LookupError(f"there is no order {order}")
    return {"sent_to": row.customer}


def check_log(conn, path):
    """A job outside: the log of another program, any bytes, must begin with "ok"."""
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        log = file.read()
    if not log.startswith("ok"):
        raise ValueError(log)
    return {"characters": len(log)}


METHODS = {"send_receipt": send_receipt, "check_log": check_log}


def do(conn, job):
    """The _many functions pass over a job that is not ours any more: that is no error."""
    try:
        with conn.transaction():
            result = METHODS[job.method](conn, **job.payload)
            conn.execute("SELECT qml_succeed(%s, %s, %s)", (job.id, job.attempt, Jsonb(result)))
    except (SerializationFailure, DeadlockDetected):  # another transaction was in the way
        release(conn, {job.id: job.attempt})
    except Exception as e:
        sql = "SELECT qml_fail_many(%s, %s::int[], %s, %s, %s)"
        error = [clean(str(e))], [type(e).__name__], [clean(traceback.format_exc())]
        conn.execute(sql, ([job.id], [job.attempt], *error))


def clean(text):
    """Without what PostgreSQL does not accept: zero characters and lone surrogates."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


def release(conn, claims):
    """Gives jobs back; their attempts do not count."""
    conn.execute(
        "SELECT qml_release_many(%s::uuid[], %s::int[])", (list(claims), list(claims.values()))
    )


def beat():
    """Extends the leases, on a connection of its own: the others are busy."""
    conn = None
    while True:
        time.sleep(LEASE / 3)
        claims = dict(held)
        if not claims:
            continue
        try:
            if conn is None or conn.closed:
                conn = psycopg.connect(**OPTIONS)
            kept = conn.execute(
                "SELECT id FROM qml_heartbeat_many(%s::uuid[], %s::int[], make_interval(secs => %s))",
                (list(claims), list(claims.values()), LEASE),
            ).fetchall()
            for id in claims.keys() - {row[0] for row in kept}:
                if held.get(id) == claims[id]:
                    held.pop(id, None)  # it is not ours any more
        except psycopg.Error as e:
            print(f"no heartbeat: {e}", file=sys.stderr)


def work(conn, waiter, name, queues):
    while not stopping.is_set():
        jobs = conn.execute(
            "SELECT * FROM qml_fetch(%s, %s, %s, make_interval(secs => %s), %s)",
            (name, queues, BATCH, LEASE, list(METHODS)),
        ).fetchall()
        held.update((job.id, job.attempt) for job in jobs)
        for job in jobs:
            if job.id in held and not stopping.is_set():
                do(conn, job)
                held.pop(job.id, None)
        if not jobs:
            sql = "CALL qml_wait(%s, make_interval(secs => %s), %s)"
            waiter.execute(sql, (queues, WAIT, list(METHODS)))


def main():
    name, *queues = sys.argv[1:]
    if name == "--enqueue":
        sql = "SELECT qml_enqueue(queue => %s, method => %s, payload => %s::jsonb)"
        with psycopg.connect() as conn:
            print(conn.execute(sql, queues).fetchone()[0])
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    threading.Thread(target=beat, daemon=True).start()
    pause = 0.1
    while not stopping.is_set():
        try:
            with (
                psycopg.connect(**OPTIONS, row_factory=namedtuple_row) as conn,
                psycopg.connect(**OPTIONS) as waiter,
            ):
                release(conn, dict(held))  # what it held when the last connection was lost
                held.clear()
                pause = 0.1
                work(conn, waiter, name, queues)
                release(conn, dict(held))
        except psycopg.OperationalError as e:
            if (e.sqlstate or "08")[:2] not in ("08", "53", "57"):
                raise
            print(f"no connection: {e}", file=sys.stderr)
            stopping.wait(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, 10)


main()
