/*
 * session_claim.c
 *		Sessions that hold jobs for as long as they live.
 *
 * A claim without a lease is bound to the session that made it, whose id is the job's
 * server.  Anybody can tell from the id whether the session is gone.
 *
 * With shared memory the id is "session:<start of the server>.<number>.<token>", where the
 * number is that of its PGPROC.  A session is alive while its token is in its entry in
 * shared memory, of the same start of the server.  It removes the token however it
 * ends, and leaves the jobs that it may have held for the scheduler, which takes them
 * back at once.  After a crash of the server all tokens are new.
 *
 * A handler that claims so binds the job to its own job rather than to the session, which
 * goes on to others: a job that runs has a token of its own then, in an entry of its own,
 * and however it ends, the token goes.  Other functions of users, such as hooks, cannot
 * bind jobs to a background process, because nothing would end the claim.
 *
 * Without shared memory the id is "session:pid.<process>.<start>", and the session is alive
 * while the server shows a process with that pid which started then, to the microsecond.
 * Whoever calls qml_reclaim() takes its jobs back.
 *
 * Both forms are understood in both cases, since the server may have been started again
 * with another setting.  A start of the server that has no shared memory made none of
 * the first form.
 *
 * A worker that ends with jobs in hand also leaves which of them had begun, or that none
 * had.  Of the jobs that it held, only those can count a failed attempt
 * (maintenance/reclaim.c).
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/proc.h"

#include "compat.h"
#include "ipc/databases.h"
#include "ipc/due.h"
#include "ipc/session_claim.h"
#include "ipc/slots.h"

#define PREFIX	   "session:"
#define PREFIX_PID "session:pid."

/* A session, or a job in it, as its id names it. */
typedef struct SessionId
{
	bool by_pid; /* the second form */
	uint32 boot; /* of the first form, with the next two */
	int number;	 /* of a job: of its session, and nsessions more */
	uint32 token;
	int pid; /* of the second form, with the next */
	TimestampTz started_at;
} SessionId;

/* The jobs that were claimed last, in a ring. */
typedef struct HeldJobs
{
	uint64 count;
	pg_uuid_t jobs[QML_MAX_LOST];
} HeldJobs;

static bool is_background = false; /* the process is one of qml's */
static bool in_job = false;		   /* and runs a job */

/* 0: it holds nothing. */
static uint32 my_token = 0;
static uint32 job_token = 0; /* of the job that runs */

static HeldJobs held;
static HeldJobs held_in_job; /* by jobs that ran or run in this transaction */

/* What the server shows of its sessions was read since the search began. */
static bool sessions_read = false;

static int
my_number(void)
{
	return (int) (MyProc - ProcGlobal->allProcs);
}

static void
add_held(HeldJobs *ring, const pg_uuid_t *job)
{
	ring->jobs[ring->count++ % QML_MAX_LOST] = *job;
}

/* ----- the session ----- */

/* Adds lost jobs to a list with room for so many; *any: there are others. */
static void
add_lost(pg_uuid_t *list, int *nlist, int most, bool *any, const pg_uuid_t *jobs, int count)
{
	int room = Min(most - *nlist, count);

	Assert(LWLockHeldByMeInMode(qml_shmem->lock, LW_EXCLUSIVE));
	memcpy(list + *nlist, jobs, sizeof(pg_uuid_t) * room);
	*nlist += room;
	*any = *any || room < count;
}

/* Adds them to the entry of the database, which has no scheduler. */
static void
add_lost_to_entry(const pg_uuid_t *jobs, int count, bool any)
{
	QmlDatabase *entry = qml_databases_find_own();

	if (entry == NULL)
		return;
	add_lost(entry->lost, &entry->nlost, QML_MAX_KEPT_LOST, &entry->any_lost, jobs, count);
	entry->any_lost = entry->any_lost || any;
}

/* Leaves lost jobs for the scheduler, or for the next one; any: and others. */
static void
leave_jobs(const pg_uuid_t *jobs, int count, bool any)
{
	QmlSlot *scheduler = qml_slots_find_scheduler(MyDatabaseId);

	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	if (qml_databases_is_there(scheduler))
	{
		add_lost(scheduler->lost, &scheduler->nlost, QML_MAX_LOST, &scheduler->any_lost, jobs,
				 count);
		scheduler->any_lost = scheduler->any_lost || any;
	}
	else
		add_lost_to_entry(jobs, count, any);
	LWLockRelease(qml_shmem->lock);
	qml_due_now(QML_WAKE_SESSION);
}

/* Leaves jobs of this session for the scheduler. */
static void
leave_lost(HeldJobs *ring)
{
	int count = (int) Min(ring->count, QML_MAX_LOST);
	bool any = ring->count > QML_MAX_LOST;

	ring->count = 0;
	if (count > 0)
		leave_jobs(ring->jobs, count, any);
}

static void
set_token(int number, uint32 token)
{
	Assert(number >= 0 && number < 2 * qml_shmem->nsessions);
	pg_atomic_write_u32(&qml_shmem->sessions[number], token);
}

/*
 * When the process ends.  That is after its transaction was rolled back: the scheduler
 * passes over rows that are being changed.
 */
static void
end_session(int code, Datum arg)
{
	set_token(my_number(), 0);
	set_token(my_number() + qml_shmem->nsessions, 0);
	leave_lost(&held);
	leave_lost(&held_in_job);
}

/* When a transaction ends in which a job has ended: its claims are committed, or undone. */
static void
leave_lost_of_job(XactEvent event, void *arg)
{
	if (!in_job && held_in_job.count > 0 &&
		(event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT))
		leave_lost(&held_in_job);
}

/* A token that no session of this start of the server has had. */
static uint32
make_token(void)
{
	static bool registered = false;
	uint32 token;

	if (!registered)
	{
		on_shmem_exit(end_session, (Datum) 0);
		RegisterXactCallback(leave_lost_of_job, NULL);
		registered = true;
	}
	do
		token = pg_atomic_add_fetch_u32(&qml_shmem->next_token, 1);
	while (token == 0);
	return token;
}

/* This is a process of qml, whose session goes on after what runs in it. */
void
qml_session_claim_set_background(void)
{
	is_background = true;
}

/* A job begins in this process. */
void
qml_session_claim_begin_job(void)
{
	Assert(is_background && !in_job);
	in_job = true;
}

/* The job has ended, in whatever way; also when none was begun. */
void
qml_session_claim_end_job(void)
{
	if (job_token != 0)
		set_token(my_number() + qml_shmem->nsessions, 0);
	job_token = 0;
	in_job = false;
}

/* Whether something ends a claim that is bound to the caller's session. */
bool
qml_session_claim_can_hold(void)
{
	return !is_background || in_job;
}

/* The id of this session, or of the job that runs in it, in the current memory context. */
char *
qml_session_claim_id(void)
{
	int number = my_number();
	uint32 *token = &my_token;

	if (qml_shmem == NULL)
		return psprintf(PREFIX_PID "%d." INT64_FORMAT, MyProcPid, (int64) MyStartTimestamp);
	Assert(number < qml_shmem->nsessions);
	if (in_job)
	{
		number += qml_shmem->nsessions;
		token = &job_token;
	}
	if (*token == 0)
	{
		*token = make_token();
		set_token(number, *token);
	}
	return psprintf(PREFIX "%08x.%d.%x", qml_shmem->boot, number, *token);
}

/* The same as numbers: where its token is, and which it is.  It has an id already. */
void
qml_session_claim_holder(int *number, uint32 *token)
{
	*number = my_number() + (in_job ? qml_shmem->nsessions : 0);
	*token = in_job ? job_token : my_token;
}

/* This session, or the job that runs in it, claims a job. */
void
qml_session_claim_hold(const pg_uuid_t *job)
{
	if (qml_shmem == NULL)
		return;
	Assert((in_job ? job_token : my_token) != 0);
	add_held(in_job ? &held_in_job : &held, job);
}

/* All that it claimed is finished or given back. */
void
qml_session_claim_hold_none(void)
{
	held.count = 0;
}

/* ----- other sessions ----- */

/* The id need not be terminated; false: it is not that of a session. */
static bool
parse_id(const char *text, int length, SessionId *id)
{
	char copy[64];
	long long started_at;

	if (length < (int) strlen(PREFIX) || length >= (int) sizeof(copy) ||
		strncmp(text, PREFIX, strlen(PREFIX)) != 0)
		return false;
	memcpy(copy, text, length);
	copy[length] = '\0';
	id->by_pid = sscanf(copy, PREFIX_PID "%d.%lld", &id->pid, &started_at) == 2;
	if (id->by_pid)
	{
		id->started_at = (TimestampTz) started_at;
		return true;
	}
	return sscanf(copy, PREFIX "%x.%d.%x", &id->boot, &id->number, &id->token) == 3;
}

/* Whether the session was one of another start of the server, as far as is known here. */
static bool
is_of_other_start(const SessionId *id)
{
	if (id->by_pid)
		return id->started_at < PgStartTime;
	return qml_shmem == NULL || id->boot != qml_shmem->boot;
}

/*
 * A search for sessions that are gone begins, with rows of a snapshot that is taken: what
 * the server showed before may lack sessions that the rows have.
 */
void
qml_session_claim_begin_search(void)
{
	sessions_read = false;
}

/* Whether the server shows a process with this pid that started then. */
static bool
is_shown(const SessionId *id)
{
	int count;

	if (!sessions_read)
		pgstat_clear_backend_activity_snapshot();
	sessions_read = true;
	count = pgstat_fetch_stat_numbackends();
	for (int number = 1; number <= count; number++)
	{
		const LocalPgBackendStatus *entry = qml_backend_entry(number);

		if (entry && entry->backendStatus.st_procpid == id->pid &&
			entry->backendStatus.st_proc_start_timestamp == id->started_at)
			return true;
	}
	return false;
}

/* The process of a session that a job's server names; 0: it names none, or that has ended. */
int
qml_session_claim_pid(const char *server, int length)
{
	SessionId id;

	if (qml_session_claim_is_gone(server, length) || !parse_id(server, length, &id))
		return 0;
	return id.by_pid ? id.pid : ProcGlobal->allProcs[id.number % qml_shmem->nsessions].pid;
}

/* Whether a job's server is a session that has ended, or a job that has ended in it. */
bool
qml_session_claim_is_gone(const char *server, int length)
{
	SessionId id;

	if (!parse_id(server, length, &id))
		return false;
	if (id.by_pid)
		return !is_shown(&id);
	return is_of_other_start(&id) || qml_session_claim_has_ended(id.number, id.token);
}

/* Whether a session of this start of the server, or a job in one, has ended. */
bool
qml_session_claim_has_ended(int number, uint32 token)
{
	return number < 0 || number >= 2 * qml_shmem->nsessions ||
		   pg_atomic_read_u32(&qml_shmem->sessions[number]) != token;
}

/* The numbers of a session that a job's server names; false: it is none of this start. */
bool
qml_session_claim_find(const char *server, int length, int *number, uint32 *token)
{
	SessionId id;

	if (!parse_id(server, length, &id) || id.by_pid || is_of_other_start(&id))
		return false;
	*number = id.number;
	*token = id.token;
	return true;
}

/* Whether the session of this id ended with the whole server. */
bool
qml_session_claim_went_with_server(const char *server)
{
	SessionId id;

	return parse_id(server, strlen(server), &id) && is_of_other_start(&id);
}

/* Whether the id is that of a job in a session of this start of the server. */
bool
qml_session_claim_is_of_job(const char *server)
{
	SessionId id;

	return parse_id(server, strlen(server), &id) && !id.by_pid && !is_of_other_start(&id) &&
		   id.number >= qml_shmem->nsessions;
}

/*
 * By the scheduler: takes the jobs that sessions left, QML_MAX_LOST at most; returns
 * how many.  *any: there are others.
 */
int
qml_session_claim_take_lost(QmlSlot *scheduler, pg_uuid_t *jobs, bool *any)
{
	QmlDatabase *entry;
	int count;

	Assert(scheduler->kind == QML_SCHEDULER && scheduler->pid == MyProcPid);
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	count = scheduler->nlost;
	memcpy(jobs, scheduler->lost, sizeof(pg_uuid_t) * count);
	*any = scheduler->any_lost;
	scheduler->nlost = 0;
	scheduler->any_lost = false;
	entry = qml_databases_find_own();
	if (entry)
	{
		add_lost(jobs, &count, QML_MAX_LOST, any, entry->lost, entry->nlost);
		*any = *any || entry->any_lost;
		entry->nlost = 0;
		entry->any_lost = false;
	}
	LWLockRelease(qml_shmem->lock);
	return count;
}

/* By a scheduler that leaves: it has taken these jobs, and not looked at them yet. */
void
qml_session_claim_give_back_lost(const pg_uuid_t *jobs, int count)
{
	if (count > 0)
		leave_jobs(jobs, count, false);
}

/* The scheduler has left, and nobody finds it any more: what it has not taken is for the next. */
void
qml_session_claim_hand_over(QmlSlot *scheduler)
{
	bool found;

	Assert(pg_atomic_read_u32(&scheduler->process) == 0);
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	found = scheduler->nlost > 0 || scheduler->any_lost;
	add_lost_to_entry(scheduler->lost, scheduler->nlost, scheduler->any_lost);
	scheduler->nlost = 0;
	scheduler->any_lost = false;
	LWLockRelease(qml_shmem->lock);
	if (found)
		qml_databases_note_due(QML_WAKE_SESSION, GetCurrentTimestamp());
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
	Assert(loss != QML_LOST_UNKNOWN && loss != QML_LOST_BESIDE);
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

	if (!parse_id(server, strlen(server), &id) || id.by_pid || is_of_other_start(&id))
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

/*
 * Whether a job was lost in a group that it held up, as far as is remembered: it must run
 * alone.
 */
bool
qml_session_claim_held_up_group(const pg_uuid_t *job)
{
	bool found = false;

	if (qml_shmem == NULL)
		return false;
	LWLockAcquire(qml_shmem->lock, LW_SHARED);
	for (int i = 0; i < QML_MAX_LAST_JOBS && !found; i++)
	{
		const QmlLastJob *last = &qml_shmem->last_jobs[i];

		found = last->loss == QML_LOST_IN_GROUP && memcmp(&last->job, job, sizeof(pg_uuid_t)) == 0;
	}
	LWLockRelease(qml_shmem->lock);
	return found;
}
