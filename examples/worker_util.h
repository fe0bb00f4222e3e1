/* What worker.c needs of what is the same in all workers, and what C lacks: statements that
 * keep their error, claims with heartbeats, texts of any length, UTF-8. */
#define _GNU_SOURCE
#include <libpq-fe.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The last error of this thread: 08006 without a connection, "" if it is not of the server. */
static _Thread_local char sqlstate[6];
static _Thread_local char *message;

/* Notes an error; the text is freed. */
static void
fail(const char *state, char *text)
{
	snprintf(sqlstate, sizeof sqlstate, "%s", state);
	free(message);
	message = text;
}

/* Runs a statement with n arguments, texts.  NULL: it failed, see sqlstate and message. */
static PGresult *
run(PGconn *conn, const char *sql, int n, ...)
{
	const char *args[8];
	va_list list;
	PGresult *result;
	ExecStatusType status;
	const char *code;

	va_start(list, n);
	for (int i = 0; i < n; i++)
		args[i] = va_arg(list, const char *);
	va_end(list);
	result = PQexecParams(conn, sql, n, NULL, args, NULL, NULL, 0);
	status = PQresultStatus(result);
	if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK)
		return result;
	code = PQstatus(conn) == CONNECTION_OK ? PQresultErrorField(result, PG_DIAG_SQLSTATE) : NULL;
	fail(code ? code : "08006", strdup(PQerrorMessage(conn)));
	PQclear(result);
	return NULL;
}

/* The same for a statement whose rows are not wanted: whether it succeeded. */
#define execute(...) drop(run(__VA_ARGS__))

static bool
drop(PGresult *result)
{
	bool succeeded = result != NULL;

	PQclear(result);
	return succeeded;
}

static const char *lease = "60"; /* seconds; a heartbeat comes each third */
static PGresult
	*batch; /* the jobs that the worker holds; in the first row all ids and attempts, as arrays */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of batch */

static void
hold(PGresult *jobs)
{
	pthread_mutex_lock(&lock);
	PQclear(batch);
	batch = jobs;
	pthread_mutex_unlock(&lock);
}

/* Gives jobs back, but those that have ended; their attempts do not count. */
static bool
release_held(PGconn *conn)
{
	return PQntuples(batch) == 0 || execute(conn, "SELECT qml_release_many($1, $2)", 2,
											PQgetvalue(batch, 0, 0), PQgetvalue(batch, 0, 1));
}

/* Extends the leases, on a connection of its own: the others are busy. */
static void *
beat(void *unused)
{
	for (PGconn *conn = NULL;;)
	{
		char *ids = NULL, *attempts = NULL;

		usleep((useconds_t) (atof(lease) * 1e6 / 3));
		pthread_mutex_lock(&lock);
		if (PQntuples(batch) > 0)
		{
			ids = strdup(PQgetvalue(batch, 0, 0));
			attempts = strdup(PQgetvalue(batch, 0, 1));
		}
		pthread_mutex_unlock(&lock);
		if (ids && !conn)
			conn = PQconnectdb("");
		if (ids && !execute(conn, "SELECT qml_heartbeat_many($1, $2, make_interval(secs => $3))", 3,
							ids, attempts, lease))
		{
			fprintf(stderr, "no heartbeat: %s", message);
			PQfinish(conn);
			conn = NULL;
		}
		free(ids);
		free(attempts);
	}
	return unused;
}

static void
start_beats(void)
{
	pthread_t thread;

	if (getenv("QML_LEASE"))
		lease = getenv("QML_LEASE");
	if (pthread_create(&thread, NULL, beat, NULL) != 0)
		abort();
}

static volatile sig_atomic_t stopping;

static void
stop(int number)
{
	(void) number;
	stopping = true;
}

static void
catch_signals(void)
{
	signal(SIGTERM, stop);
	signal(SIGINT, stop);
}

/* A text in memory of its own. */
__attribute__((format(printf, 1, 2))) static char *
format(const char *pattern, ...)
{
	char *text;
	va_list list;

	va_start(list, pattern);
	if (vasprintf(&text, pattern, list) < 0)
		abort();
	va_end(list);
	return text;
}

/* The contents of a file, and a zero byte behind them; NULL if it cannot be read. */
static char *
read_file(const char *path, size_t *size)
{
	FILE *file = fopen(path, "rb");
	char *content = NULL;
	size_t n;

	*size = 0;
	if (!file)
		return NULL;
	do
	{
		content = realloc(content, *size + 65537);
		n = fread(content + *size, 1, 65536, file);
		*size += n;
	} while (n > 0);
	content[*size] = 0;
	fclose(file);
	return content;
}

/* The bytes of the character at s, of which left are there; 0: it is not UTF-8. */
static int
utf8_length(const unsigned char *s, size_t left)
{
	static const unsigned lowest[] = {0, 0, 0x80, 0x800, 0x10000};
	int n = *s < 0x80 ? 1 : *s >> 5 == 6 ? 2 : *s >> 4 == 14 ? 3 : *s >> 3 == 30 ? 4 : 0;
	unsigned code = n == 1 ? *s : *s & (0x7F >> n);

	if (n == 0 || (size_t) n > left)
		return 0;
	for (int i = 1; i < n; i++)
	{
		if (s[i] >> 6 != 2)
			return 0;
		code = code << 6 | (s[i] & 0x3F);
	}
	/* Not longer than it must be, not too high, no surrogate. */
	return code >= lowest[n] && code <= 0x10FFFF && code >> 11 != 0x1B ? n : 0;
}

/* A text that PostgreSQL accepts: without zero bytes, and with "?" for what is not UTF-8. */
static char *
clean(const char *text, size_t size)
{
	const unsigned char *in = (const unsigned char *) text, *end = in + size;
	char *copy = malloc(size + 1), *out = copy;

	while (in < end)
	{
		int n = utf8_length(in, (size_t) (end - in));

		if (n == 0)
			*out++ = '?', in++;
		else if (*in == 0)
			in++;
		else
			while (n-- > 0)
				*out++ = (char) *in++;
	}
	*out = 0;
	return copy;
}
