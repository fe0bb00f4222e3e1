/*
 * callback.c
 *		Functions of users that qml calls besides handlers: state hooks and
 *		middleware, remembered by each backend.
 *
 * They are called in sessions of others: of clients, of the scheduler, of workers.
 * So each runs as the role that registered it, as a security-restricted operation
 * (it cannot become anybody else, make temporary objects, or leave triggers for the
 * end of the transaction, which would run as the session's user), with search_path
 * pinned, because the session's user has set it; and what it sets is undone.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "common/cache.h"
#include "common/spi.h"
#include "compat.h"
#include "core/state.h"
#include "errcodes.h"
#include "model/catalog.h"
#include "userfn/callback.h"
#include "userfn/sandbox.h"

/* All that is remembered of a kind. */
typedef struct Memory
{
	QmlCache cache;
	MemoryContext context;
	List *callbacks; /* in the order in which they are called */
} Memory;

static void start_hooks(void);
static void start_middleware(void);
static void add_hook(HeapTuple tuple, TupleDesc desc);
static void add_middleware(HeapTuple tuple, TupleDesc desc);

static Memory memories[QML_CALLBACK_KINDS] = {
	[QML_HOOK] = {.cache = {.start = start_hooks, .add = add_hook}},
	[QML_MIDDLEWARE] = {.cache = {.start = start_middleware, .add = add_middleware}},
};

/* What was remembered before, and may be in use to the end of the transaction. */
static List *old_contexts = NIL;

const char *
qml_callback_word(QmlCallbackKind kind)
{
	return kind == QML_HOOK ? "hook" : "middleware";
}

/* ----- the tables ----- */

static void
start(QmlCallbackKind kind)
{
	Memory *memory = &memories[kind];

	if (memory->context)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(TopMemoryContext);

		old_contexts = lappend(old_contexts, memory->context);
		MemoryContextSwitchTo(oldcontext);
	}
	memory->context = AllocSetContextCreate(TopMemoryContext, "qml callbacks",
											ALLOCSET_SMALL_SIZES);
	memory->callbacks = NIL;
}

static void
start_hooks(void)
{
	start(QML_HOOK);
}

static void
start_middleware(void)
{
	start(QML_MIDDLEWARE);
}

static int
compare(const ListCell *a, const ListCell *b)
{
	const QmlCallback *first = lfirst(a);
	const QmlCallback *second = lfirst(b);

	if (first->position != second->position)
		return first->position < second->position ? -1 : 1;
	return strcmp(first->name, second->name);
}

/* In the memory of its kind, with what both tables have. */
static QmlCallback *
make_callback(QmlCallbackKind kind, HeapTuple tuple, TupleDesc desc)
{
	QmlCallback *callback = palloc0(sizeof(QmlCallback));
	bool isnull;

	callback->kind = kind;
	callback->name = TextDatumGetCString(heap_getattr(tuple, CALLBACK_NAME, desc, &isnull));
	qml_function_ref_read(tuple, desc, CALLBACK_SCHEMA, &callback->function);
	callback->role = DatumGetObjectId(heap_getattr(tuple, CALLBACK_RUN_AS, desc, &isnull));
	return callback;
}

static void
add_callback(QmlCallback *callback)
{
	Memory *memory = &memories[callback->kind];

	memory->callbacks = lappend(memory->callbacks, callback);
	list_sort(memory->callbacks, compare);
}

static int
read_states(Datum value)
{
	Datum *elements;
	bool *nulls;
	int count;
	int states = 0;

	deconstruct_array(DatumGetArrayTypeP(value), qml_catalog()->state_type, sizeof(Oid), true,
					  TYPALIGN_INT, &elements, &nulls, &count);
	for (int i = 0; i < count; i++)
	{
		if (!nulls[i])
			states |= 1 << qml_catalog_state(DatumGetObjectId(elements[i]));
	}
	return states;
}

static void
add_hook(HeapTuple tuple, TupleDesc desc)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(memories[QML_HOOK].context);
	QmlCallback *hook = make_callback(QML_HOOK, tuple, desc);
	Datum states;
	bool isnull;

	states = heap_getattr(tuple, HOOK_STATES, desc, &isnull);
	hook->states = isnull ? ~0 : read_states(states);
	hook->broken = DatumGetBool(heap_getattr(tuple, HOOK_BROKEN, desc, &isnull));
	hook->errors = DatumGetInt32(heap_getattr(tuple, HOOK_ERRORS, desc, &isnull));
	add_callback(hook);
	MemoryContextSwitchTo(oldcontext);
}

static void
add_middleware(HeapTuple tuple, TupleDesc desc)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(memories[QML_MIDDLEWARE].context);
	QmlCallback *middleware = make_callback(QML_MIDDLEWARE, tuple, desc);
	bool isnull;

	middleware->position = DatumGetInt32(heap_getattr(tuple, MIDDLEWARE_POSITION, desc, &isnull));
	add_callback(middleware);
	MemoryContextSwitchTo(oldcontext);
}

static void
at_end(XactEvent event, void *arg)
{
	ListCell *lc;

	if (old_contexts == NIL || event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_PRE_PREPARE ||
		event == XACT_EVENT_PARALLEL_PRE_COMMIT)
		return;
	foreach(lc, old_contexts)
		MemoryContextDelete(lfirst(lc));
	list_free(old_contexts);
	old_contexts = NIL;
}

void
qml_callback_init(void)
{
	for (int i = 0; i < QML_CALLBACK_KINDS; i++)
		qml_cache_init(&memories[i].cache);
	RegisterXactCallback(at_end, NULL);
}

/* All of a kind, in the order in which they are called. */
List *
qml_callback_all(QmlCallbackKind kind)
{
	qml_cache_refresh(&memories[kind].cache,
					  kind == QML_HOOK ? qml_catalog()->hook : qml_catalog()->middleware);
	return memories[kind].callbacks;
}

/* NULL when there is none of the name. */
const QmlCallback *
qml_callback_find(QmlCallbackKind kind, const char *name)
{
	ListCell *lc;

	foreach(lc, qml_callback_all(kind))
	{
		const QmlCallback *callback = lfirst(lc);

		if (strcmp(callback->name, name) == 0)
			return callback;
	}
	return NULL;
}

/* ----- whether one can be called ----- */

static char *
refuse_arguments(QmlCallbackKind kind, const Form_pg_proc proc)
{
	const QmlCatalog *cat = qml_catalog();
	const Oid types[QML_CALLBACK_ARGS] = {cat->job_type, cat->state_type, cat->state_type};
	int count = kind == QML_HOOK ? QML_CALLBACK_ARGS : 1;
	bool fits = proc->pronargs == count && !OidIsValid(proc->provariadic);

	for (int i = 0; fits && i < count; i++)
		fits = proc->proargtypes.values[i] == types[i];
	if (fits)
		return NULL;
	return kind == QML_HOOK ? "A hook takes (qml.job, qml.job_state, qml.job_state)." :
							  "A middleware takes (qml.job).";
}

static char *
refuse_result(QmlCallbackKind kind, const Form_pg_proc proc)
{
	if (proc->proretset)
		return "It returns a set.";
	if (kind == QML_MIDDLEWARE && proc->prorettype != JSONBOID)
		return "A middleware returns jsonb.";
	if (proc->prorettype != VOIDOID && get_typtype(proc->prorettype) == TYPTYPE_PSEUDO)
		return "It returns a pseudo-type.";
	return NULL;
}

/* Why a function cannot be one of a kind, a sentence; NULL: it can. */
char *
qml_callback_refuse(QmlCallbackKind kind, Oid function)
{
	HeapTuple tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Form_pg_proc proc;
	char *reason = NULL;

	if (!HeapTupleIsValid(tuple))
		return "The function does not exist.";
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	if (proc->prokind != PROKIND_FUNCTION)
		reason = "It is not an ordinary function.";
	if (reason == NULL)
		reason = refuse_arguments(kind, proc);
	if (reason == NULL)
		reason = refuse_result(kind, proc);
	ReleaseSysCache(tuple);
	return reason;
}

static Oid
owner_of(Oid function)
{
	HeapTuple tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Oid owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function);
	owner = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
	ReleaseSysCache(tuple);
	return owner;
}

/* Why the function must not run as the role; NULL: it may. */
static char *
refuse_role(const QmlCallback *callback, Oid function)
{
	char *role = GetUserNameFromId(callback->role, true);
	Oid owner = owner_of(function);

	if (role == NULL)
		return "The role who registered it does not exist.";
	if (!qml_function_ref_may_be_superuser(owner, callback->role))
		return "It would run as a superuser, but does not belong to one.";
	if (!qml_function_ref_trusted(&callback->function, owner, callback->role))
		return "It belongs to another role than when it was registered.";
	if (!qml_function_allows(function, callback->role))
		return psprintf("Role \"%s\", who registered it, must have the privilege EXECUTE.", role);
	return NULL;
}

static Oid
find_usable(const QmlCallback *callback, QmlProblem *problem)
{
	Oid function = qml_function_ref_find(&callback->function);

	problem->detail = qml_callback_refuse(callback->kind, function);
	if (problem->detail == NULL)
		problem->detail = refuse_role(callback, function);
	if (problem->detail == NULL)
		return function;
	problem->sqlerrcode = ERRCODE_QML_HANDLER_NOT_FOUND;
	problem->message = psprintf("function %s of %s \"%s\" cannot be called",
								qml_function_ref_show(&callback->function),
								qml_callback_word(callback->kind), callback->name);
	return InvalidOid;
}

/* Whether it can be called; *problem tells why not. */
bool
qml_callback_usable(const QmlCallback *callback, QmlProblem *problem)
{
	return OidIsValid(find_usable(callback, problem));
}

/*
 * Makes it ready to be called in this transaction, or raises QM007; in the current
 * memory context.
 */
void
qml_callback_prepare(const QmlCallback *callback, QmlCallable *callable)
{
	QmlProblem problem;
	Oid function = find_usable(callback, &problem);

	if (!OidIsValid(function))
		ereport(ERROR,
				(errcode(problem.sqlerrcode), errmsg("%s", problem.message),
				 errdetail("%s", problem.detail)));
	callable->callback = callback;
	fmgr_info(function, &callable->function);
}

/* ----- calling ----- */

static void
add_context(void *arg)
{
	const QmlCallback *callback = arg;

	errcontext("qml %s \"%s\"", qml_callback_word(callback->kind), callback->name);
}

static Datum
invoke(QmlCallable *callable, const NullableDatum *args, bool *isnull)
{
	LOCAL_FCINFO(fcinfo, QML_CALLBACK_ARGS);
	int nargs = callable->function.fn_nargs;
	Datum result;

	InitFunctionCallInfoData(*fcinfo, &callable->function, nargs, InvalidOid, NULL, NULL);
	for (int i = 0; i < nargs; i++)
	{
		fcinfo->args[i] = args[i];
		if (args[i].isnull && callable->function.fn_strict)
		{
			*isnull = true;
			return (Datum) 0;
		}
	}
	result = FunctionCallInvoke(fcinfo);
	*isnull = fcinfo->isnull;
	return result;
}

/*
 * What reads with the rights of whoever opened it: cursors and large objects that are
 * open are none of its, and those that it leaves open are nobody's.
 */
static Datum
invoke_apart(QmlCallable *callable, const NullableDatum *args, bool *isnull)
{
	List *cursors = qml_sandbox_hide_portals();
	bool forbidden = qml_sandbox_forbid_lobjects(true);
	volatile Datum result = (Datum) 0;

	PG_TRY();
	{
		result = invoke(callable, args, isnull);
		qml_sandbox_close_other_portals();
	}
	PG_FINALLY();
	{
		(void) qml_sandbox_forbid_lobjects(forbidden);
		qml_sandbox_show_portals(cursors);
	}
	PG_END_TRY();
	return result;
}

/*
 * Calls it.  After an error the abort of the (sub)transaction restores the user and
 * the settings.
 */
Datum
qml_callback_call(QmlCallable *callable, const NullableDatum *args, bool *isnull)
{
	ErrorContextCallback context = {.previous = error_context_stack,
									.callback = add_context,
									.arg = unconstify(QmlCallback *, callable->callback)};
	int guc_level = NewGUCNestLevel();
	Oid user;
	int security;
	Datum result;

	error_context_stack = &context;
	qml_spi_pin();
	GetUserIdAndSecContext(&user, &security);
	SetUserIdAndSecContext(callable->callback->role,
						   security | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	PushActiveSnapshot(GetTransactionSnapshot());
	result = invoke_apart(callable, args, isnull);
	PopActiveSnapshot();
	SetUserIdAndSecContext(user, security);
	AtEOXact_GUC(false, guc_level);
	error_context_stack = context.previous;
	return result;
}
