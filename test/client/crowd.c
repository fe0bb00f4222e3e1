/*-------------------------------------------------------------------------
 *
 * crowd.c
 *	  Many sessions that wait for jobs:
 *	  crowd [-t TIMEOUT] [-e] [-l] CONNINFO SESSIONS QUEUES [METHODS]
 *
 * One process opens all connections.  Each session waits, fetches once when it is told that
 * a job may be ready, ends the job, and waits again.  A wait lasts for an hour, or for TIMEOUT, and
 * is followed by another one.  -e: each fetches elsewhere, on another connection.  -l: it ends a
 * job late, after it has fetched the next one.  QUEUES and METHODS are arrays of names.
 * An answer costs the same however many sessions there are: the sockets are in an epoll set.
 *
 * When all wait it prints "waiting".  It ends when its standard input ends, and prints what it
 * counted: one line for each job with the microseconds from its payload {"at": seconds} to
 * the moment at which it was fetched, then "told", "empty" (fetches that got nothing), "errors",
 * and "served": sessions that got a job which says when it was enqueued.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <libpq-fe.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

typedef enum Doing
{
	WAITS,
	FETCHES,
	ENDS,
	GONE
} Doing;

typedef struct Claim
{
	char id[40]; /* empty: none */
	char attempt[12];
} Claim;

typedef struct Waiter
{
	PGconn *conn;
	PGconn *fetcher; /* the same, or another one */
	Claim held;		 /* what it ends late */
	Claim to_end;
	Doing doing;
	bool served;
} Waiter;

static bool ending = false;
static bool elsewhere = false;
static bool late = false;
static const char *timeout = "1 h";
static const char *queues;
static const char *methods;
static long told = 0;
static long empty = 0;
static long errors = 0;
static long served = 0;
static long working = 0; /* sessions that fetch, or end a job */

static double
now_seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (double) ts.tv_sec + (double) ts.tv_nsec / 1e9;
}

static PGconn *
used_by(const Waiter *waiter)
{
	return waiter->doing == WAITS ? waiter->conn : waiter->fetcher;
}

static void
set_doing(Waiter *waiter, Doing doing)
{
	working -= waiter->doing == FETCHES || waiter->doing == ENDS;
	working += doing == FETCHES || doing == ENDS;
	waiter->doing = doing;
}

/* The session is not used any more. */
static void
leave(Waiter *waiter)
{
	set_doing(waiter, GONE);
	if (waiter->fetcher != waiter->conn)
		PQfinish(waiter->fetcher);
	PQfinish(waiter->conn);
	waiter->conn = NULL;
}

static void
send(Waiter *waiter, Doing doing)
{
	const char *to_wait[] = {queues, timeout, methods};
	const char *to_fetch[] = {queues, methods};
	const char *to_end[] = {waiter->to_end.id, waiter->to_end.attempt};
	int sent = 0;

	set_doing(waiter, doing);
	switch (doing)
	{
		case WAITS:
			sent = PQsendQueryParams(waiter->conn,
									 "CALL qml_wait($1::text[], $2::interval, $3::text[])", 3, NULL,
									 to_wait, NULL, NULL, 0);
			break;
		case FETCHES:
			sent = PQsendQueryParams(
				waiter->fetcher,
				late ? "SELECT payload ->> 'at', id, attempt "
					   "FROM qml_fetch('crowd', $1::text[], methods => $2::text[])" :
					   "SELECT payload ->> 'at', qml_succeed(id, attempt) "
					   "FROM qml_fetch('crowd', $1::text[], methods => $2::text[])",
				2, NULL, to_fetch, NULL, NULL, 0);
			break;
		case ENDS:
			sent = PQsendQueryParams(waiter->fetcher, "SELECT qml_succeed($1::uuid, $2::int)", 2,
									 NULL, to_end, NULL, NULL, 0);
			break;
		case GONE:
			break;
	}
	if (!sent)
		leave(waiter);
}

/* Keeps a job that is ended later; what the session does next. */
static Doing
hold(Waiter *waiter, const PGresult *result)
{
	waiter->to_end = waiter->held;
	snprintf(waiter->held.id, sizeof(waiter->held.id), "%s", PQgetvalue(result, 0, 1));
	snprintf(waiter->held.attempt, sizeof(waiter->held.attempt), "%s", PQgetvalue(result, 0, 2));
	return waiter->to_end.id[0] ? ENDS : WAITS;
}

/* Counts an answer; what the session does next. */
static Doing
receive(Waiter *waiter, const PGresult *result)
{
	double at;

	if (PQresultStatus(result) != PGRES_TUPLES_OK)
	{
		/* Whoever kills sessions expects it. */
		errors++;
		if (errors == 1)
			fprintf(stderr, "%s", PQresultErrorMessage(result));
		return GONE;
	}
	if (waiter->doing == WAITS)
	{
		if (*PQgetvalue(result, 0, 0) != 't')
			return WAITS;
		told++;
		return FETCHES;
	}
	if (waiter->doing == FETCHES && PQntuples(result) == 0)
		empty++;
	else if (waiter->doing == FETCHES)
	{
		at = atof(PQgetvalue(result, 0, 0));
		printf("%.0f\n", (now_seconds() - at) * 1e6);
		waiter->served = waiter->served || at > 0;
		if (late)
			return hold(waiter, result);
	}
	return WAITS;
}

/* After the end of the input only the answers to fetches count. */
static void
serve(Waiter *waiter)
{
	PGresult *result;
	Doing next = GONE;

	if (!PQconsumeInput(waiter->conn) || !PQconsumeInput(waiter->fetcher) ||
		(waiter->doing == WAITS && ending))
	{
		leave(waiter);
		return;
	}
	if (PQisBusy(used_by(waiter)))
		return;
	while ((result = PQgetResult(used_by(waiter))) != NULL)
	{
		next = receive(waiter, result);
		PQclear(result);
	}
	if (ending || next == GONE)
		leave(waiter);
	else
		send(waiter, next);
}

static void
fail(const char *what)
{
	fprintf(stderr, "crowd: %s", what);
	exit(1);
}

/* Tells the epoll set of an input; its events name the session, or NULL for the standard input. */
static void
watch(int set, int fd, Waiter *waiter)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = waiter};

	if (epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) != 0)
		fail("cannot watch an input\n");
}

static PGconn *
connect_and_watch(const char *conninfo, int set, Waiter *waiter)
{
	PGconn *conn = PQconnectdb(conninfo);

	if (PQstatus(conn) != CONNECTION_OK)
		fail(PQerrorMessage(conn));
	watch(set, PQsocket(conn), waiter);
	return conn;
}

static void
usage(void)
{
	fprintf(stderr, "usage: crowd [-t TIMEOUT] [-e] [-l] CONNINFO SESSIONS QUEUES [METHODS]\n");
	exit(2);
}

int
main(int argc, char **argv)
{
	const char *conninfo;
	int count;
	Waiter *waiters;
	struct rlimit files;
	int set = epoll_create1(0);
	int option;

	while ((option = getopt(argc, argv, "+t:el")) != -1)
	{
		if (option == 't')
			timeout = optarg;
		else if (option == 'e')
			elsewhere = true;
		else if (option == 'l')
			late = true;
		else
			usage();
	}
	if (argc - optind < 3)
		usage();
	conninfo = argv[optind];
	count = atoi(argv[optind + 1]);
	queues = argv[optind + 2];
	methods = argv[optind + 3]; /* NULL behind the last one */
	waiters = calloc((size_t) count, sizeof(Waiter));
	if (count <= 0 || waiters == NULL || set < 0)
		usage();
	files.rlim_cur = files.rlim_max = (rlim_t) count * 2 + 50;
	(void) setrlimit(RLIMIT_NOFILE, &files);
	for (int i = 0; i < count; i++)
	{
		waiters[i].conn = connect_and_watch(conninfo, set, &waiters[i]);
		waiters[i].fetcher = elsewhere ? connect_and_watch(conninfo, set, &waiters[i]) :
										 waiters[i].conn;
		send(&waiters[i], WAITS);
	}
	watch(set, STDIN_FILENO, NULL);
	printf("waiting\n");
	fflush(stdout);
	while (!ending || working > 0)
	{
		struct epoll_event events[64];
		int n = epoll_wait(set, events, 64, -1);

		if (n < 0 && errno != EINTR)
			fail("cannot wait for an answer\n");
		for (int i = 0; i < n; i++)
		{
			if (events[i].data.ptr)
				serve(events[i].data.ptr);
			else if (!ending)
			{
				ending = true;
				(void) epoll_ctl(set, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
			}
		}
	}
	for (int i = 0; i < count; i++)
		served += waiters[i].served;
	printf("told %ld\nempty %ld\nerrors %ld\nserved %ld\n", told, empty, errors, served);
	return 0;
}
