/*
 * handler.c
 *		Handlers: the functions that run the jobs of a method, cached by each backend.
 *
 * Two caches with different lifetimes.  The rows of the table are read again after
 * each change of the table (common/cache.c).  What the row's function takes, its
 * signature, is resolved when it is first needed, and again after any function,
 * type, schema, role or membership changed: the same name can then stand for another
 * function, or one with another owner.
 *
 * Callers may keep a QmlHandler, and its signature, until the transaction ends:
 * what is replaced is deleted then.  An entry whose row did not change stays the
 * same object, however often the table is read, so that callers can compare pointers.
 *
 * A function is never called on the strength of this cache alone.  Each use checks
 * that the function still belongs to a trusted role and that the role of the handler
 * may still run it (qml_handler_usable).
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "common/cache.h"
#include "compat.h"
#include "errcodes.h"
#include "model/catalog.h"
#include "qml.h"
#include "userfn/handler.h"

/* No role has this OID, and none will: the server assigns higher ones. */
#define NO_SUCH_ROLE ((Oid) 1)

typedef struct HandlerByMethod
{
	const char *method; /* hash key: the string, not the pointer */
	QmlHandler *handler;
} HandlerByMethod;

/* NULL until the table is read for the first time. */
static HTAB *handlers = NULL;

/* Counts changes of objects that decide whether a handler can be called. */
static uint64 object_changes = 0;

static void
retire_handler(QmlHandler *handler)
{
	qml_cache_retire(handler->context);
	if (handler->resolution)
		qml_cache_retire(handler->resolution);
}

/*
 * Marks every handler as gone until its row is read, and removes those that were
 * gone already.
 */
static void
start_handlers(void)
{
	HASHCTL control = {.keysize = sizeof(const char *),
					   .entrysize = sizeof(HandlerByMethod),
					   .hash = qml_cache_hash_name,
					   .match = qml_cache_match_names,
					   .hcxt = TopMemoryContext};
	HASH_SEQ_STATUS status;
	HandlerByMethod *entry;

	if (handlers == NULL)
		handlers = hash_create("qml handlers", 64, &control,
							   HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
	hash_seq_init(&status, handlers);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		QmlHandler *handler = entry->handler;

		if (handler->gone)
		{
			(void) hash_search(handlers, &handler->method, HASH_REMOVE, NULL);
			retire_handler(handler);
		}
		handler->gone = true;
	}
}

/*
 * Options can be invalid if the table was edited by hand.  The handler then has no
 * options: one bad row must not disable the others.
 */
static void
read_options(QmlHandler *handler, Datum options)
{
	char *error;

	if (qml_options_parse_stored(qml_options_parse_handler, DatumGetJsonbP(options),
								 &handler->options, &error))
		return;
	ereport(WARNING,
			(errcode(ERRCODE_QML_INVALID_OPTION),
			 errmsg("options of handler \"%s\" are invalid and are ignored", handler->method),
			 errdetail("%s", error)));
	memset(&handler->options, 0, sizeof(handler->options));
	qml_options_default_queue(&handler->options.common);
}

/* A handler, in a memory context of its own, from its row. */
static QmlHandler *
read_handler(HeapTuple tuple, TupleDesc desc)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "qml handler",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	QmlHandler *handler = palloc0(sizeof(QmlHandler));
	bool isnull;

	handler->context = context;
	handler->row = heap_copytuple(tuple);
	handler->method = TextDatumGetCString(heap_getattr(tuple, HANDLER_METHOD, desc, &isnull));
	qml_function_ref_read(tuple, desc, HANDLER_SCHEMA, &handler->function);
	handler->run_as = DatumGetObjectId(heap_getattr(tuple, HANDLER_RUN_AS, desc, &isnull));
	/* The role of a handler can be dropped: that is not the same as no handler. */
	if (!OidIsValid(handler->run_as))
		handler->run_as = NO_SUCH_ROLE;
	handler->registered_by = DatumGetObjectId(
		heap_getattr(tuple, HANDLER_REGISTERED_BY, desc, &isnull));
	read_options(handler, heap_getattr(tuple, HANDLER_OPTIONS, desc, &isnull));
	MemoryContextSwitchTo(oldcontext);
	return handler;
}

/* None of the columns can be null, so equal bytes are equal values. */
static bool
is_same_row(HeapTuple a, HeapTuple b)
{
	uint8 offset = a->t_data->t_hoff;

	return a->t_len == b->t_len && offset == b->t_data->t_hoff &&
		   memcmp((char *) a->t_data + offset, (char *) b->t_data + offset, a->t_len - offset) == 0;
}

/* Enters a row that was read.  A handler whose row did not change is kept. */
static void
add_handler(HeapTuple tuple, TupleDesc desc)
{
	bool isnull;
	const char *method = TextDatumGetCString(heap_getattr(tuple, HANDLER_METHOD, desc, &isnull));
	HandlerByMethod *entry = hash_search(handlers, &method, HASH_FIND, NULL);
	QmlHandler *handler;

	if (entry && is_same_row(entry->handler->row, tuple))
	{
		entry->handler->gone = false;
		return;
	}
	handler = read_handler(tuple, desc);
	if (entry)
		retire_handler(entry->handler);
	/* Only now is the entry written, with a key that lives as long as the handler. */
	entry = hash_search(handlers, &method, HASH_ENTER, NULL);
	entry->method = handler->method;
	entry->handler = handler;
}

static QmlCache handler_cache = {
	.start = start_handlers,
	.add = add_handler,
};

static void
count_object_change(Datum arg, int cacheid, uint32 hashvalue)
{
	object_changes++;
}

/* Called when the library is loaded. */
void
qml_handler_init(void)
{
	qml_cache_init(&handler_cache);
	CacheRegisterSyscacheCallback(PROCOID, count_object_change, (Datum) 0);
	CacheRegisterSyscacheCallback(TYPEOID, count_object_change, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, count_object_change, (Datum) 0);
	/* Who is a superuser, and who is a member of which role. */
	CacheRegisterSyscacheCallback(AUTHOID, count_object_change, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, count_object_change, (Datum) 0);
}

/* The handler of a method; NULL when there is none. */
const QmlHandler *
qml_handler_find(const char *method)
{
	HandlerByMethod *entry;

	Assert(IsTransactionState());
	qml_cache_refresh(&handler_cache, qml_catalog()->handler);
	entry = hash_search(handlers, &method, HASH_FIND, NULL);
	return entry && !entry->handler->gone ? entry->handler : NULL;
}

/* The same for the method of a job, a text. */
const QmlHandler *
qml_handler_of(Datum method)
{
	char name[QML_MAX_NAME * MAX_MULTIBYTE_CHAR_LEN + 1];

	text_to_cstring_buffer(DatumGetTextPP(method), name, sizeof(name));
	return qml_handler_find(name);
}

/*
 * Looks the function up by its name.  Reading the catalogs can itself receive
 * invalidations; the count is therefore taken first, so that a change in between
 * makes the next use resolve again.  An error leaves the handler as it was, and the
 * next use tries again.
 */
static void
resolve_function(QmlHandler *handler)
{
	uint64 changes = object_changes;
	MemoryContext resolution = AllocSetContextCreate(CurTransactionContext,
													 "qml handler's function",
													 ALLOCSET_SMALL_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(resolution);
	char *reason = NULL;
	QmlSignature *signature = qml_signature_load(qml_function_ref_find(&handler->function),
												 qml_catalog()->job_type, &reason);

	/* The owner can replace the function, and so decides what the role does. */
	if (signature && !qml_function_ref_superuser_allowed(signature->owner, handler->run_as))
		reason = "It would run as a superuser, but it is not owned by one.";
	else if (signature &&
			 !qml_function_ref_trusted(&handler->function, signature->owner, handler->run_as))
		reason = "Its owner is not the role that owned it when it was registered.";
	MemoryContextSwitchTo(oldcontext);
	if (handler->resolution)
		qml_cache_retire(handler->resolution);
	MemoryContextSetParent(resolution, TopMemoryContext);
	handler->resolution = resolution;
	handler->signature = reason ? NULL : signature;
	handler->reason = reason;
	handler->resolved_at = changes;
}

/* What the handler takes; NULL when it cannot be called: handler->reason says why. */
const QmlSignature *
qml_handler_signature(const QmlHandler *handler)
{
	/*
	 * The memory of a handler that is gone is about to be deleted, together with this
	 * resolution; a new resolution would leak.
	 */
	if (handler->resolution == NULL || (handler->resolved_at != object_changes && !handler->gone))
		resolve_function(unconstify(QmlHandler *, handler));
	return handler->signature;
}

/*
 * Raises QM008 if a payload is not what the handler takes.  A handler that cannot be
 * called now accepts everything: it can be fixed before the job runs.
 */
void
qml_handler_check(const QmlHandler *handler, Datum payload)
{
	const QmlSignature *signature = qml_handler_signature(handler);

	if (signature)
		qml_signature_check(signature, payload);
}

/*
 * Whether a background worker can connect as the role, by the rules that hold for
 * every client; *problem says why not.
 */
bool
qml_handler_role_usable(Oid role, QmlProblem *problem)
{
	HeapTuple tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
	char *name = NULL;
	bool may_log_in = false;

	if (HeapTupleIsValid(tuple))
	{
		Form_pg_authid form = (Form_pg_authid) GETSTRUCT(tuple);

		name = pstrdup(NameStr(form->rolname));
		may_log_in = form->rolcanlogin;
		ReleaseSysCache(tuple);
	}
	problem->detail = NULL;
	if (name == NULL)
	{
		problem->sqlerrcode = ERRCODE_UNDEFINED_OBJECT;
		problem->message = "the role of the handler does not exist";
		return false;
	}
	if (!may_log_in)
	{
		problem->sqlerrcode = ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION;
		problem->message = psprintf("the role \"%s\" of the handler is not permitted to log in",
									name);
		return false;
	}
	if (!qml_database_allows(role))
	{
		problem->sqlerrcode = ERRCODE_INSUFFICIENT_PRIVILEGE;
		problem->message = psprintf("the role \"%s\" of the handler has no privilege CONNECT on "
									"the database",
									name);
		return false;
	}
	return true;
}

/* Whether the role that registered the handler could do so now: memberships end. */
static bool
may_run_as(const QmlHandler *handler, QmlProblem *problem)
{
	char *name = GetUserNameFromId(handler->registered_by, true);

	if (name && qml_may_become(handler->registered_by, handler->run_as))
		return true;
	problem->sqlerrcode = ERRCODE_INSUFFICIENT_PRIVILEGE;
	problem->message = psprintf("handler \"%s\" may not run as role \"%s\"", handler->method,
								GetUserNameFromId(handler->run_as, true));
	problem
		->detail = name ?
					   psprintf("Role \"%s\", which registered it, is not a member of that role.",
								name) :
					   pstrdup("The role that registered it does not exist.");
	return false;
}

/* Whether jobs of the handler can run now; *problem says why not. */
bool
qml_handler_usable(const QmlHandler *handler, QmlProblem *problem)
{
	const QmlSignature *signature = qml_handler_signature(handler);

	if (signature == NULL)
	{
		problem->sqlerrcode = ERRCODE_QML_HANDLER_NOT_FOUND;
		problem->message = psprintf("function %s of handler \"%s\" cannot be called",
									qml_function_ref_show(&handler->function), handler->method);
		problem->detail = handler->reason;
		return false;
	}
	if (!qml_handler_role_usable(handler->run_as, problem) || !may_run_as(handler, problem))
		return false;
	if (!qml_function_allows(signature->function, handler->run_as))
	{
		problem->sqlerrcode = ERRCODE_INSUFFICIENT_PRIVILEGE;
		problem->message = psprintf("permission denied for function %s",
									qml_function_ref_show(&handler->function));
		problem->detail = psprintf("Role \"%s\" of handler \"%s\" must have the privilege EXECUTE.",
								   GetUserNameFromId(handler->run_as, true), handler->method);
		return false;
	}
	return true;
}

/* Whether an error of this type, or SQLSTATE, fails a job even if it has retries left. */
bool
qml_handler_never_retries(const QmlHandler *handler, const char *error_type)
{
	ListCell *lc;

	foreach(lc, handler->options.non_retryable)
	{
		if (strcmp(lfirst(lc), error_type) == 0)
			return true;
	}
	return false;
}
