/* A worker for qml, with libpq:
 *
 *     worker NAME QUEUE
 *     worker --enqueue QUEUE METHOD PAYLOAD    enqueues a job and prints its id
 *
 * The connection comes from PGDATABASE, PGHOST and so on; QML_LEASE is the lease in seconds.
 * SIGTERM ends the worker after its current job; it releases the others that it holds.
 *
 *     cc -o worker worker.c -I$(pg_config --includedir) -lpq -lpthread
 *
 * C has neither JSON nor arrays: the server takes payloads apart, and makes the lists of claims.
 */
#include "worker_util.h" /* statements, claims and heartbeats, signals, texts */
#include <poll.h>

#define METHODS			"{send_receipt,check_log}"
#define BATCH			"10"
#define WAIT			"5 s" /* SIGTERM takes effect after the wait, so it is short */
#define STATE_IS(class) (strncmp(sqlstate, class, strlen(class)) == 0)

static const int ID = 2, ATTEMPT = 3, METHOD = 4, ORDER = 5, PATH = 6; /* columns of a batch */
static const char *name, *queue;

/* A job in the database: what it writes commits together with the end of the job.  Like other
 * methods, returns JSON, or NULL after fail(). */
static char *
send_receipt(PGconn *conn, const char *order)
{
	PGresult *row = run(conn,
						"UPDATE orders SET receipt_sent = true WHERE id = $1::int "
						"RETURNING jsonb_build_object('sent_to', customer)",
						1, order);
	char *result = NULL;

	if (PQntuples(row) == 1)
		result = strdup(PQgetvalue(row, 0, 0));
	else if (row)
		fail("", format("there is no order %s", order));
	PQclear(row);
	return result;
}

/* A job outside: the log of another program, any bytes, must begin with "ok". */
static char *
check_log(const char *path)
{
	size_t size;
	char *log = read_file(path, &size), *result = NULL;

	if (log && strncmp(log, "ok", 2) == 0)
		result = format("{\"bytes\": %zu}", size);
	else
		fail("", log ? clean(log, size) : format("cannot read %s", path));
	free(log);
	return result;
}

/* False, here and below: the connection is lost, or a statement was refused. */
static bool
do_job(PGconn *conn, PGresult *jobs, int i)
{
	const char *id = PQgetvalue(jobs, i, ID), *attempt = PQgetvalue(jobs, i, ATTEMPT);
	char *result = NULL;
	bool ended;

	if (execute(conn, "BEGIN", 0))
		result = strcmp(PQgetvalue(jobs, i, METHOD), "send_receipt") == 0 ?
					 send_receipt(conn, PQgetvalue(jobs, i, ORDER)) :
					 check_log(PQgetvalue(jobs, i, PATH));
	ended = result && execute(conn, "SELECT qml_succeed($1, $2, $3)", 3, id, attempt, result) &&
			execute(conn, "COMMIT", 0);
	free(result);
	if (ended || !execute(conn, "ROLLBACK", 0))
		return ended;
	if (STATE_IS("40001") || STATE_IS("40P01")) /* another transaction was in the way */
		return execute(conn, "SELECT qml_release_many(ARRAY[$1::uuid], ARRAY[$2::int])", 2, id,
					   attempt);
	return execute(conn, "SELECT qml_fail_many(ARRAY[$1::uuid], ARRAY[$2::int], ARRAY[$3])", 3, id,
				   attempt, message);
}

static bool
work(PGconn *conn, PGconn *waiter)
{
	while (!stopping)
	{
		PGresult *jobs = run(conn,
							 "SELECT array_agg(id) OVER (), array_agg(attempt) OVER (), "
							 "id, attempt, method, payload ->> 'order', payload ->> 'path' "
							 "FROM qml_fetch($1, $2, $3, make_interval(secs => $4), $5)",
							 5, name, queue, BATCH, lease, METHODS);

		if (!jobs)
			return false;
		hold(jobs);
		for (int i = 0; i < PQntuples(jobs) && !stopping; i++)
			if (!do_job(conn, jobs, i))
				return false;
		if (PQntuples(jobs) == 0 &&
			!execute(waiter, "CALL qml_wait($1, $2, $3)", 3, queue, WAIT, METHODS))
			return false;
	}
	return true;
}

int
main(int argc, char **argv)
{
	double pause = 0.1;

	if (argc == 5 && strcmp(argv[1], "--enqueue") == 0)
	{
		PGresult *id = run(PQconnectdb(""),
						   "SELECT qml_enqueue(queue => $1, method => $2, payload => $3)", 3,
						   argv[2], argv[3], argv[4]);

		return puts(id ? PQgetvalue(id, 0, 0) : message) < 0 || !id;
	}
	if (argc != 3)
		return 2;
	name = argv[1];
	queue = argv[2];
	catch_signals();
	start_beats();
	while (!stopping)
	{
		PGconn *conn = PQconnectdb(""), *waiter = PQconnectdb("");
		bool well = execute(waiter, "SELECT", 0) && release_held(conn); /* of the last one */

		pause = well ? 0.1 : pause;
		well = well && work(conn, waiter) && release_held(conn);
		PQfinish(waiter);
		PQfinish(conn);
		if (!well)
		{
			fprintf(stderr, "%s", message);
			if (!STATE_IS("08") && !STATE_IS("53") && !STATE_IS("57"))
				return 1; /* a mistake, such as a right that is missing */
			poll(NULL, 0, (int) (1000 * pause * (0.5 + drand48() / 2)));
			pause = pause < 5 ? 2 * pause : 10;
		}
	}
	return 0;
}
