/*
 * hook_limit.c
 *		How long hooks may hold up a background process, which nobody watches and
 *		which has no statement_timeout.
 *
 *	 - One call may take TIME_LIMIT, and is canceled then.
 *	 - One that goes on, because it catches that, is canceled again, and after
 *	   GRACE more times its process ends.  The hook is remembered in shared memory,
 *	   so that it is switched off by the next process.
 *	 - All calls of a transaction may take BUDGET.  When that is used up the
 *	   transaction is undone, and does less the next time (qml_hook_limit_batch).
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
#define TIME_LIMIT 2000
#define AGAIN	   500
#define BUDGET	   20000
#define BATCH_TIME 1000 /* far below, since it is only a guess */

#define GRACE 5

/* More than anything does at once. */
#define MAX_ROOM 1000000

static bool limited = false;
static bool (*caller_stops)(void) = NULL;
static bool (*caller_is_late)(void);
static TimeoutId timer;
static const QmlCallback *running = NULL;
static volatile sig_atomic_t canceled = 0; /* how often, since it runs */

/* Of the transaction that began at `since`. */
static TimestampTz since = 0;
static double spent; /* milliseconds */
static int told;	 /* transitions */

static double average = 0; /* milliseconds of a transition, lately */

static void
on_timer(void)
{
	InterruptPending = true;
	if (++canceled > GRACE)
		ProcDiePending = true;
	else
		QueryCancelPending = true;
	enable_timeout_after(timer, AGAIN);
}

/* ----- hooks that cannot be stopped ----- */

uint32
qml_hook_limit_hash(const QmlCallback *hook)
{
	return hash_bytes((const unsigned char *) hook->name, strlen(hook->name));
}

/* On exit: whether it is because of a hook. */
static void
remember_stuck(int code, Datum arg)
{
	if (running == NULL || canceled <= GRACE)
		return;
	ereport(LOG,
			(errmsg("hook \"%s\" goes on although it was canceled %d times: its process ends",
					running->name, GRACE)));
	qml_stuck_hooks_add(qml_hook_limit_hash(running));
	qml_due_now(QML_WAKE_HOOK);
}

/*
 * In a background process that is connected.  stops, or NULL: whether what calls hooks
 * was told to stop by a cancel of its own.  is_late: whether its transaction has used up
 * its time.
 */
void
qml_hook_limit_init(bool (*stops)(void), bool (*is_late)(void))
{
	caller_stops = stops;
	caller_is_late = is_late;
	timer = RegisterTimeout(USER_TIMEOUT, on_timer);
	before_shmem_exit(remember_stuck, (Datum) 0);
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

/* Whether the limit had passed; what was meant for the hook must not hit what comes next. */
static bool
stop(void)
{
	disable_timeout(timer, false);
	/* It is known whose process ends, though the hook has come back meanwhile. */
	if (canceled <= GRACE)
		running = NULL;
	if (canceled == 0)
		return false;
	QueryCancelPending = false;
	if (caller_is_stopped())
		InterruptPending = QueryCancelPending = true;
	return true;
}

static void
raise_late(const QmlCallback *hook)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("hook \"%s\" took longer than %d ms", hook->name, TIME_LIMIT),
			 errdetail("In a background process no hook may take longer.")));
}

/* Does work that calls a hook, and whatever that calls, with the limit. */
void
qml_hook_limit_run(const QmlCallback *hook, void (*work)(void *arg), void *arg)
{
	/* If the one before takes the process with it, it is not because of this one. */
	CHECK_FOR_INTERRUPTS();
	canceled = 0;
	running = hook;
	enable_timeout_after(timer, TIME_LIMIT);
	PG_TRY();
	{
		work(arg);
	}
	PG_CATCH();
	{
		if (!stop() || geterrcode() != ERRCODE_QUERY_CANCELED || caller_is_stopped())
			PG_RE_THROW();
		FlushErrorState();
		raise_late(hook);
	}
	PG_END_TRY();
	if (stop())
		raise_late(hook);
}

/* Whether an error of the call may be the hook's, and is not its caller's. */
bool
qml_hook_limit_is_own(int sqlerrcode)
{
	return sqlerrcode != ERRCODE_QUERY_CANCELED || !(caller_is_late() || caller_is_stopped());
}

/* ----- all calls of a transaction ----- */

static void
begin_transaction(void)
{
	TimestampTz now = GetCurrentTransactionStartTimestamp();

	if (now == since)
		return;
	since = now;
	spent = 0;
	told = 0;
}

/* All hooks are told of a transition, which took so long. */
void
qml_hook_limit_note_transition(double milliseconds)
{
	begin_transaction();
	spent += milliseconds;
	told++;
	average = spent / told;
}

/* Raises an error if a transaction's hooks took too long for any more transitions. */
void
qml_hook_limit_check(void)
{
	begin_transaction();
	if (told == 0 || spent < BUDGET)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("hooks took %.0f ms for %d transitions of a transaction", spent, told),
			 errdetail("It is undone, and done in smaller parts.")));
}

/* There are no hooks any more: nothing takes long. */
void
qml_hook_limit_forget(void)
{
	average = 0;
}

/* How many transitions hooks can be told of in this time, as it was lately; 1 at least. */
int
qml_hook_limit_room(int milliseconds)
{
	if (average * MAX_ROOM <= milliseconds)
		return MAX_ROOM;
	return Max((int) (milliseconds / average), 1);
}

/* Of so many transitions, how many may be in one transaction. */
int
qml_hook_limit_batch(int most)
{
	return Min(most, qml_hook_limit_room(BATCH_TIME));
}
