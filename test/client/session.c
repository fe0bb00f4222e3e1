/*-------------------------------------------------------------------------
 *
 * session.c
 *	  Connection, event log and random numbers of the stress-test client.
 *
 * An event is one line in a file opened for append and goes out in one
 * write(2), so a killed client leaves whole lines only.  The fields are
 * separated by tabs: time, client, event, job id, attempt, state, detail;
 * a field that does not apply is "-".
 *
 * A statement ends in one of three ways (see Outcome).  A FATAL report counts
 * as no answer: the server ends the session with it, and what the statement
 * did is for the checker to find out.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "client.h"

#define BACKOFF_FIRST_MS 10
#define BACKOFF_LAST_MS	 500

double
now_seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (double) ts.tv_sec + (double) ts.tv_nsec / 1e9;
}

void
sleep_ms(double ms)
{
	struct timespec ts;

	if (ms <= 0)
		return;
	ts.tv_sec = (time_t) (ms / 1000);
	ts.tv_nsec = (long) ((ms - (double) ts.tv_sec * 1000) * 1e6);
	nanosleep(&ts, NULL);
}

/* splitmix64: a seed repeats the run's choices on every machine. */
uint64_t
random_next(Session *session)
{
	uint64_t z = (session->random += UINT64_C(0x9E3779B97F4A7C15));

	z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
	return z ^ (z >> 31);
}

double
random_fraction(Session *session)
{
	return (double) (random_next(session) >> 11) / (double) (UINT64_C(1) << 53);
}

int
random_below(Session *session, int limit)
{
	return (int) (random_next(session) % (uint64_t) limit);
}

/* One of a list that is separated by commas. */
void
choose_from(Session *session, const char *list, char *chosen, size_t size)
{
	const char *end;
	int n = 1;

	for (const char *p = list; *p; p++)
		n += (*p == ',');
	for (n = random_below(session, n); n > 0; n--)
		list = strchr(list, ',') + 1;
	end = strchr(list, ',');
	snprintf(chosen, size, "%.*s", end != NULL ? (int) (end - list) : (int) strlen(list), list);
}

void
session_open(Session *session, const Options *opt)
{
	char path[LINE_MAX_LEN];

	memset(session, 0, sizeof(*session));
	session->opt = opt;
	session->random = opt->seed;
	session->deadline = now_seconds() + opt->max_seconds;

	snprintf(path, sizeof(path), "%s/%s.log", opt->log_dir, opt->name);
	session->log_fd = open(path, O_WRONLY | O_APPEND | O_CREAT, 0666);
	if (session->log_fd < 0)
	{
		fprintf(stderr, "could not open \"%s\": %s\n", path, strerror(errno));
		exit(2);
	}
}

/* The stop file is there, or the time is up. */
bool
session_over(Session *session)
{
	if (session->opt->stop_file != NULL && access(session->opt->stop_file, F_OK) == 0)
		return true;
	return now_seconds() >= session->deadline;
}

static void
forget_result(Session *session)
{
	PQclear(session->result);
	session->result = NULL;
}

static void
disconnect(Session *session)
{
	forget_result(session);
	PQfinish(session->conn);
	session->conn = NULL;
}

/* Only the first connection gets --first-options. */
static PGconn *
connect_once(const Session *session)
{
	const Options *opt = session->opt;
	bool first = session->generation == 0 && opt->first_options != NULL;
	const char *keywords[] = {"dbname", "application_name", first ? "options" : NULL, NULL};
	const char *values[] = {opt->conninfo, opt->name, opt->first_options, NULL};

	return PQconnectdbParams(keywords, values, 1);
}

/*
 * Connects unless connected; tries until session_over().  False: gave up.
 */
bool
session_connect(Session *session)
{
	double backoff = BACKOFF_FIRST_MS;

	if (session->conn != NULL)
		return true;

	while (!session_over(session))
	{
		session->conn = connect_once(session);
		if (PQstatus(session->conn) == CONNECTION_OK)
		{
			session->generation++;
			return true;
		}
		disconnect(session);
		sleep_ms(backoff);
		backoff = backoff * 2 < BACKOFF_LAST_MS ? backoff * 2 : BACKOFF_LAST_MS;
	}
	return false;
}

/* Prepares the statement at its first use in each connection. */
static PGresult *
execute_prepared(Session *session, Statement *stmt, const char *const *values)
{
	PGresult *result;

	if (stmt->prepared_in != session->generation)
	{
		result = PQprepare(session->conn, stmt->name, stmt->sql, stmt->nparams, NULL);
		if (PQresultStatus(result) != PGRES_COMMAND_OK)
			return result;
		PQclear(result);
		stmt->prepared_in = session->generation;
	}
	return PQexecPrepared(session->conn, stmt->name, stmt->nparams, values, NULL, NULL, 0);
}

/* ERROR leaves the session usable, FATAL and PANIC do not. */
static bool
ends_session(const PGresult *result)
{
	const char *severity;

	severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);
	return severity == NULL || strcmp(severity, "ERROR") != 0;
}

/*
 * Runs one statement; its result can be read until the next one.  After
 * OUTCOME_LOST the session is disconnected.
 */
Outcome
session_run(Session *session, Statement *stmt, const char *const *values)
{
	const char *sqlstate;
	ExecStatusType status;

	forget_result(session);
	if (session->opt->prepared && stmt->name != NULL)
		session->result = execute_prepared(session, stmt, values);
	else
		session->result = PQexecParams(session->conn, stmt->sql, stmt->nparams, NULL, values, NULL,
									   NULL, 0);

	status = PQresultStatus(session->result);
	if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK)
	{
		strcpy(session->sqlstate, "00000");
		return OUTCOME_OK;
	}

	sqlstate = PQresultErrorField(session->result, PG_DIAG_SQLSTATE);
	snprintf(session->sqlstate, SQLSTATE_LEN, "%s", sqlstate != NULL ? sqlstate : "08006");
	if (PQstatus(session->conn) == CONNECTION_OK && !ends_session(session->result))
		return OUTCOME_ERROR;

	session->count.lost++;
	disconnect(session);
	return OUTCOME_LOST;
}

const char *
session_value(Session *session, int row, int column)
{
	return PQgetvalue(session->result, row, column);
}

void
session_close(Session *session)
{
	disconnect(session);
	close(session->log_fd);
}

void
log_event(Session *session, const char *event, const char *id, const char *attempt,
		  const char *state, const char *detail, ...)
{
	char line[LINE_MAX_LEN];
	int len;
	va_list args;

	len = snprintf(line, sizeof(line), "%.6f\t%s\t%s\t%s\t%s\t%s\t", now_seconds(),
				   session->opt->name, event, id != NULL ? id : "-",
				   attempt != NULL ? attempt : "-", state != NULL ? state : "-");
	va_start(args, detail);
	len += vsnprintf(line + len, sizeof(line) - (size_t) len, detail, args);
	va_end(args);
	if (len > (int) sizeof(line) - 2)
		len = (int) sizeof(line) - 2;
	line[len++] = '\n';

	if (write(session->log_fd, line, (size_t) len) != len)
	{
		/* a record that cannot be kept makes the run worthless */
		fprintf(stderr, "could not write to the event log: %s\n", strerror(errno));
		exit(2);
	}
}
