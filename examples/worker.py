#!/usr/bin/python3
"""A worker for qml, with psycopg 3:

    worker.py NAME QUEUE...

The connection comes from PGDATABASE, PGHOST and so on. SIGTERM ends the worker after its current
job and releases the others that it holds.
"""

import signal
import sys
import threading
import time
import traceback

import psycopg
from psycopg.rows import namedtuple_row
from psycopg.types.json import Jsonb

BATCH = 10
LEASE = "5 minutes"
HEARTBEAT = 60  # seconds
WAIT = "5 seconds"  # SIGTERM takes effect after the wait, so it is short
LOST = ("QM001", "QM003")  # the job is not ours any more
CONFLICT = ("40001", "40P01")  # another transaction was in the way
TRIES = 3  # of a transaction that had a conflict

stopping = threading.Event()
held = {}  # attempts by id, of the jobs that this worker holds


def send_receipt(conn, order):
    """Does a job. What it writes through conn commits together with the end of the job."""
    row = conn.execute(
        "UPDATE orders SET receipt_sent = true WHERE id = %s RETURNING customer", (order,)
    ).fetchone()
    if row is None:
        raise LookupError(f"there is no order {order}")
    return {"sent_to": row.customer}


METHODS = {"send_receipt": send_receipt}


def do(conn, job):
    method = METHODS.get(job.method)
    if method is None:
        call(conn, "qml_fail(%s, %s, %s, retry => false)", job.id, job.attempt,
             f"unknown method {job.method}")
        return
    for left in reversed(range(TRIES)):
        try:
            with conn.transaction():
                result = method(conn, **job.payload)
                conn.execute("SELECT qml_succeed(%s, %s, %s)", (job.id, job.attempt, Jsonb(result)))
            return
        except Exception as e:
            sqlstate = getattr(e, "sqlstate", None)
            if conn.broken:
                raise
            if sqlstate in LOST:
                return  # what it wrote is rolled back
            if sqlstate in CONFLICT and left > 0:
                continue
            call(conn, "qml_fail(%s, %s, %s, %s, %s)", job.id, job.attempt, clean(str(e)),
                 type(e).__name__, clean(traceback.format_exc()))
            return


def call(conn, function, *args):
    """Calls a function for a job. If another worker has it by now, forget the job."""
    try:
        conn.execute("SELECT " + function, args)
    except psycopg.Error as e:
        if e.sqlstate not in LOST:
            raise
        held.pop(args[0], None)


def clean(text):
    """Removes what PostgreSQL does not accept: zero characters and lone surrogates."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


def beat():
    """Extends the leases, on a connection of its own: the other one is busy during a job."""
    while True:
        time.sleep(HEARTBEAT)
        try:
            with psycopg.connect(autocommit=True) as conn:
                for id, attempt in list(held.items()):
                    call(conn, "qml_heartbeat(%s, %s, %s)", id, attempt, LEASE)
        except psycopg.Error as e:
            print(f"no heartbeat: {e}", file=sys.stderr)


def release_held(conn):
    for id, attempt in list(held.items()):
        call(conn, "qml_release(%s, %s)", id, attempt)
        held.pop(id, None)


def work(conn, name, queues):
    while not stopping.is_set():
        jobs = conn.execute(
            "SELECT * FROM qml_fetch(%s, %s, %s, %s)", (name, queues, BATCH, LEASE)
        ).fetchall()
        if not jobs:
            conn.execute("CALL qml_wait(%s, %s)", (queues, WAIT))
        held.update((job.id, job.attempt) for job in jobs)
        for job in jobs:
            if job.id in held and not stopping.is_set():
                do(conn, job)
                held.pop(job.id, None)


def main():
    name, *queues = sys.argv[1:]
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    threading.Thread(target=beat, daemon=True).start()
    while not stopping.is_set():
        try:
            with psycopg.connect(autocommit=True, row_factory=namedtuple_row) as conn:
                release_held(conn)  # what it held when the last connection was lost
                work(conn, name, queues)
                release_held(conn)
        except psycopg.OperationalError as e:
            if (e.sqlstate or "08")[:2] not in ("08", "53", "57"):
                raise
            print(f"no connection: {e}", file=sys.stderr)
            stopping.wait(1)


main()
