"""Tests of jobs with pytest and psycopg 3.

Each test is a transaction that is rolled back: no worker sees its jobs, and nothing is left.
The connection comes from PGDATABASE, PGHOST and so on; its user is the role of the handlers.

    PGUSER=shop pytest test_shop.py
"""

import psycopg
import pytest
from psycopg.rows import namedtuple_row
from psycopg.types.json import Jsonb


@pytest.fixture(name="db")
def fixture_db():
    """A connection in a transaction, with one order."""
    with psycopg.connect(row_factory=namedtuple_row) as conn:
        conn.execute("INSERT INTO orders VALUES (1, 'Ada')")
        yield conn
        conn.rollback()


def enqueue(db, method, queue, payload):
    return db.execute(
        "SELECT qml_enqueue(%s, %s, queue => %s) AS id", (method, Jsonb(payload), queue)
    ).fetchone().id


def run(db, job):
    """Runs a job here and now, and returns it as it is afterwards."""
    return db.execute("SELECT * FROM qml_run(%s)", (job,)).fetchone()


def drain(db, **options):
    """Runs all jobs that there are, and those that they make; returns how many."""
    return db.execute(
        "SELECT qml_drain(scheduled => %s) AS count", (options.get("scheduled", False),)
    ).fetchone().count


def receipts(db):
    return [row.customer for row in db.execute("SELECT customer FROM receipts")]


def test_a_job(db):
    job = run(db, enqueue(db, "send_receipt", "mail", {"order": 1}))
    assert job.state == "succeeded"
    assert job.result == "Ada"
    assert receipts(db) == ["Ada"]


def test_a_job_that_fails(db):
    job = run(db, enqueue(db, "ship", "orders", {"order": 2}))
    assert job.state == "awaiting_retry"
    assert job.error == "there is no order 2"
    assert job.errors[0]["error_type"] == "P0002"
    # What it did is undone, and the transaction goes on.
    assert drain(db) == 0
    # The next attempt, without waiting for its time.
    db.execute("INSERT INTO orders VALUES (2, 'Bob')")
    job = run(db, job.id)
    assert (job.state, job.tries) == ("succeeded", 2)


def test_jobs_that_make_jobs(db):
    enqueue(db, "ship", "orders", {"order": 1})
    assert drain(db) == 2
    assert receipts(db) == ["Ada"]
    # The reminder of tomorrow.
    assert drain(db, scheduled=True) == 1
    assert receipts(db) == ["Ada", "Ada"]


def test_a_worker_outside_the_database(db):
    """A method without a handler: the test is the worker."""
    job = enqueue(db, "print_label", "orders", {"order": 1})
    job = db.execute("SELECT * FROM qml_fetch_job(%s, 'test')", (job,)).fetchone()
    assert (job.method, job.payload, job.attempt) == ("print_label", {"order": 1}, 1)
    state = db.execute(
        "SELECT qml_fail(%s, %s, 'out of paper') AS state", (job.id, job.attempt)
    ).fetchone().state
    assert state == "awaiting_retry"


def test_nothing_is_left():
    with psycopg.connect() as conn:
        assert conn.execute("SELECT count(*) FROM qml.job").fetchone() == (0,)
