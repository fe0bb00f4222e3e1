/*
 * callback.c
 *		State hooks and middleware: cached by each backend, and whether they can be
 *		called.
 *
 * The two kinds have a table each.  A table is read again as a whole after each change
 * (common/cache.c).  Callers may keep a QmlCallback until the transaction ends: the
 * lists that are replaced are deleted then.
 *
 * The function of a callback is not cached.  It is looked up by its name, and its owner
 * and privileges are checked, each time a transaction prepares to call it.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "common/cache.h"
#include "compat.h"
#include "errcodes.h"
#include "model/catalog.h"
#include "userfn/callback.h"

/* The callbacks of one kind. */
typedef struct CallbackList
{
	QmlCache cache;
	MemoryContext context; /* holds the list and its members */
	List *callbacks;	   /* in the order in which they are called */
} CallbackList;

static void start_hooks(void);
static void start_middleware(void);
static void add_hook(HeapTuple tuple, TupleDesc desc);
static void add_middleware(HeapTuple tuple, TupleDesc desc);

static CallbackList lists[QML_CALLBACK_KINDS] = {
	[QML_HOOK] = {.cache = {.start = start_hooks, .add = add_hook}},
	[QML_MIDDLEWARE] = {.cache = {.start = start_middleware, .add = add_middleware}},
};

/* As messages call the kind. */
const char *
qml_callback_word(QmlCallbackKind kind)
{
	return kind == QML_HOOK ? "hook" : "middleware";
}

/* ----- the tables ----- */

/* Begins an empty list; the old one stays valid until the transaction ends. */
static void
start_list(QmlCallbackKind kind)
{
	CallbackList *list = &lists[kind];

	if (list->context)
		qml_cache_retire(list->context);
	list->context = NULL;
	list->callbacks = NIL;
	list->context = AllocSetContextCreate(TopMemoryContext, "qml callbacks", ALLOCSET_SMALL_SIZES);
}

static void
start_hooks(void)
{
	start_list(QML_HOOK);
}

static void
start_middleware(void)
{
	start_list(QML_MIDDLEWARE);
}

/* Middleware by position, then by name; hooks have no position. */
static int
compare_order(const ListCell *a, const ListCell *b)
{
	const QmlCallback *first = lfirst(a);
	const QmlCallback *second = lfirst(b);

	if (first->position != second->position)
		return first->position < second->position ? -1 : 1;
	return strcmp(first->name, second->name);
}

/* Reads the columns that both tables have. */
static QmlCallback *
read_callback(QmlCallbackKind kind, HeapTuple tuple, TupleDesc desc)
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
	CallbackList *list = &lists[callback->kind];

	list->callbacks = lappend(list->callbacks, callback);
	list_sort(list->callbacks, compare_order);
}

/* An array of qml.job_state as a set of bits. */
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
	MemoryContext oldcontext = MemoryContextSwitchTo(lists[QML_HOOK].context);
	QmlCallback *hook = read_callback(QML_HOOK, tuple, desc);
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
	MemoryContext oldcontext = MemoryContextSwitchTo(lists[QML_MIDDLEWARE].context);
	QmlCallback *middleware = read_callback(QML_MIDDLEWARE, tuple, desc);
	bool isnull;

	middleware->position = DatumGetInt32(heap_getattr(tuple, MIDDLEWARE_POSITION, desc, &isnull));
	add_callback(middleware);
	MemoryContextSwitchTo(oldcontext);
}

/* Called when the library is loaded. */
void
qml_callback_init(void)
{
	for (int i = 0; i < QML_CALLBACK_KINDS; i++)
		qml_cache_init(&lists[i].cache);
}

/* All of a kind, in the order in which they are called. */
List *
qml_callback_all(QmlCallbackKind kind)
{
	Assert(IsTransactionState());
	qml_cache_refresh(&lists[kind].cache,
					  kind == QML_HOOK ? qml_catalog()->hook : qml_catalog()->middleware);
	return lists[kind].callbacks;
}

/* NULL when there is none of that name. */
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

/*
 * Why a function cannot be a hook, or a middleware, as a sentence; NULL: it can.  A hook
 * gets the job, its old state and its new one, and its result is ignored; a middleware
 * gets the job and returns the result of the job.
 */
char *
qml_callback_refuse(QmlCallbackKind kind, Oid function)
{
	const QmlCatalog *cat = qml_catalog();
	const Oid types[] = {cat->job_type, cat->state_type, cat->state_type};
	int count = kind == QML_HOOK ? 3 : 1;
	HeapTuple tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Form_pg_proc proc;
	bool fits;
	char *reason = NULL;

	if (!HeapTupleIsValid(tuple))
		return "The function does not exist.";
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	fits = proc->pronargs == count && !OidIsValid(proc->provariadic);
	for (int i = 0; fits && i < count; i++)
		fits = proc->proargtypes.values[i] == types[i];

	if (proc->prokind != PROKIND_FUNCTION)
		reason = "It is not an ordinary function.";
	else if (!fits)
		reason = kind == QML_HOOK ? "A hook takes (qml.job, qml.job_state, qml.job_state)." :
									"A middleware takes (qml.job).";
	else if (proc->proretset)
		reason = "It returns a set.";
	else if (kind == QML_MIDDLEWARE && proc->prorettype != JSONBOID)
		reason = "A middleware returns jsonb.";
	else if (proc->prorettype != VOIDOID && get_typtype(proc->prorettype) == TYPTYPE_PSEUDO)
		reason = "It returns a pseudo-type.";
	ReleaseSysCache(tuple);
	return reason;
}

/* Why the function must not run as the role of the callback; NULL: it may. */
static char *
refuse_role(const QmlCallback *callback, Oid function)
{
	char *role = GetUserNameFromId(callback->role, true);
	Oid owner = qml_function_ref_owner(function);

	if (role == NULL)
		return "The role that registered it does not exist.";
	if (!qml_function_ref_superuser_allowed(owner, callback->role))
		return "It would run as a superuser, but it is not owned by one.";
	if (!qml_function_ref_trusted(&callback->function, owner, callback->role))
		return "Its owner is not the role that owned it when it was registered.";
	if (!qml_function_allows(function, callback->role))
		return psprintf("Role \"%s\", which registered it, must have the privilege EXECUTE.", role);
	return NULL;
}

/* The function of a callback that can be called now; InvalidOid: *problem says why not. */
Oid
qml_callback_resolve(const QmlCallback *callback, QmlProblem *problem)
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
