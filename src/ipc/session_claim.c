/*
 * session_claim.c
 *		Sessions that hold jobs for as long as they live.
 *
 * A claim without a lease is bound to the session that made it: the job's server is
 * the id of the session, "session:<start of the server>.<number>.<token>", where the
 * number is that of its PGPROC.  A session is alive while its token is in its entry in
 * shared memory, of the same start of the server.  It removes the token however it
 * ends, and leaves the jobs that it may have held for the scheduler, which takes them
 * back at once.  After a crash of the server all tokens are new.
 *
 * A worker that ends with jobs in hand also leaves which of them had begun, or that none
 * had.  Of the jobs that it held, only those can count a failed attempt
 * (maintenance/reclaim.c).
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/proc.h"

#include "ipc/due.h"
#include "ipc/session_claim.h"
#include "ipc/slots.h"

#define PREFIX "session:"

/* A session, as its id names it. */
typedef struct SessionId
{
	uint32 boot;
	int number;
	uint32 token;
} SessionId;

static uint32 my_token = 0; /* 0: this session holds nothing */

/* The jobs that were claimed last, in a ring. */
static pg_uuid_t held[QML_MAX_LOST];
static uint64 nheld = 0;

static int
my_number(void)
{
	return (int) (MyProc - ProcGlobal->allProcs);
}

/* ----- the session ----- */

/* Leaves jobs of this session for the scheduler; any: there may be others. */
static void
leave_lost(const pg_uuid_t *jobs, int count, bool any)
{
	QmlSlot *scheduler = qml_slots_find_scheduler(MyDatabaseId);

	if (scheduler == NULL || count == 0)
		return;
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	for (int i = 0; i < count; i++)
	{
		if (scheduler->nlost < QML_MAX_LOST)
			scheduler->lost[scheduler->nlost++] = jobs[i];
		else
			any = true;
	}
	scheduler->any_lost = scheduler->any_lost || any;
	LWLockRelease(qml_shmem->lock);
	qml_due_now(QML_WAKE_SESSION);
}

/*
 * When the process ends.  That is after its transaction was rolled back: the scheduler
 * passes over rows that are being changed.
 */
static void
end_session(int code, Datum arg)
{
	pg_atomic_write_u32(&qml_shmem->sessions[my_number()], 0);
	leave_lost(held, (int) Min(nheld, QML_MAX_LOST), nheld > QML_MAX_LOST);
}

/* Only with shared memory does anybody notice that a session ended. */
bool
qml_session_claim_can_hold(void)
{
	return qml_shmem != NULL;
}

/* The id of this session, in the current memory context. */
char *
qml_session_claim_id(void)
{
	Assert(qml_shmem != NULL && my_number() < qml_shmem->nsessions);
	if (my_token == 0)
	{
		do
			my_token = pg_atomic_add_fetch_u32(&qml_shmem->next_token, 1);
		while (my_token == 0);
		on_shmem_exit(end_session, (Datum) 0);
		pg_atomic_write_u32(&qml_shmem->sessions[my_number()], my_token);
	}
	return psprintf(PREFIX "%08x.%d.%x", qml_shmem->boot, my_number(), my_token);
}

/* This session claims a job. */
void
qml_session_claim_hold(const pg_uuid_t *job)
{
	Assert(my_token != 0);
	held[nheld++ % QML_MAX_LOST] = *job;
}

/* All that it claimed is finished or given back. */
void
qml_session_claim_hold_none(void)
{
	nheld = 0;
}

/* ----- other sessions ----- */

/* The id need not be terminated; false: it is not that of a session. */
static bool
parse_id(const char *text, int length, SessionId *id)
{
	char copy[64];

	if (length < (int) strlen(PREFIX) || length >= (int) sizeof(copy) ||
		strncmp(text, PREFIX, strlen(PREFIX)) != 0)
		return false;
	memcpy(copy, text, length);
	copy[length] = '\0';
	return sscanf(copy, PREFIX "%x.%d.%x", &id->boot, &id->number, &id->token) == 3;
}

/* Whether a job's server is a session that has ended, as far as is known here. */
bool
qml_session_claim_is_gone(const char *server, int length)
{
	SessionId id;

	if (qml_shmem == NULL || !parse_id(server, length, &id))
		return false;
	return id.boot != qml_shmem->boot || id.number < 0 || id.number >= qml_shmem->nsessions ||
		   pg_atomic_read_u32(&qml_shmem->sessions[id.number]) != id.token;
}

/* Whether the session of this id ended with the whole server. */
bool
qml_session_claim_went_with_server(const char *server)
{
	SessionId id;

	return qml_shmem && parse_id(server, strlen(server), &id) && id.boot != qml_shmem->boot;
}

/*
 * By the scheduler: takes the jobs that sessions left, QML_MAX_LOST at most; returns
 * how many.  *any: there are others.
 */
int
qml_session_claim_take_lost(QmlSlot *scheduler, pg_uuid_t *jobs, bool *any)
{
	int count;

	Assert(scheduler->kind == QML_SCHEDULER && scheduler->pid == MyProcPid);
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	count = scheduler->nlost;
	memcpy(jobs, scheduler->lost, sizeof(pg_uuid_t) * count);
	*any = scheduler->any_lost;
	scheduler->nlost = 0;
	scheduler->any_lost = false;
	LWLockRelease(qml_shmem->lock);
	return count;
}

/* ----- the last running job ----- */

static void
add_last_job(const pg_uuid_t *job, int attempt, QmlLoss loss)
{
	QmlLastJob *entry;

	Assert(my_token != 0);
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	entry = &qml_shmem->last_jobs[qml_shmem->next_last_job];
	qml_shmem->next_last_job = (qml_shmem->next_last_job + 1) % QML_MAX_LAST_JOBS;
	entry->session = my_number();
	entry->token = my_token;
	entry->job = *job;
	entry->attempt = attempt;
	entry->loss = loss;
	LWLockRelease(qml_shmem->lock);
}

/* This process ends while it runs an attempt; it may call this for several. */
void
qml_session_claim_note_last_job(const pg_uuid_t *job, int attempt, QmlLoss loss)
{
	Assert(attempt > 0 && loss != QML_LOST_UNKNOWN && loss != QML_LOST_BESIDE);
	add_last_job(job, attempt, loss);
}

/* This process ends, and none of the attempts that it holds has begun. */
void
qml_session_claim_note_none(void)
{
	static const pg_uuid_t none;

	add_last_job(&none, 0, QML_LOST_UNKNOWN);
}

/*
 * How the session of this id, which has ended, lost an attempt.  What it left about
 * its last jobs may have been replaced by that of QML_MAX_LAST_JOBS later ones; then it is
 * not known.
 */
QmlLoss
qml_session_claim_loss_of(const char *server, const pg_uuid_t *job, int attempt)
{
	QmlLoss loss = QML_LOST_UNKNOWN;
	SessionId id;

	if (qml_shmem == NULL || !parse_id(server, strlen(server), &id) || id.boot != qml_shmem->boot)
		return QML_LOST_UNKNOWN;
	LWLockAcquire(qml_shmem->lock, LW_SHARED);
	for (int i = 0; i < QML_MAX_LAST_JOBS; i++)
	{
		const QmlLastJob *last = &qml_shmem->last_jobs[i];

		if (last->token != id.token || last->session != id.number)
			continue;
		if (last->attempt == attempt && memcmp(&last->job, job, sizeof(pg_uuid_t)) == 0)
			loss = last->loss;
		else if (loss == QML_LOST_UNKNOWN)
			loss = QML_LOST_BESIDE;
	}
	LWLockRelease(qml_shmem->lock);
	return loss;
}
