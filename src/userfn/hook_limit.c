/*
 * hook_limit.c
 *		Limits the time that hooks take in a background process, which nobody watches
 *		and which has no statement_timeout.
 *
 *	 - One call may take TIME_LIMIT.  Then it is canceled, and the cancel is reported
 *	   as an error of the hook.
 *	 - A call that catches the cancel and goes on is canceled again every CANCEL_AGAIN.
 *	   After MAX_CANCELS the process ends.  The hook is remembered in shared memory
 *	   (ipc/stuck_hooks.c), so that the next process disables it (userfn/hook_failure.c).
 *	 - All calls of a transaction may take BUDGET.  When that is used up, the
 *	   transaction is undone, and later ones make fewer transitions
 *	   (qml_hook_limit_batch).
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/timeout.h"

#include "ipc/due.h"
#include "ipc/stuck_hooks.h"
#include "userfn/hook_limit.h"

/* Milliseconds. */
#define TIME_LIMIT	 2000
#define CANCEL_AGAIN 500
#define BUDGET		 20000
#define BATCH_TIME	 1000 /* far below BUDGET, because it is used with an estimate */

#define MAX_CANCELS 5

/* More transitions than any transaction makes. */
#define MAX_ROOM 1000000

/* Set once, by qml_hook_limit_init(). */
static bool limited = false;
static bool (*caller_stops)(void) = NULL;
static bool (*caller_is_late)(void);
static TimeoutId timer;

static const QmlCallback *running = NULL;
static volatile sig_atomic_t cancels = 0; /* of the running hook; by the signal handler */

/* Of the transaction that began at `since`. */
static TimestampTz since = 0;
static double spent;	/* milliseconds */
static int transitions; /* that these were spent for */

/* Milliseconds that hooks took for a transition, in the latest transaction. */
static double average = 0;

/* Signal handler.  The process acts on the flags at its next CHECK_FOR_INTERRUPTS(). */
static void
handle_timeout(void)
{
	InterruptPending = true;
	if (++cancels > MAX_CANCELS)
		ProcDiePending = true;
	else
		QueryCancelPending = true;
}

/* ----- hooks that cannot be stopped ----- */

/* Shared memory has a hash of the name: a collision disables one hook too many. */
uint32
qml_hook_limit_hash(const QmlCallback *hook)
{
	return hash_bytes((const unsigned char *) hook->name, strlen(hook->name));
}

/* Whether a hook has ended a process, and is about to be disabled: this one does not call it. */
bool
qml_hook_limit_is_stuck(const QmlCallback *hook)
{
	return limited && qml_stuck_hooks_has(qml_hook_limit_hash(hook));
}

/* At exit: if the process ends because of a hook, its successor must know which one. */
static void
record_stuck_hook(int code, Datum arg)
{
	if (running == NULL || cancels <= MAX_CANCELS)
		return;
	ereport(LOG,
			(errmsg("hook \"%s\" did not stop after %d cancel requests; terminating its process",
					running->name, MAX_CANCELS)));
	qml_stuck_hooks_add(qml_hook_limit_hash(running));
	qml_due_now(QML_WAKE_HOOK);
}

/*
 * Sets the limits for this background process, which is connected to its database.
 * stops, or NULL, says whether the caller of hooks has been canceled itself; is_late,
 * whether its transaction has used up its time.
 */
void
qml_hook_limit_init(bool (*stops)(void), bool (*is_late)(void))
{
	caller_stops = stops;
	caller_is_late = is_late;
	Assert(!limited);
	timer = RegisterTimeout(USER_TIMEOUT, handle_timeout);
	before_shmem_exit(record_stuck_hook, (Datum) 0);
	limited = true;
}

bool
qml_hook_limit_is_on(void)
{
	return limited;
}

/* ----- one call ----- */

static bool
caller_is_stopped(void)
{
	return caller_stops && caller_stops();
}

/*
 * Ends the limit after a call; returns whether the hook was canceled.  A cancel that was
 * meant for the hook must not hit what comes next, but one of the caller must.
 */
static bool
stop_timer(void)
{
	disable_timeout(timer, false);
	/* If the process is about to end, keep the name of the hook that is to blame. */
	if (cancels <= MAX_CANCELS)
		running = NULL;
	if (cancels == 0)
		return false;
	QueryCancelPending = false;
	if (caller_is_stopped())
		InterruptPending = QueryCancelPending = true;
	return true;
}

static void
raise_too_slow(const QmlCallback *hook)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("hook \"%s\" took longer than %d ms", hook->name, TIME_LIMIT),
			 errdetail("In background processes, this is the time limit of a hook.")));
}

/* Does the work, a call of the hook with all that happens in it, within the limit. */
void
qml_hook_limit_run(const QmlCallback *hook, void (*work)(void *arg), void *arg)
{
	/* If an earlier hook ends the process, this one must not be blamed. */
	CHECK_FOR_INTERRUPTS();
	Assert(limited && running == NULL);
	cancels = 0;
	running = hook;
	enable_timeout_every(timer, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), TIME_LIMIT),
						 CANCEL_AGAIN);
	PG_TRY();
	{
		work(arg);
	}
	PG_CATCH();
	{
		if (!stop_timer() || geterrcode() != ERRCODE_QUERY_CANCELED || caller_is_stopped())
			PG_RE_THROW();
		FlushErrorState();
		raise_too_slow(hook);
	}
	PG_END_TRY();
	if (stop_timer())
		raise_too_slow(hook);
}

/* Whether an error of a call counts as the hook's: all do, but a cancel of the caller. */
bool
qml_hook_limit_is_own(int sqlerrcode)
{
	return sqlerrcode != ERRCODE_QUERY_CANCELED || !(caller_is_late() || caller_is_stopped());
}

/* ----- all calls of a transaction ----- */

/* Starts counting anew if the transaction is another one. */
static void
start_transaction(void)
{
	TimestampTz now = GetCurrentTransactionStartTimestamp();

	Assert(IsTransactionState());
	if (now == since)
		return;
	since = now;
	spent = 0;
	transitions = 0;
}

/* Counts the time that all hooks took for one transition. */
void
qml_hook_limit_note_transition(double milliseconds)
{
	start_transaction();
	spent += milliseconds;
	transitions++;
	average = spent / transitions;
}

/* Raises an error if the hooks of this transaction have used up their time. */
void
qml_hook_limit_check(void)
{
	start_transaction();
	if (transitions == 0 || spent < BUDGET)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("hooks took %.0f ms for %d transitions in one transaction", spent, transitions),
			 errdetail("The transaction is rolled back, and its work is done in smaller ones.")));
}

/* There are no hooks any more: transitions cost nothing. */
void
qml_hook_limit_forget(void)
{
	average = 0;
}

/* Milliseconds that hooks took for a transition lately, for the process that follows this one. */
double
qml_hook_limit_average(void)
{
	return average;
}

/* What they took in the process before this one. */
void
qml_hook_limit_resume(double milliseconds)
{
	average = milliseconds;
}

/* How many transitions fit into the time, by the latest average; 1 at least. */
int
qml_hook_limit_room(int milliseconds)
{
	Assert(milliseconds > 0);
	if (average * MAX_ROOM <= milliseconds)
		return MAX_ROOM;
	return Max((int) (milliseconds / average), 1);
}

/* How many of `most` transitions should share a transaction. */
int
qml_hook_limit_batch(int most)
{
	return Min(most, qml_hook_limit_room(BATCH_TIME));
}
