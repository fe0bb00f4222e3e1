/*
 * run.c
 *		Running jobs in a background worker.
 *
 * A job is claimed in one transaction and run in another, which also finishes it:
 * its effects and its end commit together, or not at all.  The claim is committed
 * first, so that an attempt that kills the process is counted.
 *
 * Jobs of methods that have been short lately run in groups: one transaction, each
 * job in its own subtransaction, so that the error of one does not touch the
 * others.  The group also claims the jobs that come next, so that a group costs
 * one commit.  All others run alone.  Of a group:
 *
 *	 - it has at most MAX_GROUP jobs, so that their subtransactions fit into what a
 *	   snapshot remembers of them;
 *	 - nobody waits for it longer than MAX_DELAY: when that time is over, the job
 *	   that is running is undone and runs again, alone, and the others commit;
 *	 - a job that was deleted or taken back while it ran undoes the whole group,
 *	   whose jobs then run again, each alone.
 *
 * A job that was running when the server went down may be the cause, or was just
 * there: such suspects run one at a time in a database, and alone, so that an innocent
 * one is not taken for the cause as often as the guilty one runs.
 *
 * A job is told to stop by cancelling its statement, for the reason in `stop`; one
 * that goes on nevertheless ends with the process after a grace time, and is taken
 * back by the scheduler, its attempt counted.
 *
 * An attempt that is over, but cannot be written down because somebody has its job in
 * his hands, is put aside in `owed`, and holds up no other.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/trigger.h"
#include "common/clock.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "tcop/pquery.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"

#include "common/fault.h"
#include "common/guc.h"
#include "compat.h"
#include "errcodes.h"
#include "ipc/dispatch.h"
#include "ipc/session_claim.h"
#include "ipc/slots.h"
#include "jobs/claim.h"
#include "jobs/writer.h"
#include "model/catalog.h"
#include "model/queue.h"
#include "process/attempt.h"
#include "process/process.h"
#include "process/run.h"
#include "process/session_reset.h"
#include "userfn/call.h"
#include "userfn/current_job.h"
#include "userfn/handler.h"
#include "userfn/hook.h"
#include "userfn/hook_limit.h"
#include "userfn/middleware.h"
#include "userfn/trace.h"

/* Jobs of a group, below PGPROC_MAX_CACHED_SUBXIDS. */
#define MAX_GROUP 60

/* Milliseconds. */
#define MAX_DELAY 8 /* and some for the commit itself */
#define SHORT	  1
#define WATCH	  1000
#define LOCK_WAIT 2000 /* as in all of qml's own transactions */

/* How often a job is watched after it was told to stop, before its process ends. */
#define GRACE 5

/* Runs in a row that must have been short before a method's jobs run in groups. */
#define ENOUGH_SHORT_RUNS 10

/* Instead of the hash of a method: the one place for suspects. */
#define SUSPECTS 0

/* Jobs that were claimed together; all of it is in the context. */
typedef struct Batch
{
	MemoryContext context;
	QmlAttempt attempts[MAX_GROUP];
	int count;
	int done;	 /* the first ones are finished, and committed */
	int nplaces; /* of methods that run so many at a time only */
	uint32 places[QML_MAX_CONCURRENCY_SLOTS];
	int nrefused; /* methods of which there was no place when it was filled */
	uint32 refused[QML_MAX_CONCURRENCY_SLOTS];
} Batch;

/* How long the jobs of a method took lately. */
typedef struct Pace
{
	char method[NAMEDATALEN * 4]; /* hash key; longer ones never run in groups */
	bool seen;					  /* one has run here */
	int short_runs;				  /* in a row */
} Pace;

static QmlSlot *slot;
static Batch batches[2]; /* the one that is being run, and the next */
static Batch *batch = &batches[0];
static int batch_size = 1;
static HTAB *paces;
static double spent;			   /* milliseconds in handlers, of the jobs of one transaction */
static MemoryContext job_context;  /* reset after each job */
static MemoryContext call_context; /* reset after each transaction, and each error */
static List *calls;				   /* QmlCall, in call_context */
static QmlAttempt *being_ended;	   /* whose job is being written */
static List *owed;				   /* QmlAttempt, over, whose jobs others had in their hands */
static int64 paid_at;			   /* when that was tried last */
static bool ahead = false;		   /* the error is that of a claim, none of the jobs before */
static bool no_ahead = false;	   /* after that, until a claim succeeds */

/* For and by signal handlers. */
static volatile sig_atomic_t stop = QML_STOP_NOT;
static volatile sig_atomic_t delay_is_over = false;
static volatile sig_atomic_t shutting_down = false;
static volatile sig_atomic_t shutdown_watched; /* how often since then */
static volatile sig_atomic_t stop_watched;
static volatile sig_atomic_t in_job = false;

/* While in_job. */
static const QmlJob *running;
static instr_time run_began;

static TimeoutId delay_timer;
static TimeoutId job_timer;
static TimeoutId watch_timer;

/* ----- telling a job to stop ----- */

/* On exit: whoever takes the jobs back shall know which one ran, and for how long. */
static void
note_last_job(int code, Datum arg)
{
	bool overdue;
	ListCell *lc;

	if (!in_job)
		return;
	/* These have run as well, and count. */
	foreach(lc, owed)
	{
		const QmlJob *job = &((QmlAttempt *) lfirst(lc))->job;

		qml_session_claim_note_last_job(&job->id, job->attempt, QML_LOST_RUNNING);
	}
	overdue = stop == QML_STOP_TIMEOUT ||
			  (stop == QML_STOP_DELAY && qml_clock_ms_since(run_began) >= running->timeout_ms);
	qml_session_claim_note_last_job(&running->id, running->attempt,
									overdue				   ? QML_LOST_OVERDUE :
									stop == QML_STOP_DELAY ? QML_LOST_IN_GROUP :
															 QML_LOST_RUNNING);
}

static void
cancel(QmlStop why)
{
	if (!in_job)
		return;
	if (stop == QML_STOP_NOT)
		stop = why;
	InterruptPending = true;
	QueryCancelPending = true;
}

static void
on_delay(void)
{
	delay_is_over = true;
	cancel(QML_STOP_DELAY);
	enable_timeout_after(watch_timer, WATCH);
}

static void
on_job_timeout(void)
{
	cancel(QML_STOP_TIMEOUT);
}

/*
 * While a job runs alone, or holds up its group: says that the process is alive, ends
 * the job when the server has waited for it long enough, and the process if it goes on
 * although it was told to stop.  For its group it is told each time, since it may have
 * taken that for a matter of its own.
 */
static void
on_watch(void)
{
	if (!in_job)
		return;
	qml_slots_beat(slot);
	if (shutting_down && ++shutdown_watched > qml_shutdown_timeout)
		cancel(QML_STOP_SHUTDOWN);
	if (stop == QML_STOP_DELAY)
		cancel(QML_STOP_DELAY);
	if ((stop != QML_STOP_NOT || slot->has_cancel) && ++stop_watched > GRACE)
	{
		InterruptPending = true;
		ProcDiePending = true;
	}
	enable_timeout_after(watch_timer, WATCH);
}

/*
 * By a signal handler, too: the server goes down.  The job that runs may go on for
 * a while, no other begins.
 */
void
qml_run_shut_down(void)
{
	shutting_down = true;
	qml_process_hurry();
}

/* Whether a job runs, and was told to stop. */
bool
qml_run_is_stopped(void)
{
	return in_job && (stop != QML_STOP_NOT || slot->has_cancel);
}

/* What the process does from now on is the job's. */
static void
begin_run(const QmlJob *job)
{
	running = job;
	INSTR_TIME_SET_CURRENT(run_began);
	stop = QML_STOP_NOT;
	in_job = true;
	qml_current_job_begin(job, batch->context);
}

/* After the job: what was meant for it must not hit what comes next. */
static void
forget_stop(void)
{
	in_job = false;
	(void) qml_current_job_end();
	if (stop != QML_STOP_NOT)
		QueryCancelPending = false;
}

/* Whether somebody deleted this job, and canceled it therefore. */
static bool
leave_job(void)
{
	sigset_t none;

	if (!qml_slots_end_job(slot))
		return false;
	/* The signal has been sent; this delivers what is pending before it returns. */
	sigemptyset(&none);
	(void) sigprocmask(SIG_BLOCK, &none, NULL);
	/* It must not hit the next job. */
	QueryCancelPending = false;
	return true;
}

/* ----- methods ----- */

static Pace *
find_pace(const QmlJob *job)
{
	Pace *pace;
	char key[sizeof(pace->method)] = {0};
	text *method = DatumGetTextPP(job->method);
	bool found;

	if (VARSIZE_ANY_EXHDR(method) >= sizeof(key))
		return NULL;
	text_to_cstring_buffer(method, key, sizeof(key));
	pace = hash_search(paces, key, HASH_ENTER, &found);
	if (!found)
	{
		pace->seen = false;
		pace->short_runs = 0;
	}
	return pace;
}

static bool
is_short(const QmlJob *job)
{
	Pace *pace = find_pace(job);

	return pace && pace->short_runs >= ENOUGH_SHORT_RUNS;
}

/*
 * Whether a job may be in a group.  attempts: how many it has had, this one included if
 * it is claimed.  One that failed or was lost before shall not take others with it.
 */
static bool
is_first_and_short(const QmlJob *job, int attempts)
{
	return job->attempt - job->uncounted <= attempts && job->errors == (Datum) 0 &&
		   job->timeout_ms > MAX_DELAY && is_short(job);
}

static void
note_pace(const QmlAttempt *attempt, double milliseconds, bool may_be_in_group)
{
	Pace *pace = find_pace(&attempt->job);

	spent += milliseconds;
	if (pace == NULL)
		return;
	/* The first one fills the caches, and tells nothing of the others. */
	if (!pace->seen)
	{
		pace->seen = true;
		return;
	}
	if (may_be_in_group && milliseconds <= SHORT && attempt->fate != QML_FATE_ALONE)
		pace->short_runs = Min(pace->short_runs + 1, ENOUGH_SHORT_RUNS);
	else
		pace->short_runs = -10 * ENOUGH_SHORT_RUNS;
}

/* ----- claiming ----- */

/* The handler of a job, if it is this worker's to run; the role decides. */
static const QmlHandler *
handler_of(const QmlJob *job)
{
	const QmlHandler *handler = qml_handler_of(job->method);

	return handler && handler->run_as == GetSessionUserId() ? handler : NULL;
}

static bool
is_among(uint32 method, const uint32 *methods, int count)
{
	for (int i = 0; i < count; i++)
	{
		if (methods[i] == method)
			return true;
	}
	return false;
}

static bool
has_place(const Batch *of, uint32 method)
{
	return is_among(method, of->places, of->nplaces);
}

/* Asked once for each method that a claim meets. */
static bool
refuse(Batch *into, uint32 method)
{
	if (into->nrefused < QML_MAX_CONCURRENCY_SLOTS)
		into->refused[into->nrefused++] = method;
	return false;
}

/* Whether the batch has a place for jobs of the method, or gets one. */
static bool
take_place(Batch *into, uint32 method, int limit)
{
	if (has_place(into, method))
		return true;
	if (is_among(method, into->refused, into->nrefused))
		return false;
	if (into->nplaces == QML_MAX_CONCURRENCY_SLOTS ||
		!qml_slots_acquire_concurrency(slot, method, limit))
		return refuse(into, method);
	into->places[into->nplaces++] = method;
	return true;
}

/* Whether another worker would get a place for jobs of the method. */
static bool
has_room(Batch *from, uint32 method, int limit)
{
	if (is_among(method, from->refused, from->nrefused))
		return false;
	return qml_slots_has_concurrency(slot->database, method, limit, NULL) || refuse(from, method);
}

/* Whether this one has, or would get, the place for suspects. */
static bool
may_take_suspect(Batch *into)
{
	if (has_place(into, SUSPECTS))
		return true;
	if (is_among(SUSPECTS, into->refused, into->nrefused))
		return false;
	return qml_slots_has_concurrency(slot->database, SUSPECTS, 1, slot) || refuse(into, SUSPECTS);
}

static uint32
hash_of(const char *method)
{
	return hash_bytes((const unsigned char *) method, strlen(method));
}

static void
leave_places(Batch *of)
{
	bool had_suspect = has_place(of, SUSPECTS);

	if (of->nplaces > 0)
		qml_slots_release_concurrency(slot, of->places, of->nplaces);
	of->nplaces = 0;
	/* The next one may be for a worker of another role, which has passed it over. */
	if (had_suspect)
		qml_dispatch_recheck_all();
}

static bool
is_suspect(const QmlJob *job)
{
	return qml_job_count_errors(job, QML_SERVER_DOWN) > 0;
}

static bool
needs_place(const Batch *of, uint32 method)
{
	for (int i = of->done; i < of->count; i++)
	{
		const QmlJob *job = &of->attempts[i].job;

		if (method == SUSPECTS ? is_suspect(job) :
								 hash_of(TextDatumGetCString(job->method)) == method)
			return true;
	}
	return false;
}

/*
 * Leaves the places of jobs that it did not get, or has given back.  Whether it left any;
 * *role: for whom.
 */
static bool
leave_needless_places(Batch *of, Oid *role)
{
	int kept = 0;
	bool left_suspects = false;
	bool left;

	for (int i = 0; i < of->nplaces; i++)
	{
		uint32 method = of->places[i];

		if (needs_place(of, method))
		{
			of->places[kept++] = method;
			continue;
		}
		qml_slots_release_concurrency(slot, &method, 1);
		left_suspects = left_suspects || method == SUSPECTS;
	}
	left = kept < of->nplaces;
	of->nplaces = kept;
	*role = left_suspects ? InvalidOid : slot->role;
	return left;
}

/*
 * A batch is of jobs that have been short lately, or is one other: nothing waits
 * here behind a long one, while another worker is free.  Suspects run one at a time
 * in the database, so that the one which is the cause takes no other with it again.
 */
static QmlChoice
choose(const QmlJob *job, void *arg)
{
	Batch *into = arg;
	const QmlHandler *handler = handler_of(job);
	uint32 method;
	bool suspect;

	if (handler == NULL)
		return QML_PASS_OVER;
	if (into->count > 0 && (!is_first_and_short(&into->attempts[0].job, 1) ||
							!is_first_and_short(job, 0) || has_place(into, SUSPECTS)))
		return QML_STOP;
	method = handler->options.concurrency > 0 ? hash_of(handler->method) : SUSPECTS;
	if (method != SUSPECTS && is_among(method, into->refused, into->nrefused))
		return QML_PASS_OVER;
	/* Both places or none. */
	suspect = is_suspect(job);
	if (suspect && !may_take_suspect(into))
		return QML_PASS_OVER;
	if (method != SUSPECTS && !take_place(into, method, handler->options.concurrency))
		return QML_PASS_OVER;
	return suspect && !take_place(into, SUSPECTS, 1) ? QML_PASS_OVER : QML_TAKE;
}

/* Whether a job that is left is one for another worker. */
static bool
wants(const QmlJob *job, void *arg)
{
	Batch *from = arg;
	const QmlHandler *handler = handler_of(job);

	if (handler == NULL)
		return false;
	if (handler->options.concurrency > 0 &&
		!has_room(from, hash_of(handler->method), handler->options.concurrency))
		return false;
	return !is_suspect(job) || has_room(from, SUSPECTS, 1);
}

static void
take(const QmlJob *job, void *arg)
{
	Batch *into = arg;
	MemoryContext oldcontext = MemoryContextSwitchTo(into->context);
	QmlAttempt *attempt = &into->attempts[into->count++];

	memset(attempt, 0, sizeof(*attempt));
	attempt->context = into->context;
	qml_job_copy(job, &attempt->job);
	MemoryContextSwitchTo(oldcontext);
}

static void
empty_batch(Batch *into)
{
	leave_places(into);
	MemoryContextReset(into->context);
	into->count = 0;
	into->done = 0;
	into->nrefused = 0;
}

/* In a transaction: fills a batch that is empty. */
static void
claim_into(Batch *into)
{
	QmlClaim claim = {
		.worker = CStringGetTextDatum(psprintf("qml worker %d", MyProcPid)),
		.server = CStringGetTextDatum(qml_session_claim_id()),
		.batch = qml_hook_batch(batch_size),
		.lease = QML_NO_LEASE,
		.choose = choose,
		.wants = wants,
		.take = take,
		.arg = into,
	};
	QmlMore more;
	Oid role;

	empty_batch(into);
	if (shutting_down || slot->leave)
		return;
	(void) qml_claim_batch(&claim, &more);
	/* At once, they might ask each other for what none of them gets, all the time. */
	if (leave_needless_places(into, &role))
		qml_dispatch_recheck_later(role);
	if (more == QML_MORE)
		qml_dispatch_wake_helper(slot->role);
	else if (more == QML_MAYBE_MORE)
		qml_dispatch_recheck_later(slot->role);
}

/* The jobs that this session holds are these, and what is claimed next. */
static void
hold_owed(void)
{
	ListCell *lc;

	qml_session_claim_hold_none();
	foreach(lc, owed)
		qml_session_claim_hold(&((QmlAttempt *) lfirst(lc))->job.id);
}

static void
claim(void)
{
	hold_owed();
	qml_process_begin("claiming jobs");
	PG_TRY();
	{
		claim_into(batch);
		qml_process_commit();
		no_ahead = false;
	}
	PG_CATCH();
	{
		/* None of them is claimed; their places are left with the next claim. */
		batch->count = 0;
		PG_RE_THROW();
	}
	PG_END_TRY();
}

/* ----- finishing ----- */

static void
end_attempts(QmlWriter *writer, QmlAttempt *attempts, int count)
{
	for (int i = 0; i < count; i++)
	{
		QmlAttempt *attempt = &attempts[i];
		QmlFate fate = attempt->fate;

		being_ended = attempt;
		if (!qml_writer_change(writer, &attempt->job.id, qml_attempt_finish, attempt))
			attempt->fate = QML_FATE_GONE;
		if (attempt->fate == QML_FATE_GONE &&
			(fate == QML_FATE_SUCCEEDED || fate == QML_FATE_LATER || fate == QML_FATE_DISCARDED))
			ereport(ERROR,
					(errcode(ERRCODE_QML_STALE_CLAIM),
					 errmsg("attempt %d does not hold job %s", attempt->job.attempt,
							qml_job_id_string(&attempt->job.id))));
	}
	being_ended = NULL;
}

/* After the job: the timers of its own, if they are on. */
static void
disarm_job_timers(void)
{
	disable_timeout(job_timer, false);
	disable_timeout(watch_timer, false);
}

/*
 * In the transaction of the jobs: ends attempts.  Raises QM003 if one that had effects
 * was somebody else's by then.  carefully: they end whatever the hooks say.
 *
 * Somebody may have a job in his hands and not let go, who deletes it: then 55P03 is
 * raised after so many milliseconds.  What runs alone is told by its timers when it has
 * waited for long enough.
 */
static void
finish_attempts(QmlAttempt *attempts, int count, int patience, bool carefully)
{
	int usual = LockTimeout;
	QmlWriter writer;

	qml_writer_open(&writer, true, carefully);
	/* They hold their jobs; the scheduler may have written down how far one was. */
	writer.latest = true;
	PG_TRY();
	{
		LockTimeout = in_job ? 0 : patience;
		end_attempts(&writer, attempts, count);
	}
	PG_FINALLY();
	{
		LockTimeout = usual;
	}
	PG_END_TRY();
	/* Hooks have limits of their own. */
	if (in_job)
	{
		disarm_job_timers();
		forget_stop();
	}
	qml_writer_close(&writer);
}

/* After the commit: tells of the attempts that were traced and are over. */
static void
log_traces(const QmlAttempt *attempts, int count)
{
	/* What is committed is to be taken note of, whatever is sent meanwhile. */
	MemoryContext oldcontext = MemoryContextSwitchTo(job_context);

	HOLD_INTERRUPTS();
	for (int i = 0; i < count; i++)
		qml_attempt_log(&attempts[i]);
	RESUME_INTERRUPTS();
	MemoryContextSwitchTo(oldcontext);
}

/* In a transaction of its own: ends an attempt, as far as nobody has its job in his hands. */
static bool
write_down(QmlAttempt *attempt, int patience)
{
	volatile bool written = true;

	PG_TRY();
	{
		qml_process_begin("ending an attempt");
		finish_attempts(attempt, 1, patience, true);
		qml_process_commit();
		log_traces(attempt, 1);
	}
	PG_CATCH();
	{
		ErrorData *error = qml_process_undo();

		if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
			ReThrowError(error);
		written = false;
	}
	PG_END_TRY();
	return written;
}

/* ----- owing ----- */

/* The attempt is to be written down later; it has had no effects. */
static void
owe(const QmlAttempt *attempt)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "qml attempt that is over",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	QmlAttempt *copy = palloc(sizeof(QmlAttempt));

	qml_attempt_copy(attempt, copy);
	MemoryContextSwitchTo(TopMemoryContext);
	owed = lappend(owed, copy);
	MemoryContextSwitchTo(oldcontext);
}

/* Those whose job somebody still has in his hands stay; only the first is waited for. */
static void
pay(int patience)
{
	ListCell *lc;

	foreach(lc, owed)
	{
		QmlAttempt *attempt = lfirst(lc);

		if (!write_down(attempt, patience))
		{
			patience = MAX_DELAY;
			continue;
		}
		owed = foreach_delete_current(owed, lc);
		MemoryContextDelete(attempt->context);
	}
	paid_at = qml_clock_monotonic_ms();
}

/* Whether there are attempts that are over and not written down. */
bool
qml_run_owes(void)
{
	return owed != NIL;
}

/* Writes them down, if that can be done; not more often than makes sense. */
void
qml_run_pay(void)
{
	if (owed != NIL && qml_clock_monotonic_ms() - paid_at >= WATCH)
		pay(MAX_DELAY);
}

/* Whether the job can be run; its fate is set if not. */
static const QmlHandler *
find_runnable(QmlAttempt *attempt)
{
	const QmlHandler *handler = handler_of(&attempt->job);
	QmlProblem problem;

	if (handler == NULL)
	{
		/* Unregistered, or another role's by now. */
		attempt->fate = QML_FATE_RELEASED;
		return NULL;
	}
	if (qml_handler_usable(handler, &problem))
		return handler;
	qml_attempt_fail(attempt,
					 problem.detail ? psprintf("%s: %s", problem.message, problem.detail) :
									  problem.message,
					 unpack_sql_state(problem.sqlerrcode), (Datum) 0, true);
	return NULL;
}

/* ----- calling ----- */

static void
forget_calls(void)
{
	calls = NIL;
	MemoryContextReset(call_context);
}

/* The handler's function made ready; a handler that changed is another one. */
static QmlCall *
find_call(const QmlHandler *handler)
{
	MemoryContext oldcontext;
	QmlCall *call;
	ListCell *lc;

	foreach(lc, calls)
	{
		if (qml_call_is_of(lfirst(lc), handler))
			return lfirst(lc);
	}
	oldcontext = MemoryContextSwitchTo(call_context);
	call = qml_call_prepare(handler);
	calls = lappend(calls, call);
	MemoryContextSwitchTo(oldcontext);
	return call;
}

/*
 * After an error of the job: why it came.  A server that goes down ends what the job
 * uses, such as parallel workers and programs.
 */
static QmlStop
why_stopped(void)
{
	return stop == QML_STOP_NOT && shutting_down ? QML_STOP_SHUTDOWN : stop;
}

/* After an error: what the handler showed before stays with the job. */
static void
keep_progress(QmlAttempt *attempt)
{
	if (in_job)
		attempt->progress = qml_current_job_end()->progress;
}

/*
 * The handler returned: its result, or what it wished instead.  What was deferred to the
 * end of the transaction is part of the job.
 */
static void
keep_result(QmlAttempt *attempt, Datum result)
{
	const QmlCurrent *said;
	MemoryContext oldcontext = MemoryContextSwitchTo(batch->context);

	attempt->result = result == (Datum) 0 ? result : PointerGetDatum(PG_DETOAST_DATUM_COPY(result));
	MemoryContextSwitchTo(job_context);
	AfterTriggerFireDeferred();
	MemoryContextSwitchTo(batch->context);
	said = qml_current_job_end();
	attempt->progress = said->progress;
	attempt->delay = said->delay;
	attempt->reason = said->reason;
	attempt->fate = said->wish == QML_WISH_LATER   ? QML_FATE_LATER :
					said->wish == QML_WISH_DISCARD ? QML_FATE_DISCARDED :
													 QML_FATE_SUCCEEDED;
	MemoryContextSwitchTo(oldcontext);
}

typedef struct HandlerCall
{
	const QmlHandler *handler;
	const QmlJob *job;
	bool wrapped;
} HandlerCall;

static Datum
call_handler(void *arg)
{
	HandlerCall *this = arg;

	if (qml_call_is_procedure(this->handler))
		return qml_call_procedure(this->handler, this->job, true);
	/* Anew each time: what it remembers does not outlive a subtransaction that fails. */
	if (this->wrapped)
		return qml_call_function(qml_call_prepare(this->handler), this->job);
	return qml_call_function(find_call(this->handler), this->job);
}

static bool
is_wrapped(const QmlHandler *handler)
{
	return !handler->options.bare && qml_middleware_wanted();
}

/* Whether others who take a snapshot could no longer see all of them at a glance. */
static bool
too_many_subtransactions(void)
{
	return MyProc->subxidStatus.overflowed || MyProc->subxidStatus.count >= MAX_GROUP;
}

/* Calls the handler of a job within the transaction, and makes the session as it was. */
static void
call_function(QmlAttempt *attempt, const QmlHandler *handler)
{
	HandlerCall this = {.handler = handler, .job = &attempt->job, .wrapped = is_wrapped(handler)};
	int guc_level = NewGUCNestLevel();

	PushActiveSnapshot(GetTransactionSnapshot());
	MemoryContextSwitchTo(job_context);
	QML_FAULT("run.before_call");
	keep_result(attempt, this.wrapped ? qml_middleware_run(&attempt->job, call_handler, &this) :
										call_handler(&this));
	QML_FAULT("run.after_call");
	PopActiveSnapshot();
	AtEOXact_GUC(false, guc_level);
	qml_session_reset_session();
}

/* A job in its subtransaction. */
static void
run_in_group(QmlAttempt *attempt, const QmlHandler *handler)
{
	MemoryContext oldcontext = CurrentMemoryContext;
	ResourceOwner oldowner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(job_context);
	begin_run(&attempt->job);
	/* The timer may have been there just before. */
	if (delay_is_over)
		cancel(QML_STOP_DELAY);
	PG_TRY();
	{
		QML_FAULT("group.before_call");
		call_function(attempt, handler);
		QML_FAULT("group.after_call");
		/* A cancel that it left behind is its own. */
		CHECK_FOR_INTERRUPTS();
		/* It was told to stop because others wait, and took that for its own matter. */
		if (stop != QML_STOP_NOT)
			ereport(ERROR,
					(errcode(ERRCODE_QUERY_CANCELED),
					 errmsg("canceling a job for its group")));
		forget_stop();
		attempt->trace = qml_trace_take();
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData *error;
		QmlStop why = why_stopped();

		keep_progress(attempt);
		forget_stop();
		MemoryContextSwitchTo(job_context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		qml_session_reset_outside();
		forget_calls();
		attempt->trace = qml_trace_take();
		qml_attempt_judge(attempt, error, why, false);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(oldcontext);
	CurrentResourceOwner = oldowner;
	MemoryContextReset(job_context);
}

/* A transaction for jobs; without the time limit of qml's own steps. */
static void
begin(const char *activity)
{
	pgstat_report_activity(STATE_RUNNING, activity);
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	being_ended = NULL;
	qml_session_reset_begin();
	(void) qml_catalog_to_work();
	MemoryContextSwitchTo(batch->context);
}

static void
commit(void)
{
	forget_calls();
	qml_process_end_transaction();
	(void) pgstat_report_stat(true);
}

static Batch *
other_batch(void)
{
	return batch == &batches[0] ? &batches[1] : &batches[0];
}

/* Claims what comes next, together with the end of what was before. */
static Batch *
claim_ahead(bool is_last)
{
	Batch *next = other_batch();

	/*
	 * What is not to be run at once is left to others.  Hooks for claimed jobs may
	 * take long, and take their error out on the jobs before.
	 */
	if (!is_last || batch_size == 1 || spent > MAX_DELAY || no_ahead ||
		qml_hook_wanted(QML_PROCESSING))
		return NULL;
	ahead = true;
	PushActiveSnapshot(GetTransactionSnapshot());
	claim_into(next);
	PopActiveSnapshot();
	ahead = false;
	return next;
}

/* After an error: whether it was that of a claim ahead; no other one is made for now. */
static bool
was_ahead(void)
{
	bool was = ahead;

	no_ahead = no_ahead || was;
	ahead = false;
	return was;
}

static void
swap_batches(Batch *next)
{
	bool left = false;

	if (next == NULL)
		return;
	for (int i = 0; i < batch->nplaces; i++)
		left = left || !has_place(next, batch->places[i]);
	empty_batch(batch);
	batch = next;
	/* Others have passed over what needs a place that was left only now. */
	if (left)
		qml_dispatch_wake_helper(slot->role);
	hold_owed();
	for (int i = 0; i < batch->count; i++)
		qml_session_claim_hold(&batch->attempts[i].job.id);
}

/* ----- groups ----- */

/* As far as can be told outside a transaction, where no catalog can be asked. */
static bool
looks_short(const QmlAttempt *attempt)
{
	return attempt->fate != QML_FATE_ALONE && is_first_and_short(&attempt->job, 1);
}

static bool
may_be_in_group(const QmlAttempt *attempt)
{
	const QmlHandler *handler;

	if (!looks_short(attempt))
		return false;
	handler = handler_of(&attempt->job);
	return handler == NULL || qml_handler_signature(handler) == NULL ||
		   !qml_call_is_procedure(handler);
}

/* Runs jobs from batch->done on as long as they may be in a group; the end of it. */
static int
run_group_jobs(void)
{
	int i = batch->done;
	/* Hooks are told when all have run. */
	int end = Min(batch->count, i + qml_hook_limit_room(MAX_DELAY));

	delay_is_over = false;
	stop_watched = 0;
	/* The first one waits for nobody, but only alone is a job watched and timed. */
	enable_timeout_after(delay_timer, MAX_DELAY);
	for (; i < end && !delay_is_over && !shutting_down && !qml_session_reset_constraints_set() &&
		   !too_many_subtransactions();
		 i++)
	{
		QmlAttempt *attempt = &batch->attempts[i];
		const QmlHandler *handler;

		if (!may_be_in_group(attempt))
		{
			/* Its handler changed since: not here, then. */
			attempt->fate = QML_FATE_ALONE;
			break;
		}
		handler = find_runnable(attempt);
		if (handler)
		{
			run_in_group(attempt, handler);
			note_pace(attempt, qml_clock_ms_since(run_began), true);
			if (attempt->fate == QML_FATE_ALONE)
				break;
		}
	}
	disable_timeout(delay_timer, false);
	disable_timeout(watch_timer, false);
	return i;
}

/* After the error of a group: its jobs have had no effect yet, none was claimed ahead. */
static void
undo_group(const ErrorData *error, int end)
{
	QmlAttempt *blocked = error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ? being_ended : NULL;

	empty_batch(other_batch());
	(void) was_ahead();
	for (int i = batch->done; i < end; i++)
		batch->attempts[i].fate = blocked ? QML_FATE_PENDING : QML_FATE_ALONE;
	/* It is known which one was waited for; the others can do without it. */
	if (blocked)
		blocked->fate = QML_FATE_ALONE;
	being_ended = NULL;
	ereport(DEBUG1, (errmsg("a group of jobs is undone: %s", error->message)));
}

static void
run_group(void)
{
	volatile int end = batch->done;
	Batch *volatile next = NULL;
	volatile bool done = false;

	MemoryContextSwitchTo(batch->context);
	PG_TRY();
	{
		begin(psprintf("running %s", TextDatumGetCString(batch->attempts[end].job.method)));
		PushActiveSnapshot(GetTransactionSnapshot());
		end = run_group_jobs();
		QML_FAULT("group.before_finish");
		finish_attempts(&batch->attempts[batch->done], end - batch->done, MAX_DELAY, false);
		PopActiveSnapshot();
		QML_FAULT("group.before_claim");
		next = claim_ahead(end == batch->count);
		QML_FAULT("group.before_commit");
		commit();
		done = true;
		log_traces(&batch->attempts[batch->done], end - batch->done);
	}
	PG_CATCH();
	{
		disable_timeout(delay_timer, false);
		disable_timeout(watch_timer, false);
		forget_stop();
		forget_calls();
		/* No job has run: it is not because of one. */
		if (end == batch->done)
			PG_RE_THROW();
		undo_group(qml_process_undo(), end);
	}
	PG_END_TRY();
	if (!done)
		return;
	batch->done = end;
	swap_batches(next);
}

/* ----- alone ----- */

static void
arm_job_timers(const QmlJob *job)
{
	EnableTimeoutParams params[2] = {
		{.id = job_timer, .type = TMPARAM_AFTER, .delay_ms = job->timeout_ms},
		{.id = watch_timer, .type = TMPARAM_AFTER, .delay_ms = WATCH},
	};

	stop_watched = 0;
	enable_timeouts(params, lengthof(params));
}

/* The procedure may end the transaction and begin others. */
static void
call_procedure(QmlAttempt *attempt, const QmlHandler *handler)
{
	QML_FAULT("run.before_call");
	keep_result(attempt, qml_call_procedure(handler, &attempt->job, false));
	QML_FAULT("run.after_call");
	qml_session_reset_committed();
}

/* Whether nobody has ended the attempt. */
static bool
is_held(QmlAttempt *attempt)
{
	QmlWriter writer;

	qml_writer_open(&writer, false, false);
	if (!qml_writer_change(&writer, &attempt->job.id, qml_attempt_look, attempt))
		attempt->fate = QML_FATE_GONE;
	qml_writer_close(&writer);
	return attempt->fate != QML_FATE_GONE;
}

/*
 * Calls the handler and ends the attempt, all in one transaction if it is a function.
 * The job may have been deleted since it was claimed.
 */
static Batch *
call_alone(QmlAttempt *attempt)
{
	const QmlHandler *handler = is_held(attempt) ? find_runnable(attempt) : NULL;
	bool is_last = batch->done + 1 == batch->count;
	bool procedure = handler && qml_call_is_procedure(handler);
	bool commits = procedure && !is_wrapped(handler);
	Batch *next;

	if (handler)
	{
		begin_run(&attempt->job);
		arm_job_timers(&attempt->job);
		MemoryContextSwitchTo(job_context);
		if (commits)
			call_procedure(attempt, handler);
		else
			call_function(attempt, handler);
		attempt->trace = qml_trace_take();
		/* It may have taken that for its own matter. */
		if (stop == QML_STOP_TIMEOUT)
			ereport(ERROR,
					(errcode(ERRCODE_QUERY_CANCELED),
					 errmsg("canceling a job because of its timeout")));
		note_pace(attempt, qml_clock_ms_since(run_began), !procedure);
		MemoryContextSwitchTo(batch->context);
	}
	PushActiveSnapshot(GetTransactionSnapshot());
	finish_attempts(attempt, 1, LOCK_WAIT, handler == NULL);
	PopActiveSnapshot();
	/* What has committed something cannot run again because of that. */
	next = claim_ahead(is_last && !commits);
	commit();
	log_traces(attempt, 1);
	return next;
}

/*
 * In transactions of their own: the end of an attempt whose own one was undone.  At first
 * the session, since what a procedure has set may stand in the way, such as
 * default_transaction_read_only.
 */
static void
finish_undone(QmlAttempt *attempt)
{
	attempt->ended = true;
	qml_process_begin("cleaning the session");
	qml_session_reset_committed();
	qml_process_commit();
	if (!write_down(attempt, LOCK_WAIT))
		owe(attempt);
}

static void
run_alone(void)
{
	QmlAttempt *attempt = &batch->attempts[batch->done];
	Batch *volatile next = NULL;
	volatile bool again = false;

	attempt->fate = QML_FATE_PENDING;
	attempt->trace.traced = false;
	stop = QML_STOP_NOT;
	qml_slots_begin_job(slot, &attempt->job.id);
	MemoryContextSwitchTo(batch->context);
	PG_TRY();
	{
		begin(psprintf("running %s, job %s", TextDatumGetCString(attempt->job.method),
					   qml_job_id_string(&attempt->job.id)));
		next = call_alone(attempt);
		(void) leave_job();
	}
	PG_CATCH();
	{
		QmlStop why = why_stopped();
		ErrorData *error;
		bool deleted;

		disarm_job_timers();
		keep_progress(attempt);
		forget_stop();
		ActivePortal = NULL;
		PortalContext = NULL;
		error = qml_process_undo();
		if (attempt->fate == QML_FATE_PENDING)
			attempt->trace = qml_trace_take();
		forget_calls();
		qml_session_reset_outside();
		/* None was claimed ahead, then. */
		empty_batch(other_batch());
		deleted = leave_job();
		again = was_ahead() && !deleted;
		if (again)
			attempt->fate = QML_FATE_ALONE;
		/*
		 * Somebody else's by now: then there is nothing to say, and nothing is said.
		 * If the handler ended it itself, that is undone, too: it fails.
		 */
		else if (error->sqlerrcode == ERRCODE_QML_STALE_CLAIM && attempt->fate == QML_FATE_GONE)
			qml_attempt_fail(attempt, "the handler ended its job itself", "QM003", (Datum) 0,
							 false);
		/* Not begun: whatever stood in the way of writing that down is not the job's error. */
		else if (attempt->fate != QML_FATE_RELEASED && attempt->fate != QML_FATE_FAILED)
			qml_attempt_judge(attempt, error, why, deleted);
		if (!again)
			finish_undone(attempt);
	}
	PG_END_TRY();
	MemoryContextReset(job_context);
	if (again)
		return;
	batch->done++;
	swap_batches(next);
}

/* ----- batches ----- */

/*
 * In a transaction: gives jobs back, also those that are to be run alone if `all`.  What
 * somebody else has in his hands, who deletes it, is not waited for: it stays, to be run
 * alone if that is undone.
 */
static void
release(int first, int end, bool all)
{
	QmlWriter writer;

	qml_writer_open(&writer, true, true);
	for (int i = first; i < end; i++)
	{
		QmlAttempt *attempt = &batch->attempts[i];

		if (attempt->fate == QML_FATE_ALONE && !all)
			continue;
		attempt->fate = QML_FATE_RELEASED;
		if (!qml_writer_try_change(&writer, &attempt->job.id, qml_attempt_finish, attempt))
			attempt->fate = QML_FATE_ALONE;
	}
	qml_writer_close(&writer);
}

/* Those of them that stay move together; where they end. */
static int
forget_released(int first, int end)
{
	int kept = first;
	int left;

	for (int i = first; i < end; i++)
	{
		if (batch->attempts[i].fate == QML_FATE_ALONE)
			batch->attempts[kept++] = batch->attempts[i];
	}
	left = batch->count - end;
	memmove(&batch->attempts[kept], &batch->attempts[end], left * sizeof(QmlAttempt));
	batch->count = kept + left;
	return kept;
}

/* Others were told of the jobs when their places were not free yet. */
static void
leave_places_of_released(void)
{
	Oid role;

	if (!leave_needless_places(batch, &role))
		return;
	if (OidIsValid(role))
		qml_dispatch_wake_helper(role);
	else
		qml_dispatch_recheck_all();
}

/* Gives back what is claimed and not begun, from a job of the batch on. */
static void
release_from(int first, bool all)
{
	while (first < batch->count)
	{
		int end;

		if (batch->attempts[first].fate == QML_FATE_ALONE && !all)
		{
			first++;
			continue;
		}
		qml_process_begin("giving jobs back");
		end = first + qml_hook_batch(batch->count - first);
		release(first, end, all);
		qml_process_commit();
		first = forget_released(first, end);
		leave_places_of_released();
	}
}

/* More at a time while they are short; nobody else can run what is claimed here. */
static void
adjust_batch_size(bool was_short)
{
	batch_size = was_short ? Min(batch_size * 2, MAX_GROUP) : 1;
}

/* Whether the job in hand has run, and only its end is to be written down. */
static bool
is_over(void)
{
	return batch->done < batch->count && batch->attempts[batch->done].ended;
}

/* After an error of qml's own: the attempt is over, and must not run again. */
static void
finish_again(void)
{
	finish_undone(&batch->attempts[batch->done]);
	batch->done++;
}

/*
 * Before the process ends: what is over is written down, what is claimed and not begun is
 * given back.  A job that somebody deletes for long is lost with the process, which costs
 * it an attempt if it is not deleted after all.
 */
void
qml_run_end(void)
{
	if (is_over())
		finish_again();
	release_from(batch->done, true);
	for (; batch->done < batch->count; batch->done++)
	{
		batch->attempts[batch->done].fate = QML_FATE_RELEASED;
		owe(&batch->attempts[batch->done]);
	}
	pay(LOCK_WAIT);
	if (owed != NIL)
		ereport(LOG, (errmsg("qml worker ends with jobs that somebody is deleting: %d",
							 list_length(owed))));
	/* For others of its role, who are told when it has gone. */
	if (batch->nplaces > 0)
		qml_dispatch_set_work(slot);
	empty_batch(batch);
}

/*
 * Runs jobs: the next group of those that are claimed, or the next one alone.
 * False when there are none.
 */
bool
qml_run_next(void)
{
	if (batch->done == batch->count)
		claim();
	if (batch->count == 0)
		return false;
	spent = 0;
	qml_run_pay();
	if (is_over())
		finish_again();
	else if (looks_short(&batch->attempts[batch->done]))
		run_group();
	else
	{
		/* It may take long. */
		release_from(batch->done + 1, false);
		run_alone();
	}
	adjust_batch_size(spent <= MAX_DELAY);
	/* When the process is to end, it gives back the rest. */
	if (batch_size == 1)
		release_from(batch->done, false);
	return true;
}

void
qml_run_init(QmlSlot *my_slot)
{
	HASHCTL control = {.keysize = sizeof(((Pace *) 0)->method), .entrysize = sizeof(Pace)};

	slot = my_slot;
	before_shmem_exit(note_last_job, (Datum) 0);
	qml_session_reset_init();
	qml_current_job_init(my_slot);
	delay_timer = RegisterTimeout(USER_TIMEOUT, on_delay);
	job_timer = RegisterTimeout(USER_TIMEOUT, on_job_timeout);
	watch_timer = RegisterTimeout(USER_TIMEOUT, on_watch);
	paces = hash_create("qml methods", 64, &control, HASH_ELEM | HASH_STRINGS);
	for (int i = 0; i < (int) lengthof(batches); i++)
		batches[i].context = AllocSetContextCreate(TopMemoryContext, "qml jobs",
												   ALLOCSET_DEFAULT_SIZES);
	job_context = AllocSetContextCreate(TopMemoryContext, "qml job", ALLOCSET_DEFAULT_SIZES);
	call_context = AllocSetContextCreate(TopMemoryContext, "qml calls", ALLOCSET_DEFAULT_SIZES);
}
