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
 *
 * PL/pgSQL keeps what it has compiled of a function for the whole session, with the types
 * that the search_path of the first call led to, and nothing can undo that.  So whoever has
 * a function called in a session can have it run code of theirs later, as whoever uses the
 * session then.  Therefore no session calls a function but those of
 *
 *	 - roles with the privileges of the role that owns the extension: hooks and middleware,
 *	   in all sessions;
 *	 - the session's own role: its middleware, around its own handlers.
 *
 * The other way round, nobody else may be able to call the functions of the owner's hooks and
 * middleware, or they would decide in the same way what these do.
 *
 * Hooks of other roles are called after the commit, by jobs that run as their role
 * (userfn/hook_job.c).  The right of the role is looked at before each call: a callback
 * whose role has lost it is passed over.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "common/cache.h"
#include "compat.h"
#include "errcodes.h"
#include "model/acl.h"
#include "model/catalog.h"
#include "model/role_mark.h"
#include "userfn/callback.h"
#include "userfn/handler.h"

/* The callbacks of one kind. */
typedef struct CallbackList
{
	QmlCache cache;
	MemoryContext context; /* holds the list and its members */
	List *callbacks;
	bool sorted; /* in the order in which they are called */
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
	list->sorted = true;
	list->context = AllocSetContextCreate(TopMemoryContext, "qml callbacks", ALLOCSET_SMALL_SIZES);
}

static void
start_hooks(void)
{
	ListCell *lc;

	foreach(lc, lists[QML_HOOK].callbacks)
	{
		QmlCallback *hook = lfirst(lc);

		if (hook->handler)
			qml_handler_retire(hook->handler);
		hook->handler = NULL;
	}
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
	list->sorted = false;
}

/* An array of qml.job_state as a set of bits; labels that qml does not know are left out. */
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
		QmlState state = nulls[i] ? (QmlState) QML_STATES :
									qml_catalog_state_or_none(DatumGetObjectId(elements[i]));

		if (state != (QmlState) QML_STATES)
			states |= 1 << state;
	}
	return states;
}

/* Options that were written by hand may be invalid: then the hook has none. */
static void
read_hook_options(QmlCallback *hook, Datum options)
{
	char *error;

	if (qml_options_parse_stored(qml_options_parse_hook, DatumGetJsonbP(options), &hook->options,
								 &error))
		return;
	ereport(WARNING,
			(errcode(ERRCODE_QML_INVALID_OPTION),
			 errmsg("options of hook \"%s\" are invalid and are ignored", hook->name),
			 errdetail("%s", error)));
	memset(&hook->options, 0, sizeof(hook->options));
}

static QmlCallback *
read_hook(HeapTuple tuple, TupleDesc desc)
{
	QmlCallback *hook = read_callback(QML_HOOK, tuple, desc);
	Datum states;
	bool isnull;

	states = heap_getattr(tuple, HOOK_STATES, desc, &isnull);
	hook->states = isnull ? ~0 : read_states(states);
	hook->broken = DatumGetBool(heap_getattr(tuple, HOOK_BROKEN, desc, &isnull));
	hook->errors = DatumGetInt32(heap_getattr(tuple, HOOK_ERRORS, desc, &isnull));
	read_hook_options(hook, heap_getattr(tuple, HOOK_OPTIONS, desc, &isnull));
	if (hook->options.alerts)
		hook->states = 0;
	return hook;
}

static QmlCallback *
read_middleware(HeapTuple tuple, TupleDesc desc)
{
	QmlCallback *middleware = read_callback(QML_MIDDLEWARE, tuple, desc);
	bool isnull;

	middleware->position = DatumGetInt32(heap_getattr(tuple, MIDDLEWARE_POSITION, desc, &isnull));
	return middleware;
}

static void
add_hook(HeapTuple tuple, TupleDesc desc)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(lists[QML_HOOK].context);

	add_callback(read_hook(tuple, desc));
	MemoryContextSwitchTo(oldcontext);
}

static void
add_middleware(HeapTuple tuple, TupleDesc desc)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(lists[QML_MIDDLEWARE].context);

	add_callback(read_middleware(tuple, desc));
	MemoryContextSwitchTo(oldcontext);
}

/* Called when the library is loaded. */
void
qml_callback_init(void)
{
	for (int i = 0; i < QML_CALLBACK_KINDS; i++)
		qml_cache_init(&lists[i].cache);
}

/* The table of a kind. */
Oid
qml_callback_table(QmlCallbackKind kind)
{
	return kind == QML_HOOK ? qml_catalog()->hook : qml_catalog()->middleware;
}

/* All of a kind, in the order in which they are called. */
List *
qml_callback_all(QmlCallbackKind kind)
{
	CallbackList *list = &lists[kind];

	Assert(IsTransactionState());
	qml_cache_refresh(&list->cache, qml_callback_table(kind));
	if (!list->sorted)
		list_sort(list->callbacks, compare_order);
	list->sorted = true;
	return list->callbacks;
}

/* What a single row was read into, in the caller's memory. */
static QmlCallback *single;

static void
add_single_hook(HeapTuple tuple, TupleDesc desc)
{
	single = read_hook(tuple, desc);
}

static void
add_single_middleware(HeapTuple tuple, TupleDesc desc)
{
	single = read_middleware(tuple, desc);
}

/* NULL when there is none of that name. */
const QmlCallback *
qml_callback_find(QmlCallbackKind kind, const char *name)
{
	static const QmlCacheKey keys[QML_CALLBACK_KINDS] = {
		[QML_HOOK] = {"hook_data_pkey", CALLBACK_NAME, F_TEXTEQ},
		[QML_MIDDLEWARE] = {"middleware_data_pkey", CALLBACK_NAME, F_TEXTEQ},
	};
	QmlCache *cache = &lists[kind].cache;
	ListCell *lc;

	Assert(IsTransactionState());
	qml_cache_set_table(cache, qml_callback_table(kind));
	single = NULL;
	if (!cache->valid &&
		qml_cache_read_row(cache, &keys[kind], CStringGetTextDatum(name),
						   kind == QML_HOOK ? add_single_hook : add_single_middleware))
		return single;
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
 * gets the job, its old state and its new one, or all that in one jsonb after the commit,
 * and its result is ignored; a middleware gets the job and returns the result of the job.
 */
char *
qml_callback_refuse(QmlCallbackKind kind, bool after_commit, Oid function)
{
	const QmlCatalog *cat = qml_catalog();
	const Oid types[] = {after_commit ? JSONBOID : cat->job_type, cat->state_type, cat->state_type};
	int count = kind == QML_HOOK && !after_commit ? 3 : 1;
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
		reason = after_commit	  ? "A hook that is called after the commit takes (jsonb)." :
				 kind == QML_HOOK ? "A hook takes (qml.job, qml.job_state, qml.job_state)." :
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

/*
 * Whether the functions of a role may run in all sessions: it has the privileges of the
 * role that owns the extension, which could as well replace qml's own functions.
 */
bool
qml_callback_is_owners(Oid role)
{
	return has_privs_of_role(role, qml_catalog()->owner);
}

/*
 * Whether a callback may run in a session of the role; InvalidOid: of any role.  One that
 * may not is passed over: its role has lost the right, or never had it for this session.
 */
bool
qml_callback_is_allowed(const QmlCallback *callback, Oid session_role)
{
	if (!qml_role_mark_has(QML_MARK_REGISTRATION, callback->role))
		return false;
	if (qml_callback_is_owners(callback->role))
		return true;
	return callback->kind == QML_MIDDLEWARE && callback->role == session_role &&
		   qml_acl_role_may(callback->role, QML_CAN_ADMIN, NULL);
}

/* Which right of its role a callback lacks, so that it is passed over; NULL: none. */
char *
qml_callback_lost_right(const QmlCallback *callback)
{
	char *role = GetUserNameFromId(callback->role, true);
	char *problem;

	if (role == NULL)
		return "The role that registered it does not exist.";
	problem = qml_role_mark_problem(QML_MARK_REGISTRATION, callback->role,
									"The role that registered it");
	if (problem)
		return psprintf("%s.", problem);
	if (qml_callback_is_owners(callback->role))
		return NULL;
	if (callback->kind == QML_HOOK && !callback->options.after_commit)
		return psprintf("Role \"%s\", which registered it, does not have the privileges of "
						"role \"%s\", which owns the extension.",
						role, GetUserNameFromId(qml_catalog()->owner, true));
	if (!qml_acl_role_may(callback->role, QML_CAN_ADMIN, NULL))
		return psprintf("Role \"%s\", which registered it, does not have the capability "
						"\"admin\" on all queues.",
						role);
	return NULL;
}

/*
 * Who may execute the function, but does not have the privileges of the extension's owner;
 * NULL: nobody.  A session keeps what PL/pgSQL, and SQL functions since 18, have compiled of a
 * function.  So whoever can call it decides, by the search_path of the first call in a session,
 * what types its names stand for.  A function in C or of the server has nothing of that kind.
 */
char *
qml_callback_stranger(Oid function)
{
	HeapTuple tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Form_pg_proc proc;
	char *stranger = NULL;
	bool isnull;
	Datum value;
	Acl *acl;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function);
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	value = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_proacl, &isnull);
	acl = isnull ? acldefault(OBJECT_FUNCTION, proc->proowner) : DatumGetAclPCopy(value);
	if (proc->prolang == INTERNALlanguageId || proc->prolang == ClanguageId)
		acl = NULL;
	for (int i = 0; acl && stranger == NULL && i < ACL_NUM(acl); i++)
	{
		const AclItem *item = &ACL_DAT(acl)[i];

		if ((ACLITEM_GET_PRIVS(*item) & ACL_EXECUTE) == 0)
			continue;
		if (item->ai_grantee == ACL_ID_PUBLIC)
			stranger = "PUBLIC";
		else if (!qml_callback_is_owners(item->ai_grantee))
			stranger = GetUserNameFromId(item->ai_grantee, true);
	}
	ReleaseSysCache(tuple);
	return stranger;
}

/* Why the function must not run in the sessions of others, whoever calls it; NULL: it may. */
static char *
refuse_in_other_sessions(Oid function, Oid owner)
{
	char *stranger;

	if (!qml_callback_is_owners(owner))
		return psprintf("Its owner, role \"%s\", does not have the privileges of role \"%s\", "
						"which owns the extension.",
						GetUserNameFromId(owner, true),
						GetUserNameFromId(qml_catalog()->owner, true));
	stranger = qml_callback_stranger(function);
	if (stranger)
		return psprintf(
			"%s has the privilege EXECUTE on it, which only roles with the privileges of "
			"role \"%s\", the owner of the extension, may have.",
			stranger, GetUserNameFromId(qml_catalog()->owner, true));
	return NULL;
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
	if (!callback->options.after_commit && qml_callback_is_owners(callback->role))
	{
		char *reason = refuse_in_other_sessions(function, owner);

		if (reason)
			return reason;
	}
	if (!qml_function_allows(function, callback->role))
		return psprintf("Role \"%s\", which registered it, must have the privilege EXECUTE.", role);
	return NULL;
}

/* The function of a callback that can be called now; InvalidOid: *problem says why not. */
Oid
qml_callback_resolve(const QmlCallback *callback, QmlProblem *problem)
{
	Oid function = qml_function_ref_find(&callback->function);

	problem->detail = qml_callback_refuse(callback->kind, callback->options.after_commit, function);
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

/* Why a callback cannot be called, or is passed over; NULL: it is called. */
char *
qml_callback_problem(const QmlCallback *callback)
{
	QmlProblem problem;

	if (!OidIsValid(qml_callback_resolve(callback, &problem)))
		return psprintf("%s: %s", problem.message, problem.detail);
	problem.detail = qml_callback_lost_right(callback);
	if (problem.detail)
		return psprintf("%s \"%s\" is passed over: %s", qml_callback_word(callback->kind),
						callback->name, problem.detail);
	if (callback->options.after_commit && !qml_handler_role_usable(callback->role, &problem))
		return psprintf("jobs of hook \"%s\" cannot run: %s", callback->name, problem.message);
	return NULL;
}
