/*
 * reclaim.c
 *		Reclaiming jobs whose worker is lost.
 *
 * A claim ends by itself in three ways: its lease expires; the session that it is
 * bound to is gone (ipc/session_claim.c); or the server that its worker belongs to
 * sent no heartbeat and is given up (maintenance/server.c).  The job becomes ready
 * again, without backoff, because it is not known to have failed; its attempt counts,
 * so that a job which kills its worker ends.  With no retry left it fails.
 *
 * All such jobs are found by reading qml.live, once for all three reasons: the scheduler
 * does it in pieces (common/walk.c).  A row that moves behind its walk was written by
 * somebody who noted the end of its lease for the scheduler (jobs/writer.c).
 *
 * The worker that held the claim gets QM003 from then on: the attempt in its token is
 * over.  All of it is the caller's transaction.  See maintenance/job_pass.c for what
 * happens to rows that somebody else is changing and to broken ones.
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "common/fault.h"
#include "ipc/beats.h"
#include "ipc/session_claim.h"
#include "jobs/transition.h"
#include "maintenance/dead_server.h"
#include "maintenance/job_pass.h"
#include "maintenance/reclaim.h"
#include "model/catalog.h"

/* Attempts under which the server goes down, after which the job fails. */
#define MAX_SERVERS_DOWN 3

/* The server of a job that is being processed; false: it is not, or has none. */
static bool
read_server(TupleTableSlot *slot, const char **server, int *length)
{
	bool isnull;
	Datum value = slot_getattr(slot, LIVE_SERVER, &isnull);

	if (isnull || qml_job_live_state(slot) != QML_PROCESSING)
		return false;
	*server = VARDATA_ANY(DatumGetTextPP(value));
	*length = VARSIZE_ANY_EXHDR(DatumGetTextPP(value));
	return true;
}

/* Whether the session that a claim is bound to is no longer there. */
static bool
is_session_gone(QmlJobPass *pass, TupleTableSlot *slot)
{
	const char *server;
	int length;

	return read_server(slot, &server, &length) && qml_session_claim_is_gone(server, length);
}

/* What a search for lost jobs knows. */
typedef struct LostSearch
{
	QmlDeadServers *dead; /* NULL: not read yet */
	bool of_server;		  /* the job that was found last is lost with its server */
} LostSearch;

/* Whether the job's server was given up, while it held the job. */
static bool
is_server_dead(LostSearch *search, TupleTableSlot *slot)
{
	const char *server;
	int length;
	bool isnull;

	if (!read_server(slot, &server, &length))
		return false;
	if (search->dead == NULL)
		search->dead = qml_dead_server_read();
	return qml_dead_server_find(search->dead, server, length,
								DatumGetTimestampTz(slot_getattr(slot, LIVE_STARTED_AT, &isnull)));
}

/*
 * Whether a claim has ended: its lease has expired, its server was given up, or its
 * session is gone where there is no lease.
 */
static bool
is_claim_over(QmlJobPass *pass, TupleTableSlot *slot)
{
	LostSearch *search = unconstify(void *, pass->arg);
	TimestampTz lease;
	bool isnull;

	search->of_server = false;
	/* First what is near the beginning of the row: most jobs are waiting. */
	if (qml_job_live_state(slot) == QML_ENQUEUED)
		return false;
	lease = DatumGetTimestampTz(slot_getattr(slot, LIVE_LEASE_EXPIRES_AT, &isnull));
	if (isnull)
		return is_session_gone(pass, slot);
	/* A heartbeat that found the row held is not in it. */
	if (lease <= pass->now)
		lease = qml_beats_end(DatumGetUUIDP(slot_getattr(slot, LIVE_ID, &isnull)),
							  DatumGetInt32(slot_getattr(slot, LIVE_ATTEMPT, &isnull)), lease);
	if (lease <= pass->now)
		return true;
	search->of_server = is_server_dead(search, slot);
	if (!search->of_server && (pass->next_lease == QML_NO_TIME || lease < pass->next_lease))
		pass->next_lease = lease;
	return search->of_server;
}

/* The session did not end because of this job: the attempt does not count. */
static void
give_back(QmlJob *job, TimestampTz now)
{
	qml_transition_set(job, QML_ENQUEUED, now);
	job->uncounted++;
}

/* The job's session is gone; how is known only if it left a note. */
static void
reclaim_from_session(QmlJob *job, TimestampTz now)
{
	char *server;
	QmlJobError error = {0};

	/* A lease that was set to -infinity by hand, which is QML_NO_TIME. */
	if (job->server == (Datum) 0)
	{
		qml_transition_lose(job, "lease expired", "lease_expired", now);
		return;
	}
	server = TextDatumGetCString(job->server);
	switch (qml_session_claim_loss_of(server, &job->id, job->attempt))
	{
		case QML_LOST_OVERDUE:
			/* It went on after its timeout, until its process ended: an ordinary failure. */
			error.error = CStringGetTextDatum(qml_job_timeout_message(job));
			error.error_type = CStringGetTextDatum(QML_TIMEOUT);
			qml_transition_fail(job, &error, true, QML_NO_TIME, now);
			return;
		case QML_LOST_IN_GROUP: /* the next attempt runs alone: see process/batch.c */
		case QML_LOST_BESIDE:
			give_back(job, now);
			return;
		default:
			break;
	}

	/*
	 * A job during which the whole server went down several times is taken for the
	 * cause, and must not go on doing so.
	 */
	if (!qml_session_claim_went_with_server(server))
		qml_transition_lose(job,
							qml_session_claim_is_of_job(server) ?
								"the job that fetched it has ended" :
								"session is gone",
							"session_gone", now);
	else if (qml_job_count_errors(job, QML_SERVER_DOWN) < MAX_SERVERS_DOWN - 1)
		qml_transition_lose(job, "server went down", QML_SERVER_DOWN, now);
	else
		qml_transition_give_up(job, "server went down under each of several attempts",
							   QML_SERVER_DOWN, now);
}

static void
reclaim_job(QmlJobPass *pass, QmlJob *job)
{
	const LostSearch *search = pass->arg;

	if (search && search->of_server)
		qml_transition_lose(job, "server is gone", "server_gone", pass->now);
	else if (job->lease_expires_at != QML_NO_TIME)
		qml_transition_lose(job, "lease expired", "lease_expired", pass->now);
	else
		reclaim_from_session(job, pass->now);
}

/*
 * Reclaims up to max jobs whose lease has expired, whose session is gone or whose server
 * was given up; returns how many.  walk: looks at a piece of it; NULL: at all jobs.  *next
 * becomes the earliest end of another lease among them, or QML_NO_TIME, if fewer than max
 * were reclaimed.
 */
int
qml_reclaim_lost(QmlWalk *walk, int max, bool *over, TimestampTz *next)
{
	LostSearch search = {.dead = NULL};
	QmlJobPass pass = {.wants = is_claim_over,
					   .change = reclaim_job,
					   .max = max,
					   .arg = &search,
					   .walk = walk};

	(void) qml_catalog_to_work();
	qml_job_pass_over_all(&pass);
	QML_FAULT_AT_COMMIT("reclaim.before_commit");
	*over = pass.over;
	*next = pass.next_lease;
	return pass.count;
}

/*
 * Reclaims those of some jobs whose session is gone.  Returns how many could not be
 * reclaimed, because somebody else has their rows, who may roll back.
 */
int
qml_reclaim_of_sessions(const pg_uuid_t *ids, int count)
{
	QmlJobPass pass = {.wants = is_session_gone, .change = reclaim_job};

	(void) qml_catalog_to_work();
	qml_job_pass_by_id(&pass, ids, count);
	QML_FAULT_AT_COMMIT("reclaim.before_commit");
	return pass.missed;
}

/* Whether the job is being processed by a worker of the server that arg names. */
static bool
is_of_server(QmlJobPass *pass, TupleTableSlot *slot)
{
	const char *wanted = pass->arg;
	const char *server;
	int length;

	return read_server(slot, &server, &length) && length == (int) strlen(wanted) &&
		   memcmp(server, wanted, length) == 0;
}

static void
reclaim_from_server(QmlJobPass *pass, QmlJob *job)
{
	qml_transition_lose(job, "server is gone", "server_gone", pass->now);
}

/* Reclaims all jobs that workers of a server hold; returns how many. */
int
qml_reclaim_of_server(const char *server)
{
	QmlJobPass pass = {.wants = is_of_server,
					   .change = reclaim_from_server,
					   .max = INT_MAX,
					   .arg = server};

	qml_job_pass_over_all(&pass);
	QML_FAULT_AT_COMMIT("reclaim.before_commit");
	return pass.count;
}

static bool
is_processing(QmlJobPass *pass, TupleTableSlot *slot)
{
	return qml_job_live_state(slot) == QML_PROCESSING;
}

static void
enqueue_again(QmlJobPass *pass, QmlJob *job)
{
	qml_transition_set(job, QML_ENQUEUED, pass->now);
}

/* Enqueues every job again that is processing, its attempt counted: for a copy. */
void
qml_reclaim_all(void)
{
	QmlJobPass pass = {.wants = is_processing, .change = enqueue_again, .max = INT_MAX};

	qml_job_pass_over_all(&pass);
}
