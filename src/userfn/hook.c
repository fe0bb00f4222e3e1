/*
 * hook.c
 *		State hooks: functions of users that are told of each transition.
 *
 * Transitions are noted while rows are written, and told of when they are, in the
 * order in which they happened; for each of them the hooks that want to know of its
 * new state, in the order of their names.  All in the transaction that made them.
 *
 * The error of a hook is that of the call that made the transition, and undoes it.
 * Where nobody asked for the transition - jobs that are promoted, taken back,
 * fired, claimed by a worker in the background - it must not stand in the way: each
 * call is a subtransaction there, a hook that fails MAX_ERRORS times in a row is
 * switched off, and in background processes its time is limited (userfn/hook_limit.c).
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/spi.h"
#include "common/subxact.h"
#include "ipc/stuck_hooks.h"
#include "ipc/wakeup.h"
#include "model/catalog.h"
#include "userfn/callback.h"
#include "userfn/hook.h"
#include "userfn/hook_limit.h"

#define MAX_ERRORS 5

/* Of a transaction whose hooks are called carefully; below PGPROC_MAX_CACHED_SUBXIDS. */
#define MAX_SUBTRANSACTIONS 60

/* Hooks whose work calls hooks, one within the other. */
#define MAX_DEPTH 16

/* One transition. */
typedef struct Transition
{
	Datum job; /* qml.job */
	QmlState from;
	QmlState to;
	bool is_new; /* there is no `from` */
} Transition;

/* A hook while the transitions of a call are told. */
typedef struct Hook
{
	const QmlCallback *callback;
	bool prepared;
	QmlCallable callable;
	int errors;		/* in a row */
	bool succeeded; /* so that those from before do not count */
	bool failed;
	QmlFailure failure; /* the last one */
} Hook;

static int depth = 0;

/* Notes go into the current memory context. */
void
qml_hook_start(QmlHookCalls *calls, bool carefully)
{
	calls->list = NIL;
	calls->context = CurrentMemoryContext;
	calls->carefully = carefully;
}

static bool
wants(const QmlCallback *hook, QmlState state)
{
	return !hook->broken && (hook->states & (1 << state)) != 0;
}

/* Whether a hook is called when jobs come into the state. */
bool
qml_hook_wanted(QmlState state)
{
	ListCell *lc;

	foreach(lc, qml_callback_all(QML_HOOK))
	{
		if (wants(lfirst(lc), state))
			return true;
	}
	return false;
}

/* The job has another state than the one it was read with, or is new. */
void
qml_hook_note(QmlHookCalls *calls, const QmlJob *job, bool is_new)
{
	MemoryContext oldcontext;
	Transition *transition;

	if (!is_new && job->state == job->was)
		return;
	if (!qml_hook_wanted(job->state))
		return;
	oldcontext = MemoryContextSwitchTo(calls->context);
	transition = palloc(sizeof(Transition));
	transition->job = qml_job_to_row(job, true);
	transition->from = job->was;
	transition->to = job->state;
	transition->is_new = is_new;
	calls->list = lappend(calls->list, transition);
	MemoryContextSwitchTo(oldcontext);
}

/* ----- calling ----- */

static void
call(Hook *hook, const Transition *transition)
{
	const Oid *labels = qml_catalog()->states;
	NullableDatum args[QML_CALLBACK_ARGS] = {
		{.value = transition->job},
		{.value = ObjectIdGetDatum(labels[transition->from]), .isnull = transition->is_new},
		{.value = ObjectIdGetDatum(labels[transition->to])},
	};
	bool isnull;

	if (!hook->prepared)
		qml_callback_prepare(hook->callback, &hook->callable);
	hook->prepared = true;
	(void) qml_callback_call(&hook->callable, args, &isnull);
}

typedef struct Call
{
	Hook *hook;
	const Transition *transition;
} Call;

static void
call_limited(void *arg)
{
	Call *this = arg;

	call(this->hook, this->transition);
}

/* Hooks whose work makes transitions are called for those, too, but not for ever. */
static void
call_deeper(Hook *hook, const Transition *transition)
{
	if (depth >= MAX_DEPTH)
		ereport(ERROR,
				(errcode(ERRCODE_STATEMENT_TOO_COMPLEX),
				 errmsg("hooks call each other more than %d deep", MAX_DEPTH),
				 errdetail("What hook \"%s\" does makes transitions that it is called for.",
						   hook->callback->name),
				 errhint("Register it for fewer states.")));
	depth++;
	PG_TRY();
	{
		/* One limit is for all that happens below. */
		if (qml_hook_limit_is_on() && depth == 1)
			qml_hook_limit_run(hook->callback, call_limited,
							   &(Call){.hook = hook, .transition = transition});
		else
			call(hook, transition);
	}
	PG_FINALLY();
	{
		depth--;
	}
	PG_END_TRY();
}

static void
call_in_subtransaction(void *arg)
{
	Call *this = arg;

	call_deeper(this->hook, this->transition);
}

/* An error that is not the hook's, but its caller's. */
static bool
is_callers(int sqlerrcode)
{
	if (qml_hook_limit_is_on())
		return !qml_hook_limit_is_own(sqlerrcode);
	return sqlerrcode == ERRCODE_QUERY_CANCELED ||
		   ERRCODE_TO_CATEGORY(sqlerrcode) == ERRCODE_TRANSACTION_ROLLBACK;
}

static void
call_carefully(Hook *hook, const Transition *transition)
{
	Call this = {.hook = hook, .transition = transition};

	if (hook->errors >= MAX_ERRORS)
		return;
	if (qml_subxact_try(call_in_subtransaction, &this, is_callers, &hook->failure))
	{
		hook->errors = 0;
		hook->succeeded = true;
		return;
	}
	/* What was made ready in the subtransaction is gone with it. */
	hook->prepared = false;
	hook->failed = true;
	hook->errors++;
}

/* ----- hooks that fail ----- */

static void
tell(const Hook *hook, bool broken)
{
	if (broken)
		ereport(WARNING,
				(errcode(hook->failure.sqlerrcode),
				 errmsg("hook \"%s\" failed %d times in a row and is switched off",
						hook->callback->name, MAX_ERRORS),
				 errdetail("%s (SQLSTATE %s)", hook->failure.message,
						   unpack_sql_state(hook->failure.sqlerrcode)),
				 errhint("Mend it, and register it again by qml_add_hook().")));
	else if (hook->failed && qml_log_is_due(QML_LOG_HOOKS))
		ereport(WARNING,
				(errcode(hook->failure.sqlerrcode),
				 errmsg("hook \"%s\" failed, and is passed over", hook->callback->name),
				 errdetail("%s (SQLSTATE %s)", hook->failure.message,
						   unpack_sql_state(hook->failure.sqlerrcode))));
}

/*
 * Writes down how it went, unless somebody else is at it, whom nobody waits for, or
 * has switched it off meanwhile.  Whether it was written.
 */
static bool
write_errors(const Hook *hook)
{
	Oid types[] = {TEXTOID, INT4OID, TEXTOID, BOOLOID, INT4OID};
	Datum values[lengthof(types)];
	bool nulls[lengthof(types)] = {false};
	QmlSpi spi;
	bool written;
	bool broken = false;
	bool isnull;

	values[0] = CStringGetTextDatum(hook->callback->name);
	values[1] = Int32GetDatum(hook->succeeded ? hook->errors :
												hook->errors - hook->callback->errors);
	nulls[2] = !hook->failed;
	if (hook->failed)
		values[2] = CStringGetTextDatum(hook->failure.message);
	values[3] = BoolGetDatum(hook->succeeded);
	values[4] = Int32GetDatum(MAX_ERRORS);
	qml_spi_begin(&spi, qml_catalog()->owner);
	written =
		qml_spi_execute("UPDATE qml.hook AS h "
						"SET errors = LEAST($2 + CASE WHEN $4 THEN 0 ELSE h.errors END, $5), "
						"broken = $2 + CASE WHEN $4 THEN 0 ELSE h.errors END >= $5, "
						"last_error = coalesce($3, h.last_error), "
						"last_error_at = CASE WHEN $3 IS NULL THEN h.last_error_at "
						"ELSE pg_catalog.clock_timestamp() END "
						"WHERE NOT h.broken AND h.name = "
						"(SELECT s.name FROM qml.hook s WHERE s.name = $1 FOR UPDATE SKIP LOCKED) "
						"RETURNING h.broken",
						lengthof(types), types, values, nulls, SPI_OK_UPDATE_RETURNING) > 0;
	if (written)
		broken = DatumGetBool(
			SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	qml_spi_end(&spi);
	if (written)
		tell(hook, broken);
	return written;
}

/* ----- all of a call ----- */

static void
tell_hook(Hook *hook, const QmlHookCalls *calls, const Transition *transition)
{
	if (!wants(hook->callback, transition->to))
		return;
	if (calls->carefully)
		call_carefully(hook, transition);
	else
		call_deeper(hook, transition);
}

static void
tell_hooks(Hook *hooks, int count, const QmlHookCalls *calls, const Transition *transition)
{
	/* Of those that are called within others the time is counted by the outermost. */
	bool counted = qml_hook_limit_is_on() && depth == 0;
	instr_time start;

	if (counted && calls->carefully)
		qml_hook_limit_check();
	INSTR_TIME_SET_CURRENT(start);
	for (int i = 0; i < count; i++)
		tell_hook(&hooks[i], calls, transition);
	if (counted)
		qml_hook_limit_note_transition(qml_clock_ms_since(start));
}

static int
count_listeners(void)
{
	ListCell *lc;
	int count = 0;

	foreach(lc, qml_callback_all(QML_HOOK))
	{
		if (!((QmlCallback *) lfirst(lc))->broken)
			count++;
	}
	return count;
}

/*
 * Tells the hooks of the transitions that were noted.  Whatever the caller has open
 * on qml's tables must be closed: hooks may change jobs, too.
 */
void
qml_hook_run(QmlHookCalls *calls)
{
	List *transitions = calls->list;
	List *callbacks;
	Hook *hooks;
	int count;
	ListCell *lc;

	if (transitions == NIL)
	{
		if (qml_hook_limit_is_on() && count_listeners() == 0)
			qml_hook_limit_forget();
		return;
	}
	calls->list = NIL;
	/* They see the jobs as they are now. */
	CommandCounterIncrement();
	callbacks = qml_callback_all(QML_HOOK);
	count = list_length(callbacks);
	hooks = palloc0(sizeof(Hook) * Max(count, 1));
	for (int i = 0; i < count; i++)
	{
		hooks[i].callback = list_nth(callbacks, i);
		hooks[i].errors = hooks[i].callback->errors;
	}
	foreach(lc, transitions)
		tell_hooks(hooks, count, calls, lfirst(lc));
	for (int i = 0; i < count; i++)
	{
		if (calls->carefully && (hooks[i].failed || hooks[i].errors != hooks[i].callback->errors))
			(void) write_errors(&hooks[i]);
	}
}

/* Switches off those that could not be stopped, and took a process with them. */
void
qml_hook_switch_off_stuck(void)
{
	uint32 stuck[QML_MAX_STUCK];
	bool left[QML_MAX_STUCK] = {false}; /* for the next time */
	int count = qml_stuck_hooks_list(stuck);
	ListCell *lc;

	if (count == 0)
		return;
	foreach(lc, qml_callback_all(QML_HOOK))
	{
		Hook hook = {.callback = lfirst(lc),
					 .failed = true,
					 .succeeded = true, /* whatever was before */
					 .errors = MAX_ERRORS,
					 .failure = {.sqlerrcode = ERRCODE_QUERY_CANCELED,
								 .message = "it went on although it was canceled"}};

		for (int i = 0; i < count; i++)
		{
			if (qml_hook_limit_hash(hook.callback) == stuck[i] && !hook.callback->broken)
				left[i] = !write_errors(&hook) || left[i];
		}
	}
	for (int i = 0; i < count; i++)
	{
		if (left[i])
			qml_wakeup_at(QML_WAKE_HOOK, GetCurrentTimestamp() + USECS_PER_SEC);
		else
			qml_stuck_hooks_remove(stuck[i]);
	}
}

/*
 * Of so many transitions, how many may be in one transaction.  Each call of a hook is a
 * subtransaction, and a snapshot remembers so many of them only.
 */
int
qml_hook_batch(int most)
{
	int listeners = count_listeners();

	if (listeners > 0)
		most = Min(most, Max(MAX_SUBTRANSACTIONS / listeners, 1));
	return qml_hook_limit_batch(most);
}

/* Whether this is called by a hook, or by what that calls. */
bool
qml_hook_is_running(void)
{
	return depth > 0;
}
