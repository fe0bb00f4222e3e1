/*
 * handler.c
 *		Handlers: the functions that are registered for methods, remembered by each
 *		backend.
 *
 * The function is looked up anew whenever a function or a type changed.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
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

/* No role has this OID, nor will one: the server gives what it creates higher ones. */
#define NO_SUCH_ROLE ((Oid) 1)

typedef struct HandlerByMethod
{
	const char *method; /* hash key: the string, not the pointer */
	QmlHandler *handler;
} HandlerByMethod;

/* All that is remembered; what was before it is kept to the end of the transaction. */
static List *old_contexts = NIL;
static HTAB *handlers = NULL;

/* How often something changed that decides whether a handler can be called. */
static uint64 object_changes = 0;

static void
forget_at_end(MemoryContext context)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(TopMemoryContext);

	old_contexts = lappend(old_contexts, context);
	MemoryContextSwitchTo(oldcontext);
}

static void
create_hash(void)
{
	HASHCTL control = {.keysize = sizeof(const char *),
					   .entrysize = sizeof(HandlerByMethod),
					   .hash = qml_cache_hash_name,
					   .match = qml_cache_match_names,
					   .hcxt = TopMemoryContext};

	handlers = hash_create("qml handlers", 64, &control,
						   HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
}

/* Takes every handler for gone until its row is read; lets those go that were. */
static void
start_handlers(void)
{
	HASH_SEQ_STATUS status;
	HandlerByMethod *entry;

	if (handlers == NULL)
		create_hash();
	hash_seq_init(&status, handlers);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		QmlHandler *handler = entry->handler;

		if (handler->gone)
		{
			(void) hash_search(handlers, &handler->method, HASH_REMOVE, NULL);
			forget_at_end(handler->context);
			if (handler->resolution)
				forget_at_end(handler->resolution);
		}
		handler->gone = true;
	}
}

/* Options that somebody wrote by hand may be wrong: the handler has none then. */
static void
read_options(QmlHandler *handler, Datum options)
{
	char *error;

	if (qml_options_parse_stored(qml_options_parse_handler, DatumGetJsonbP(options),
								 &handler->options, &error))
		return;
	ereport(WARNING,
			(errcode(ERRCODE_QML_INVALID_OPTION),
			 errmsg("options of handler \"%s\" are invalid and do not hold", handler->method),
			 errdetail("%s", error)));
	memset(&handler->options, 0, sizeof(handler->options));
	qml_options_default_queue(&handler->options.common);
}

static QmlHandler *
make_handler(HeapTuple tuple, TupleDesc desc)
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
	/* One that was dropped is forgotten; the handler has none, other than no handler. */
	if (!OidIsValid(handler->run_as))
		handler->run_as = NO_SUCH_ROLE;
	handler->registered_by = DatumGetObjectId(
		heap_getattr(tuple, HANDLER_REGISTERED_BY, desc, &isnull));
	read_options(handler, heap_getattr(tuple, HANDLER_OPTIONS, desc, &isnull));
	MemoryContextSwitchTo(oldcontext);
	return handler;
}

/* Whether two rows hold the same; none of the columns can be null. */
static bool
same_row(HeapTuple a, HeapTuple b)
{
	uint8 offset = a->t_data->t_hoff;

	return a->t_len == b->t_len && offset == b->t_data->t_hoff &&
		   memcmp((char *) a->t_data + offset, (char *) b->t_data + offset, a->t_len - offset) == 0;
}

/* One that is as it was stays, however often the table is read in a transaction. */
static void
add_handler(HeapTuple tuple, TupleDesc desc)
{
	bool isnull;
	const char *method = TextDatumGetCString(heap_getattr(tuple, HANDLER_METHOD, desc, &isnull));
	HandlerByMethod *entry = hash_search(handlers, &method, HASH_FIND, NULL);
	QmlHandler *handler;

	if (entry && same_row(entry->handler->row, tuple))
	{
		entry->handler->gone = false;
		return;
	}
	handler = make_handler(tuple, desc);
	if (entry)
	{
		forget_at_end(entry->handler->context);
		if (entry->handler->resolution)
			forget_at_end(entry->handler->resolution);
	}
	entry = hash_search(handlers, &method, HASH_ENTER, NULL);
	entry->method = handler->method;
	entry->handler = handler;
}

static QmlCache handler_cache = {
	.start = start_handlers,
	.add = add_handler,
};

static void
objects_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	object_changes++;
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
qml_handler_init(void)
{
	qml_cache_init(&handler_cache);
	CacheRegisterSyscacheCallback(PROCOID, objects_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(TYPEOID, objects_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, objects_changed, (Datum) 0);
	/* Who is a superuser, and who a member of whom. */
	CacheRegisterSyscacheCallback(AUTHOID, objects_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, objects_changed, (Datum) 0);
	RegisterXactCallback(at_end, NULL);
}

/* The handler of a method; NULL when there is none. */
const QmlHandler *
qml_handler_find(const char *method)
{
	HandlerByMethod *entry;

	qml_cache_refresh(&handler_cache, qml_catalog()->handler);
	entry = hash_search(handlers, &method, HASH_FIND, NULL);
	return entry && !entry->handler->gone ? entry->handler : NULL;
}

/* The same by the method of a job, a text. */
const QmlHandler *
qml_handler_of(Datum method)
{
	char name[QML_MAX_NAME * MAX_MULTIBYTE_CHAR_LEN + 1];

	text_to_cstring_buffer(DatumGetTextPP(method), name, sizeof(name));
	return qml_handler_find(name);
}

/* Why the function's owner makes that it cannot be called; NULL: nothing. */
static char *
refuse_owner(const QmlHandler *handler, Oid owner)
{
	if (!qml_function_ref_may_be_superuser(owner, handler->run_as))
		return "It would run as a superuser, but does not belong to one.";
	if (!qml_function_ref_trusted(&handler->function, owner, handler->run_as))
		return "It belongs to another role than when it was registered.";
	return NULL;
}

static void
resolve(QmlHandler *handler)
{
	MemoryContext oldcontext;
	uint64 changes = object_changes;
	QmlSignature *signature;

	if (handler->resolution)
		forget_at_end(handler->resolution);
	handler->resolution = AllocSetContextCreate(TopMemoryContext, "qml handler's function",
												ALLOCSET_SMALL_SIZES);
	handler->signature = NULL;
	oldcontext = MemoryContextSwitchTo(handler->resolution);
	signature = qml_signature_load(qml_function_ref_find(&handler->function),
								   qml_catalog()->job_type, &handler->reason);
	if (signature)
		handler->reason = refuse_owner(handler, signature->owner);
	handler->signature = handler->reason ? NULL : signature;
	handler->resolved_at = changes;
	MemoryContextSwitchTo(oldcontext);
}

/* What the handler takes; NULL when it cannot be called, and handler->reason why. */
const QmlSignature *
qml_handler_signature(const QmlHandler *handler)
{
	/* One that is gone has its end with the transaction, and what it has now, too. */
	if (handler->resolution == NULL || (handler->resolved_at != object_changes && !handler->gone))
		resolve(unconstify(QmlHandler *, handler));
	return handler->signature;
}

/*
 * Raises QM008 if a payload is not what the handler takes.  One that cannot be
 * called now may be mended before the job runs.
 */
void
qml_handler_check(const QmlHandler *handler, Datum payload)
{
	const QmlSignature *signature = qml_handler_signature(handler);

	if (signature)
		qml_signature_check(signature, payload);
}

static bool
may_log_in(Oid role)
{
	HeapTuple tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
	bool allowed = HeapTupleIsValid(tuple) && ((Form_pg_authid) GETSTRUCT(tuple))->rolcanlogin;

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return allowed;
}

/* Whether a background worker can be the role; *problem tells why not. */
bool
qml_handler_role_usable(Oid role, QmlProblem *problem)
{
	char *name = GetUserNameFromId(role, true);

	problem->detail = NULL;
	if (name == NULL)
	{
		problem->sqlerrcode = ERRCODE_UNDEFINED_OBJECT;
		problem->message = "the role of the handler does not exist";
		return false;
	}
	if (!may_log_in(role))
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

/* Whether who registered the handler could still do so: memberships end. */
static bool
may_run_as(const QmlHandler *handler, QmlProblem *problem)
{
	char *name = GetUserNameFromId(handler->registered_by, true);

	if (name && qml_may_become(handler->registered_by, handler->run_as))
		return true;
	problem->sqlerrcode = ERRCODE_INSUFFICIENT_PRIVILEGE;
	problem->message = psprintf("handler \"%s\" may not run as role \"%s\"", handler->method,
								GetUserNameFromId(handler->run_as, true));
	problem->detail = name ? psprintf("Role \"%s\", who registered it, is not a member.", name) :
							 pstrdup("The role that registered it does not exist.");
	return false;
}

static bool
may_execute(const QmlHandler *handler, const QmlSignature *signature, QmlProblem *problem)
{
	if (qml_function_allows(signature->function, handler->run_as))
		return true;
	problem->sqlerrcode = ERRCODE_INSUFFICIENT_PRIVILEGE;
	problem->message = psprintf("permission denied for function %s",
								qml_function_ref_show(&handler->function));
	problem->detail = psprintf("Role \"%s\" of handler \"%s\" must have the privilege EXECUTE.",
							   GetUserNameFromId(handler->run_as, true), handler->method);
	return false;
}

/* Whether jobs of the handler can run; *problem tells why not. */
bool
qml_handler_usable(const QmlHandler *handler, QmlProblem *problem)
{
	const QmlSignature *signature = qml_handler_signature(handler);

	if (signature)
		return qml_handler_role_usable(handler->run_as, problem) && may_run_as(handler, problem) &&
			   may_execute(handler, signature, problem);
	problem->sqlerrcode = ERRCODE_QML_HANDLER_NOT_FOUND;
	problem->message = psprintf("function %s of handler \"%s\" cannot be called",
								qml_function_ref_show(&handler->function), handler->method);
	problem->detail = handler->reason;
	return false;
}

/* Whether an error of this type ends a job, whatever retries it has left. */
bool
qml_handler_never_retries(const QmlHandler *handler, const char *error_type)
{
	ListCell *lc;

	foreach(lc, handler->options.no_retry)
	{
		if (strcmp(lfirst(lc), error_type) == 0)
			return true;
	}
	return false;
}
