/*
 * hook.c
 *		State hooks: functions of users that run in every transition of a job.
 *
 * Transitions are noted while rows are written.  The hooks are called when all rows of
 * the operation are written and its scans are closed, because a hook may change jobs
 * itself; but before the operation returns, because its error must be the error of the
 * call.  They are called in the order of the transitions, for each of them in the order
 * of the hooks' names, and all in the transaction that made the transitions.
 *
 * The error of a hook is the error of the call that made the transition, and undoes it.
 * Where no caller could handle the error, a hook must not stop the work: for jobs that
 * are promoted, reclaimed, rejected or enqueued by a schedule, or that a background worker
 * claims or releases, and for its attempts that end without effects.  There the calls are
 * guarded: each is a subtransaction, and a hook that fails too many times in a row is
 * disabled (userfn/hook_failure.c).  They are not for an attempt that ends with effects:
 * there the error undoes what the handler did, and fails the attempt.  In background
 * processes the time of all calls is limited (userfn/hook_limit.c).
 *
 * Only hooks of roles with the privileges of the extension's owner are called here; those
 * of others are called after the commit (jobs/after_commit.c).  Jobs of qml's own queue have
 * no hooks.
 *
 * Hooks run in the caller's session with the rights of the role that registered them
 * (userfn/callback_call.c).  They hold the locks of the transitions while they run: the
 * rows of the jobs, and the locks on their queues.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/inval.h"

#include "common/clock.h"
#include "model/catalog.h"
#include "model/redact.h"
#include "userfn/callback_call.h"
#include "userfn/hook.h"
#include "userfn/hook_failure.h"
#include "userfn/hook_limit.h"

/* Of a transaction with guarded calls; below PGPROC_MAX_CACHED_SUBXIDS. */
#define MAX_SUBTRANSACTIONS 60

/* Hooks that run within each other, because what they do makes transitions. */
#define MAX_DEPTH 16

/* One transition. */
typedef struct Transition
{
	Datum job; /* qml.job */
	QmlState from;
	QmlState to;
	bool is_new; /* there is no `from` */
	bool hidden; /* something is hidden in the job */
} Transition;

/* A hook while the transitions of an operation are reported to it. */
typedef struct ActiveHook
{
	QmlHookResult result;
	bool prepared;
	QmlCallable callable;
} ActiveHook;

/* One call of a hook, as an argument of functions that run it. */
typedef struct HookCall
{
	ActiveHook *hook;
	const Transition *transition;
} HookCall;

/* Hooks that are running now, one within the other. */
static int depth = 0;

/* Begins an operation; its transitions are kept in the current memory context. */
void
qml_hook_start(QmlHookCalls *calls, bool guarded)
{
	calls->list = NIL;
	calls->context = CurrentMemoryContext;
	calls->guarded = guarded;
}

static bool
wants_state(const QmlCallback *hook, QmlState state)
{
	return !hook->broken && !hook->options.after_commit && (hook->states & (1 << state)) != 0;
}

/* Whether there are any hooks, of whatever kind. */
bool
qml_hook_exist(void)
{
	return qml_callback_all(QML_HOOK) != NIL;
}

/*
 * Whether a hook that is not disabled is called at all.  One whose role has lost the right
 * is passed over: it must not run, and who changes jobs is not to blame for it.
 */
static bool
is_active(const QmlCallback *hook)
{
	return !hook->broken && !hook->options.after_commit &&
		   qml_callback_is_allowed(hook, InvalidOid) && !qml_hook_limit_is_stuck(hook);
}

/* Whether any hook is called, before the commit, for transitions to the state. */
bool
qml_hook_wanted(QmlState state)
{
	ListCell *lc;

	foreach(lc, qml_callback_all(QML_HOOK))
	{
		if (wants_state(lfirst(lc), state) && is_active(lfirst(lc)))
			return true;
	}
	return false;
}

/*
 * Notes a transition if any hook is called for it: the job is new, or its state is not
 * the one that it was read with.
 */
void
qml_hook_note(QmlHookCalls *calls, const QmlJob *job, bool is_new)
{
	MemoryContext oldcontext;
	Transition *transition;

	Assert(calls->context != NULL);
	Assert(is_new || job->state != job->was);
	if (!qml_hook_wanted(job->state))
		return;
	oldcontext = MemoryContextSwitchTo(calls->context);
	transition = palloc(sizeof(Transition));
	transition->job = qml_job_row(job, QML_ACCESS_FULL);
	transition->from = job->was;
	transition->to = job->state;
	transition->is_new = is_new;
	transition->hidden = qml_redact_has(qml_queue_by_id(job->queue_id), job->method);
	calls->list = lappend(calls->list, transition);
	MemoryContextSwitchTo(oldcontext);
}

/* ----- one call ----- */

static void
call_hook(void *arg)
{
	HookCall *call = arg;
	ActiveHook *hook = call->hook;
	const Transition *transition = call->transition;
	const Oid *labels = qml_catalog()->states;
	NullableDatum args[QML_CALLBACK_ARGS] = {
		{.value = transition->job},
		{.value = ObjectIdGetDatum(labels[transition->from]), .isnull = transition->is_new},
		{.value = ObjectIdGetDatum(labels[transition->to])},
	};
	bool isnull;

	Assert(depth > 0 && wants_state(hook->result.hook, transition->to));
	if (!hook->prepared)
		qml_callback_call_prepare(hook->result.hook, &hook->callable);
	hook->prepared = true;
	(void) qml_callback_call_run(&hook->callable, args, &isnull);
}

/*
 * A hook that makes transitions has hooks called for those, too, itself included: up to
 * MAX_DEPTH, as this would not end otherwise.
 */
static void
call_nested(void *arg)
{
	HookCall *call = arg;

	if (depth >= MAX_DEPTH)
		ereport(ERROR,
				(errcode(ERRCODE_STATEMENT_TOO_COMPLEX),
				 errmsg("hook calls are nested more than %d levels deep", MAX_DEPTH),
				 errdetail("What hook \"%s\" does makes transitions that it is called for.",
						   call->hook->result.hook->name),
				 errhint("Register it for fewer states.")));
	depth++;
	PG_TRY();
	{
		/* The limit of the outermost hook holds for all that happens in it. */
		if (qml_hook_limit_is_on() && depth == 1)
			qml_hook_limit_run(call->hook->result.hook, call_hook, call);
		else
			call_hook(call);
	}
	PG_FINALLY();
	{
		Assert(depth > 0);
		depth--;
	}
	PG_END_TRY();
}

/*
 * Whether an error is not the hook's fault but the caller's, and must end its
 * transaction.  In a background process only a cancel can be: all other errors count, or
 * a hook that raises "serialization failure" could stop the scheduler for ever.
 */
static bool
is_callers_error(int sqlerrcode)
{
	if (qml_hook_limit_is_on())
		return !qml_hook_limit_is_own(sqlerrcode);
	return sqlerrcode == ERRCODE_QUERY_CANCELED ||
		   ERRCODE_TO_CATEGORY(sqlerrcode) == ERRCODE_TRANSACTION_ROLLBACK;
}

/* Calls a hook so that its error leaves no trace but the count. */
static void
call_guarded(HookCall *call)
{
	QmlHookResult *result = &call->hook->result;

	if (result->errors >= QML_HOOK_MAX_ERRORS)
		return;
	if (qml_subxact_try(call_nested, call, is_callers_error, &result->failure))
	{
		result->errors = 0;
		result->succeeded = true;
		return;
	}
	/* What was prepared in the subtransaction is gone with it. */
	call->hook->prepared = false;
	result->failed = true;
	result->hidden = call->transition->hidden;
	result->errors++;
}

/* ----- the calls of an operation ----- */

/* Calls all hooks that want the transition. */
static void
report_transition(ActiveHook *hooks, int count, const QmlHookCalls *calls,
				  const Transition *transition)
{
	/* The time of nested hooks is part of the time of the outermost one. */
	bool timed = qml_hook_limit_is_on() && depth == 0;
	instr_time start;

	if (timed && calls->guarded)
		qml_hook_limit_check();
	INSTR_TIME_SET_CURRENT(start);
	for (int i = 0; i < count; i++)
	{
		HookCall call = {.hook = &hooks[i], .transition = transition};

		if (!wants_state(hooks[i].result.hook, transition->to) || !is_active(hooks[i].result.hook))
			continue;
		if (calls->guarded)
			call_guarded(&call);
		else
			call_nested(&call);
	}
	if (timed)
		qml_hook_limit_note_transition(qml_clock_ms_since(start));
}

static int
count_active_hooks(void)
{
	ListCell *lc;
	int count = 0;

	foreach(lc, qml_callback_all(QML_HOOK))
	{
		if (is_active(lfirst(lc)))
			count++;
	}
	return count;
}

/*
 * Calls the hooks for the transitions that were noted.  The caller must have closed its
 * scans of qml's tables and flushed its inserts: hooks can change jobs.
 */
void
qml_hook_run(QmlHookCalls *calls)
{
	List *transitions = calls->list;
	List *callbacks;
	ActiveHook *hooks;
	int count;
	ListCell *lc;

	Assert(IsTransactionState());
	if (transitions == NIL)
	{
		if (qml_hook_limit_is_on() && count_active_hooks() == 0)
			qml_hook_limit_forget();
		return;
	}
	calls->list = NIL;
	/* Hooks see the jobs as they are now; a right that was revoked meanwhile is gone. */
	CommandCounterIncrement();
	AcceptInvalidationMessages();
	callbacks = qml_callback_all(QML_HOOK);
	count = list_length(callbacks);
	hooks = palloc0(sizeof(ActiveHook) * Max(count, 1));
	for (int i = 0; i < count; i++)
	{
		hooks[i].result.hook = list_nth(callbacks, i);
		hooks[i].result.errors = hooks[i].result.hook->errors;
	}
	foreach(lc, transitions)
		report_transition(hooks, count, calls, lfirst(lc));
	for (int i = 0; i < count; i++)
	{
		const QmlHookResult *result = &hooks[i].result;

		if (calls->guarded && (result->failed || result->errors != result->hook->errors))
			(void) qml_hook_failure_record(result);
	}
}

/*
 * How many of `most` transitions should share a transaction.  Each call of a hook is a
 * subtransaction, and a snapshot holds only so many of them without a lookup on disk.
 */
int
qml_hook_batch_size(int most)
{
	int active = count_active_hooks();

	if (active > 0)
		most = Min(most, Max(MAX_SUBTRANSACTIONS / active, 1));
	return qml_hook_limit_batch(most);
}

/* Whether the caller is a hook, or runs within one. */
bool
qml_hook_is_running(void)
{
	return depth > 0;
}
