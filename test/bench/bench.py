"""What the programs of the benchmark share: sizes, servers, sessions, rounds, results.

test/bench/run starts each program with the built extension in $BENCH_BIN and a directory of
its own in $WORK.  A program prints what it is at, and adds a line of JSON for each row of the
table to $BENCH_RESULTS.  test/bench/report.py judges and prints them.
"""

import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time

import psycopg

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
WORK = os.environ.get("WORK", "")
QUICK = os.environ.get("QUICK", "") not in ("", "0")

# Nothing waits for a disk, so that processor time is compared with processor time.  A commit is
# handed to the kernel all the same, because qml does that for a claim whatever the setting.
FAST = """
fsync = off
synchronous_commit = on
full_page_writes = off
wal_level = minimal
max_wal_senders = 0
max_wal_size = 16GB
checkpoint_timeout = 1h
shared_buffers = 1GB
autovacuum = off
"""

# As it is in use: the other settings are PostgreSQL's own.
DURABLE = """
fsync = on
synchronous_commit = on
max_wal_size = 16GB
checkpoint_timeout = 1h
shared_buffers = 1GB
"""

PAYLOAD = '{"customer": 4711, "template": "welcome"}'


def size(full, quick):
    """A number of the full run, or that of "make bench QUICK=1"."""
    return quick if QUICK else full


def say(text):
    print("   " + text, flush=True)


# ---- results


def record(**line):
    with open(os.environ["BENCH_RESULTS"], "a", encoding="utf-8") as results:
        results.write(json.dumps(line) + "\n")


def left_out_when_quick(number, measure, why, goals=1):
    """True, with a line about it, in "make bench QUICK=1"."""
    if QUICK:
        leave_out(number, measure, f"with QUICK: {why}", goals)
    return QUICK


def is_met(value, goal):
    relation, limit = goal.split()
    return value >= float(limit) if relation == ">=" else value <= float(limit)


def row(number, measure, value, unit, floor=None, ratio=None, goal=None, detail=None, versus=None, readme=None):
    """A row of the table.  The goal (">= 0.95") is for the ratio where there is one, else for
    the value.  FLOOR is what the value is compared with; VERSUS is whose that is, unless it is
    qml's own.  README: what the row is called in the figures of README.md, if it is one of them."""
    judged = value if ratio is None else ratio
    met = None if goal is None else is_met(judged, goal)
    record(row=number, measure=measure, value=value, unit=unit, floor=floor, ratio=ratio, goal=goal,
           met=met, detail=detail, versus=versus, readme=readme)
    say(f"{number or '-'} {measure}: {value:.4g} {unit}"
        + ("" if floor is None else f", floor {floor:.4g}")
        + ("" if ratio is None else f", ratio {ratio:.2f}")
        + ("" if goal is None else f", goal {goal}: {'met' if met else 'MISSED'}")
        + ("" if detail is None else f" ({detail})"))


def leave_out(number, measure, why, goals=0):
    """A line for rows that cannot be measured here, with so many goals.  Only what is not installed,
    or means nothing with small sizes, is left out; what does not work must fail."""
    record(row=number, measure=measure, left_out=why, goals=goals)
    say(f"{number or '-'} {measure}: left out, {why}")


def compare(number, measure, unit, ours, theirs, goal=None, detail=None, versus=None, readme=None):
    """A row from two lists of values of the same rounds: medians, and the median of the ratios,
    which what disturbs the machine for a while changes least."""
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    row(number, measure, statistics.median(ours), unit, floor=statistics.median(theirs), ratio=ratio,
        goal=goal, detail=detail, versus=versus, readme=readme)


def in_turns(rounds, seconds, sides, one_round):
    """Calls one_round(side) for each side, in the other order in each other round; stops after
    SECONDS, but not before three rounds."""
    begin = time.monotonic()
    for number in range(rounds):
        if number >= 3 and time.monotonic() - begin > seconds:
            say(f"the time is over after {number} rounds")
            break
        for side in sides if number % 2 == 0 else reversed(sides):
            one_round(side)
        say(f"round {number + 1} of {rounds}")


# ---- servers and sessions


def bash(script, *arguments, stdin=""):
    subprocess.run(["bash", "-euo", "pipefail", "-c",
                    f'. "{TOP}/test/lib.sh"; . "{TOP}/test/server.sh"; ' + script, "bench", *arguments],
                   input=stdin, text=True, check=True)


@contextlib.contextmanager
def server(name, conf, preload="qml", extension=True, port=5432):
    """A throw-away server with the settings; PGHOST and so on lead to it."""
    binaries = os.environ["BENCH_BIN"]
    conf = f"shared_preload_libraries = '{preload}'\nclient_min_messages = warning\n" + conf
    bash('server_create "$1" "$2" postgres', name, binaries, stdin=conf)
    start(name, port)
    os.environ.update(PGHOST=f"{WORK}/s", PGPORT=str(port), PGUSER="postgres", PGDATABASE="postgres")
    try:
        if extension:
            with connect() as conn:
                conn.execute("CREATE EXTENSION qml")
        yield data_of(name)
    finally:
        stop(name)
        shutil.rmtree(data_of(name))


def data_of(name):
    return f"{WORK}/data-{name}"


def start(name, port=5432):
    bash('server_start "$1" "$2" "$3"', name, os.environ["BENCH_BIN"], str(port))


def stop(name):
    bash('server_stop "$1" "$2"', name, os.environ["BENCH_BIN"])


@contextlib.contextmanager
def snapshot():
    """A snapshot that is held, without any lock."""
    with connect() as holder:
        holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        holder.execute("SELECT 1")
        yield


@contextlib.contextmanager
def awake():
    """Keeps the processors from sleeping.  Between a client and a server that take turns, each waits for the other to wake
    up, and a virtual processor that sleeps takes longer for that than a call does.  Of the scheduler's idle class, which
    gives way to all others at once."""
    spinners = [subprocess.Popen(["chrt", "--idle", "0", sys.executable, "-c", "while True: pass"])
                for _ in range(os.cpu_count())]
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


def remove(data):
    shutil.rmtree(data)


def connect(**options):
    return psycopg.connect("", autocommit=True, **options)


def value(conn, query, *parameters):
    return conn.execute(query, parameters or None).fetchone()[0]


def wait_until(conn, query, *parameters, seconds=120):
    limit = time.monotonic() + seconds
    while not value(conn, query, *parameters):
        if time.monotonic() > limit:
            raise TimeoutError(f"not in {seconds} s: {query}")
        time.sleep(0.02)


def claim(conn, queue, jobs):
    """Claims that nobody ends."""
    for _ in range(0, jobs, 10000):
        conn.execute("SELECT count(*) FROM qml_fetch('bench', %s, %s)", (queue, min(10000, jobs)))


def configure(conn, name, setting):
    """Changes a setting of the server, and waits until sessions see it."""
    loaded = value(conn, "SELECT pg_conf_load_time()")
    conn.execute(f"ALTER SYSTEM SET {name} = '{setting}'")
    conn.execute("SELECT pg_reload_conf()")
    wait_until(conn, "SELECT pg_conf_load_time() > %s", loaded)


def clear(conn):
    conn.execute("TRUNCATE qml.live, qml.history, qml.history_overflow")


def enqueue(conn, queue, jobs, method="bench.job", payload=PAYLOAD, **options):
    """Jobs of one queue, 10,000 a transaction."""
    more = "".join(f", {name} => {text}" for name, text in options.items())
    for done in range(0, jobs, 10000):
        conn.execute(f"SELECT count(*) FROM qml_enqueue_many(%s, array_fill(%s::jsonb, ARRAY[%s]), %s{more})",
                     (method, payload, min(10000, jobs - done), queue))


PROCEDURES = """
-- Fetches and finishes jobs in batches, each in a transaction, until so many are done.
CREATE PROCEDURE drain(queue text, jobs int, batch int) LANGUAGE plpgsql AS $$
DECLARE
	many int;
BEGIN
	WHILE jobs > 0 LOOP
		SELECT count(*) INTO many
		FROM (SELECT array_agg(id) AS ids, array_agg(attempt) AS attempts
			FROM qml_fetch('bench', queue, least(batch, jobs))) f,
			LATERAL qml_succeed_many(ids, attempts);
		COMMIT;
		IF many = 0 THEN
			RAISE '% jobs are missing', jobs;
		END IF;
		jobs := jobs - many;
	END LOOP;
END $$;
-- The pages that a statement touches, without planning it.
CREATE FUNCTION buffers(statement text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	plan json;
BEGIN
	EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) ' || statement INTO plan;
	RETURN (plan->0->'Plan'->>'Shared Hit Blocks')::bigint + (plan->0->'Plan'->>'Shared Read Blocks')::bigint;
END $$;
"""


# ---- programs beside us


def pgbench(script, clients, calls=None, seconds=None, threads=2, variables=None, rate=None, log=None, count=1):
    """Runs a script of test/bench/sql, CALLS times in all, and returns transactions a second.
    COUNT: so many processes at once, each with these clients."""
    command = ["pgbench", "-n", "-M", "prepared", "-f", script if "/" in script else f"{HERE}/sql/{script}.sql",
               "-c", str(clients), "-j", str(min(clients, threads))]
    command += ["-t", str(calls // clients // count)] if calls else ["-T", str(seconds)]
    for name, text in (variables or {}).items():
        command += ["-D", f"{name}={text}"]
    if rate:
        command += ["-R", str(rate)]
    if log:
        command += ["-l", "--log-prefix", log]
    begun = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
             for _ in range(count)]
    total = 0.0
    for process in begun:
        out, _ = process.communicate()
        found = re.search(r"^tps = ([0-9.]+)", out, re.M)
        if process.returncode != 0 or not found or "aborted" in out:
            raise RuntimeError(f"{' '.join(command)}\n{out}")
        total += float(found[1])
    return total


def why_no_node():
    """Why the programs of test/bench/node cannot run; None: they can."""
    try:
        with open(f"{WORK}/node/absent", encoding="utf-8") as why:
            return why.read().strip()
    except FileNotFoundError:
        return None


def node(program, *arguments, environment=None):
    """What a program of test/bench/node prints."""
    done = subprocess.run(["node_modules/.bin/node", f"{program}.mjs", *map(str, arguments)], cwd=f"{WORK}/node",
                          env={**os.environ, **(environment or {})}, capture_output=True, text=True, timeout=900)
    if done.returncode != 0:
        raise RuntimeError(f"{program}.mjs {arguments}: {done.stderr[-3000:]}")
    return done.stdout.strip()


@contextlib.contextmanager
def in_background(function):
    """Runs function(ending) in a thread, until the block ends; an error there is one here."""
    ending = threading.Event()
    errors = []

    def work():
        try:
            function(ending)
        except BaseException as error:  # told below
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()
    if errors:
        raise errors[0]


def percentile(values, part):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]
