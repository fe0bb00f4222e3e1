#!/usr/bin/env python3
"""qml in the harness postgresql-job-queue-benchmarking: one process that enqueues and works, and prints
samples as lines of JSON.  README.md says how to run it."""

import asyncio
import collections
import datetime
import json
import math
import os
import signal
import sys
import time

import psycopg

QUEUE = "long_horizon_bench"
WINDOW = 30.0
LOST = (psycopg.OperationalError, psycopg.InterfaceError)


def number(name, default):
    return int(os.environ.get(name, default))


INSTANCE = number("BENCH_INSTANCE_ID", 0)
SAMPLE_EVERY = number("SAMPLE_EVERY_S", 5)
RATE = number("PRODUCER_RATE", 800)
MODE = os.environ.get("PRODUCER_MODE", "fixed")
PACING = os.environ.get("PRODUCER_PACING", "adapter")
BATCH_MAX = number("PRODUCER_BATCH_MAX", 128)
BATCH_SECONDS = number("PRODUCER_BATCH_MS", 25) / 1000
TARGET_DEPTH = number("TARGET_DEPTH", 1000)
WORKERS = number("WORKER_COUNT", 32)
WORK_SECONDS = number("JOB_WORK_MS", 1) / 1000
PADDING = "x" * max(0, number("JOB_PAYLOAD_BYTES", 256) - 96)
FETCH = number("SUBSCRIBER_BATCH_SIZE", max(1, min(64, math.ceil(RATE * 1.25 / max(1, 2 * WORKERS)))))

ENQUEUE = "SELECT count(*) FROM qml_enqueue_many('bench', ARRAY(SELECT jsonb_array_elements(%s::jsonb)), %s)"
SUCCEED_FETCH = ("SELECT id, attempt, payload FROM qml_succeed_fetch_many(%s::uuid[], %s::int[], worker => %s, "
                 "queues => %s, batch => %s)")
SUCCEED = "SELECT count(*) FROM qml_succeed_many(%s::uuid[], %s::int[])"


def emit(**record):
    print(json.dumps({"instance_id": INSTANCE, "system": "qml", **record}), flush=True)


def timestamp():
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Latencies:
    """The last values, of which those of the window count; bounded."""

    def __init__(self):
        self.values = collections.deque(maxlen=32768)

    def add(self, milliseconds):
        self.values.append((time.monotonic(), milliseconds))

    def percentiles(self):
        since = time.monotonic() - WINDOW
        values = sorted(value for at, value in self.values if at >= since)
        return [values[min(len(values) - 1, int(part * len(values)))] if values else 0.0 for part in (0.5, 0.95, 0.99)]


class Bench:
    def __init__(self):
        self.ending = asyncio.Event()
        self.enqueued = self.completed = self.depth = self.sequence = 0
        self.rate = float(RATE)
        self.producing, self.claiming, self.whole = Latencies(), Latencies(), Latencies()

    async def connect(self):
        """A connection; tried again while the server is not there."""
        while True:
            try:
                return await psycopg.AsyncConnection.connect(os.environ["DATABASE_URL"], autocommit=True)
            except LOST as error:
                if self.ending.is_set():
                    raise
                print(f"[qml] {error}", file=sys.stderr)
                await asyncio.sleep(0.2)

    async def connected(self, turn):
        """Calls turn(connection) until the end, with a new connection where one is lost."""
        conn = await self.connect()
        while not self.ending.is_set():
            try:
                await turn(conn)
            except LOST as error:
                print(f"[qml] {error}", file=sys.stderr)
                await conn.close()
                conn = await self.connect()
        return conn

    # ---- the producer

    async def enqueue(self, conn, jobs):
        now = int(time.time() * 1000)
        payloads = [{"seq": self.sequence + n, "enqueued_at_ms": now, "payload_padding": PADDING} for n in range(jobs)]
        begin = time.monotonic()
        await conn.execute(ENQUEUE, (json.dumps(payloads), QUEUE))
        self.producing.add((time.monotonic() - begin) * 1000 / jobs)
        self.sequence += jobs
        self.enqueued += jobs

    async def produce_as_told(self):
        """ENQUEUE n, a line each, on standard input."""
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

        async def turn(conn):
            line = await reader.readline()
            if not line:
                await self.ending.wait()
            elif line.startswith(b"ENQUEUE "):
                await self.enqueue(conn, int(line.split()[1]))

        await self.connected(turn)

    async def produce_by_rate(self):
        """Credit grows with the clock, however long a turn takes."""
        last, credit = time.monotonic(), 0.0

        async def turn(conn):
            nonlocal last, credit
            self.rate = float(self.controlled_rate())
            now = time.monotonic()
            credit += self.rate * (now - last)
            last = now
            jobs = min(BATCH_MAX, int(credit))
            if jobs > 0:
                await self.enqueue(conn, jobs)
                credit -= jobs
            else:
                await asyncio.sleep(BATCH_SECONDS)

        await self.connected(turn)

    async def produce_by_depth(self):
        async def turn(conn):
            jobs = min(BATCH_MAX, TARGET_DEPTH - await self.measure_depth(conn))
            if jobs > 0:
                await self.enqueue(conn, jobs)
            else:
                await asyncio.sleep(BATCH_SECONDS)

        await self.connected(turn)

    @staticmethod
    def controlled_rate():
        file = os.environ.get("PRODUCER_RATE_CONTROL_FILE")
        if not file:
            return RATE
        try:
            with open(file, encoding="utf-8") as text:
                return float(text.read())
        except (OSError, ValueError):
            # It is being written.
            return RATE

    # ---- the workers

    async def work(self, name):
        ids, attempts = [], []

        async def turn(conn):
            nonlocal ids, attempts
            rows = await (await conn.execute(SUCCEED_FETCH, (ids, attempts, name, QUEUE, FETCH))).fetchall()
            self.completed += len(ids)
            ids, attempts = [row[0] for row in rows], [row[1] for row in rows]
            begun = time.time() * 1000
            for _, _, payload in rows:
                self.claiming.add(begun - payload["enqueued_at_ms"])
            if not rows:
                await conn.execute("CALL qml_wait(%s, '1 s')", (QUEUE,))
                return
            if WORK_SECONDS:
                await asyncio.sleep(WORK_SECONDS * len(rows))
            done = time.time() * 1000
            for _, _, payload in rows:
                self.whole.add(done - payload["enqueued_at_ms"])

        conn = await self.connected(turn)
        if ids:
            await conn.execute(SUCCEED, (ids, attempts))
            self.completed += len(ids)
        await conn.close()

    # ---- samples

    async def measure_depth(self, conn):
        row = await (await conn.execute("SELECT qml_queue_depth(%s)", (QUEUE,))).fetchone()
        self.depth = row[0]
        return self.depth

    async def watch_depth(self):
        async def turn(conn):
            await self.measure_depth(conn)
            await asyncio.sleep(0.25)

        await self.connected(turn)

    async def sample(self):
        await asyncio.sleep(SAMPLE_EVERY - time.time() % SAMPLE_EVERY)
        enqueued, completed, last = self.enqueued, self.completed, time.monotonic()
        while not self.ending.is_set():
            await asyncio.sleep(SAMPLE_EVERY - time.time() % SAMPLE_EVERY)
            now = time.monotonic()
            metrics = [("enqueue_rate", (self.enqueued - enqueued) / (now - last), SAMPLE_EVERY),
                       ("completion_rate", (self.completed - completed) / (now - last), SAMPLE_EVERY)]
            enqueued, completed, last = self.enqueued, self.completed, now
            for name, latencies in (("producer", self.producing), ("subscriber", self.claiming), ("claim", self.claiming),
                                    ("end_to_end", self.whole)):
                metrics += [(f"{name}_{part}_ms", value, WINDOW)
                            for part, value in zip(("p50", "p95", "p99"), latencies.percentiles())]
            # Of the whole, so one process tells it for all.
            if INSTANCE == 0:
                metrics += [("queue_depth", self.depth, 0), ("producer_target_rate", self.rate, 0)]
            at = timestamp()
            for metric, value, window in metrics:
                emit(t=at, kind="adapter", subject_kind="adapter", subject="", metric=metric, value=value, window_s=window)

    async def run(self):
        loop = asyncio.get_running_loop()
        for which in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(which, self.ending.set)
        conn = await self.connect()
        try:
            await conn.execute("SELECT qml_create_queue(%s)", (QUEUE,))
        except psycopg.errors.DuplicateObject:
            # Another replica, or a run before.
            pass
        row = await (await conn.execute("SELECT extversion FROM pg_extension WHERE extname = 'qml'")).fetchone()
        emit(kind="descriptor", event_tables=["qml.live"], extensions=["qml"], version=f"qml {row[0]}", schema_version=row[0],
             db_name=conn.info.dbname, started_at=timestamp())
        await conn.close()
        if MODE == "depth-target":
            producer = self.produce_by_depth()
        elif PACING == "harness":
            producer = self.produce_as_told()
        else:
            producer = self.produce_by_rate()
        helpers = [asyncio.create_task(task) for task in (producer, self.sample())]
        if INSTANCE == 0:
            helpers.append(asyncio.create_task(self.watch_depth()))
        workers = [asyncio.create_task(self.work(f"bench-{INSTANCE}-{n}")) for n in range(WORKERS)]
        # An error of any of them is the end.
        await asyncio.wait([asyncio.create_task(self.ending.wait()), *helpers, *workers], return_when=asyncio.FIRST_COMPLETED)
        self.ending.set()
        await asyncio.gather(*workers)
        for task in helpers:
            task.cancel()
        results = await asyncio.gather(*helpers, return_exceptions=True)
        for error in results:
            if isinstance(error, Exception) and not isinstance(error, asyncio.CancelledError):
                raise error


if __name__ == "__main__":
    if os.environ.get("SCENARIO", "long_horizon") != "long_horizon":
        sys.exit("the only scenario is long_horizon")
    asyncio.run(Bench().run())
