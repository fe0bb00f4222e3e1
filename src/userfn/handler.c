/*
 * handler.c
 *		Handlers: the functions and commands that run the jobs of a method, cached by each
 *		backend.
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
 * A handler whose role, or the role that registered it, was dropped or lost its rights by
 * DROP OWNED (model/role_mark.c) counts as revoked: its jobs wait, and nothing of them fails.
 *
 * A command is the text of a statement (statement.c).  It has no signature, takes no payload,
 * and whoever registered it has decided what the role does, so only roles are looked at.
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
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "common/cache.h"
#include "common/hash_set.h"
#include "compat.h"
#include "errcodes.h"
#include "model/catalog.h"
#include "model/redact.h"
#include "model/role_mark.h"
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

/* Deletes a handler when the transaction ends; nothing more is kept with it. */
void
qml_handler_retire(QmlHandler *handler)
{
	handler->gone = true;
	qml_cache_retire(handler->context);
	if (handler->resolution)
		qml_cache_retire(handler->resolution);
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

/*
 * Marks every handler as gone until its row is read, and removes those that were
 * gone already.
 */
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
			qml_handler_retire(handler);
		}
		handler->gone = true;
	}
}

/*
 * Options can be invalid if the table was edited by hand.  The handler then has no
 * options: one bad row must not disable the others.  But nothing may be shown that was to be
 * hidden.
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
	handler->options.common.redact = qml_options_redact_all(DatumGetJsonbP(options));
}

/* A handler, in a memory context of its own, from its row. */
static QmlHandler *
read_handler(HeapTuple tuple, TupleDesc desc)
{
	char *command;
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
	command = TextDatumGetCString(heap_getattr(tuple, HANDLER_COMMAND, desc, &isnull));
	if (*command != '\0')
	{
		handler->command = command;
		handler->options.no_middleware = true;
		/* What it did before it failed may stay: it is run again if somebody says so. */
		if (handler->options.common.max_retries < 0)
			handler->options.common.max_retries = 0;
	}
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

static void add_handler(HeapTuple tuple, TupleDesc desc);

static QmlCache handler_cache = {
	.start = start_handlers,
	.add = add_handler,
};

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
		entry->handler->read_at = handler_cache.reading;
		return;
	}
	handler = read_handler(tuple, desc);
	handler->read_at = handler_cache.reading;
	if (entry)
		qml_handler_retire(entry->handler);
	/* Only now is the entry written, with a key that lives as long as the handler. */
	entry = hash_search(handlers, &method, HASH_ENTER, NULL);
	entry->method = handler->method;
	entry->handler = handler;
}

/*
 * What calls an after-commit hook for its jobs: as a handler, but without a row of the
 * table, without options and without middleware.  The caller retires it.
 */
QmlHandler *
qml_handler_make(const char *name, const QmlFunctionName *function, Oid role)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "qml hook",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	QmlHandler *handler = palloc0(sizeof(QmlHandler));
	ListCell *lc;

	handler->context = context;
	handler->method = pstrdup(name);
	handler->is_hook = true;
	handler->function.schema = pstrdup(function->schema);
	handler->function.name = pstrdup(function->name);
	handler->function.owner = function->owner;
	foreach(lc, function->types)
		handler->function.types = lappend(handler->function.types, pstrdup(lfirst(lc)));
	handler->run_as = OidIsValid(role) ? role : NO_SUCH_ROLE;
	handler->registered_by = handler->run_as;
	qml_options_default_queue(&handler->options.common);
	handler->options.no_middleware = true;
	MemoryContextSwitchTo(oldcontext);
	return handler;
}

static void
count_object_change(Datum arg, int cacheid, uint32 hashvalue)
{
	object_changes++;
}

/* What is hidden in jobs of the method, a text; NULL: nothing, or there is no handler. */
static const QmlRedact *
redact_of(Datum method)
{
	const QmlHandler *handler = qml_handler_of(method);

	return handler ? handler->options.common.redact : NULL;
}

/* Whether anything is hidden in jobs of some method. */
static bool
redact_any(void)
{
	ListCell *lc;

	foreach(lc, qml_handler_all())
	{
		if (((const QmlHandler *) lfirst(lc))->options.common.redact)
			return true;
	}
	return false;
}

/* Called when the library is loaded. */
void
qml_handler_init(void)
{
	qml_cache_init(&handler_cache);
	qml_redact_init(redact_of, redact_any);
	CacheRegisterSyscacheCallback(PROCOID, count_object_change, (Datum) 0);
	CacheRegisterSyscacheCallback(TYPEOID, count_object_change, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, count_object_change, (Datum) 0);
	/* Who is a superuser, and who is a member of which role. */
	CacheRegisterSyscacheCallback(AUTHOID, count_object_change, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, count_object_change, (Datum) 0);
}

/* Reads the row of a method, of which entry is what was known of it, or NULL. */
static void
read_method(const char *method, HandlerByMethod *entry)
{
	static const QmlCacheKey key = {"handler_data_pkey", HANDLER_METHOD, F_TEXTEQ};
	QmlHandler *handler = entry ? entry->handler : NULL;

	if (handlers == NULL)
		create_hash();
	/* As start_handlers() does for all of them. */
	if (handler)
		handler->gone = true;
	if (!qml_cache_read_row(&handler_cache, &key, CStringGetTextDatum(method), add_handler))
		qml_cache_refresh(&handler_cache, handler_cache.relid);
	else if (handler && handler->gone)
	{
		/* Replaced, and retired, by another row, or not there any more. */
		entry = hash_search(handlers, &method, HASH_FIND, NULL);
		if (entry && entry->handler == handler)
		{
			(void) hash_search(handlers, &method, HASH_REMOVE, NULL);
			qml_handler_retire(handler);
		}
	}
}

/* The handler of a method; NULL when there is none. */
const QmlHandler *
qml_handler_find(const char *method)
{
	HandlerByMethod *entry;

	Assert(IsTransactionState());
	qml_cache_set_table(&handler_cache, qml_catalog()->handler);
	entry = handlers ? hash_search(handlers, &method, HASH_FIND, NULL) : NULL;
	if (!qml_cache_is_current(&handler_cache, entry ? entry->handler->read_at : 0))
	{
		read_method(method, entry);
		entry = hash_search(handlers, &method, HASH_FIND, NULL);
	}
	return entry && !entry->handler->gone ? entry->handler : NULL;
}

/* Whether any method has a handler. */
bool
qml_handler_exist(void)
{
	qml_cache_refresh(&handler_cache, qml_catalog()->handler);
	return handler_cache.nrows > 0;
}

/* Whether a handler, that is not revoked, runs as the role or one that it has the privileges of. */
bool
qml_handler_exist_for(Oid role)
{
	HASH_SEQ_STATUS status;
	HandlerByMethod *entry;

	if (!qml_handler_exist())
		return false;
	hash_seq_init(&status, handlers);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		const QmlHandler *handler = entry->handler;

		if (!handler->gone && qml_role_mark_has(QML_MARK_REGISTRATION, handler->run_as) &&
			has_privs_of_role(role, handler->run_as))
		{
			hash_seq_term(&status);
			return true;
		}
	}
	return false;
}

static int
compare_methods(const ListCell *a, const ListCell *b)
{
	return strcmp(((const QmlHandler *) lfirst(a))->method,
				  ((const QmlHandler *) lfirst(b))->method);
}

/* All handlers, in the order of their methods. */
List *
qml_handler_all(void)
{
	List *all = NIL;
	HASH_SEQ_STATUS status;
	HandlerByMethod *entry;

	if (!qml_handler_exist())
		return NIL;
	hash_seq_init(&status, handlers);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		if (!entry->handler->gone)
			all = lappend(all, entry->handler);
	}
	list_sort(all, compare_methods);
	return all;
}

/* The hashes of methods, and the reading of the table that they are from. */
typedef struct MethodHashes
{
	Oid role; /* of the handlers; InvalidOid: of all */
	uint64 *hashes;
	int count;
	uint64 reading;
} MethodHashes;

static MethodHashes hashes_of_all;
static MethodHashes hashes_of_role;

static void
read_hashes(MethodHashes *set, Oid role)
{
	HASH_SEQ_STATUS status;
	HandlerByMethod *entry;
	int room = handlers ? (int) hash_get_num_entries(handlers) : 0;
	uint64 *hashes = MemoryContextAlloc(TopMemoryContext, sizeof(uint64) * Max(room, 1));
	int count = 0;

	if (room > 0)
	{
		hash_seq_init(&status, handlers);
		while ((entry = hash_seq_search(&status)) != NULL)
		{
			const QmlHandler *handler = entry->handler;

			if (!handler->gone && (!OidIsValid(role) || handler->run_as == role))
				hashes[count++] = qml_hash_name(entry->method, strlen(entry->method));
		}
	}
	qml_hash_set_sort(hashes, count);
	if (set->hashes)
		pfree(set->hashes);
	set->role = role;
	set->hashes = hashes;
	set->count = count;
	set->reading = handler_cache.reading;
}

/*
 * Makes qml_handler_has_hash(), or with a role qml_handler_runs_hash(), know of the handlers that
 * there are now.
 */
void
qml_handler_know_hashes(Oid role)
{
	MethodHashes *set = OidIsValid(role) ? &hashes_of_role : &hashes_of_all;

	qml_cache_refresh(&handler_cache, qml_catalog()->handler);
	if (set->hashes == NULL || set->role != role || set->reading != handler_cache.reading)
		read_hashes(set, role);
}

/* Whether a method with this hash has a handler.  It reads nothing, so locks may be held. */
bool
qml_handler_has_hash(uint64 hash)
{
	return qml_hash_set_has(hashes_of_all.hashes, hashes_of_all.count, hash);
}

/* Whether it has one of the role that was named last.  The same holds. */
bool
qml_handler_runs_hash(uint64 hash)
{
	return qml_hash_set_has(hashes_of_role.hashes, hashes_of_role.count, hash);
}

/* Counts changes of the table that may have added or removed handlers. */
uint64
qml_handler_generation(void)
{
	return handler_cache.changes;
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

/*
 * What the handler takes; NULL when it cannot be called: handler->reason says why.  Not for
 * commands.
 */
const QmlSignature *
qml_handler_signature(const QmlHandler *handler)
{
	Assert(handler->command == NULL);
	/*
	 * The memory of a handler that is gone is about to be deleted, together with this
	 * resolution; a new resolution would leak.
	 */
	if (handler->resolution == NULL || (handler->resolved_at != object_changes && !handler->gone))
		resolve_function(unconstify(QmlHandler *, handler));
	return handler->signature;
}

/* Whether it is a command, and the payload has something that it would not look at. */
bool
qml_handler_ignores(const QmlHandler *handler, Datum payload)
{
	Jsonb *document;

	if (handler->command == NULL)
		return false;
	document = DatumGetJsonbP(payload);
	return !JB_ROOT_IS_OBJECT(document) || JB_ROOT_COUNT(document) > 0;
}

/*
 * Raises QM008 if a payload is not what the handler takes.  A handler that cannot be
 * called now accepts everything: it can be fixed before the job runs.
 */
void
qml_handler_check(const QmlHandler *handler, Datum payload)
{
	const QmlSignature *signature;

	if (qml_handler_ignores(handler, payload))
		ereport(ERROR,
				(errcode(ERRCODE_QML_PAYLOAD_MISMATCH), errmsg("a command takes no payload"),
				 errdetail("Jobs of method \"%s\" run a fixed statement.", handler->method),
				 errhint("Leave the payload as {}, or register a function, which has arguments.")));
	if (handler->command)
		return;
	signature = qml_handler_signature(handler);
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

/* As messages call it. */
static const char *
handler_word(const QmlHandler *handler)
{
	return handler->is_hook ? "hook" : "handler";
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

/* Whether its jobs wait, because a role that it needs is gone or has lost its rights. */
bool
qml_handler_is_revoked(const QmlHandler *handler)
{
	return !qml_role_mark_has(QML_MARK_REGISTRATION, handler->run_as) ||
		   (handler->registered_by != handler->run_as &&
			!qml_role_mark_has(QML_MARK_REGISTRATION, handler->registered_by));
}

/* The role of the workers that run jobs of the handler; InvalidOid: no worker runs them. */
Oid
qml_handler_role(const QmlHandler *handler)
{
	return handler && !qml_handler_is_revoked(handler) ? handler->run_as : InvalidOid;
}

/* Returns false when nothing is revoked any more: another session has just granted it again. */
static bool
describe_revoked(const QmlHandler *handler, QmlProblem *problem)
{
	Oid run_as = handler->run_as == NO_SUCH_ROLE ? InvalidOid : handler->run_as;
	char *reason = qml_role_mark_problem(QML_MARK_REGISTRATION, run_as, "The role that it runs as");

	if (reason == NULL)
		reason = qml_role_mark_problem(QML_MARK_REGISTRATION, handler->registered_by,
									   "The role that registered it");
	if (reason == NULL)
		return false;
	problem->sqlerrcode = ERRCODE_INSUFFICIENT_PRIVILEGE;
	problem->message = psprintf("%s \"%s\" is revoked, and its jobs wait", handler_word(handler),
								handler->method);
	problem->detail = psprintf("%s.", reason);
	return true;
}

/* Whether jobs of the handler can run now; *problem says why not. */
bool
qml_handler_usable(const QmlHandler *handler, QmlProblem *problem)
{
	const QmlSignature *signature;

	if (qml_handler_is_revoked(handler) && describe_revoked(handler, problem))
		return false;
	if (handler->command)
		return qml_handler_role_usable(handler->run_as, problem) && may_run_as(handler, problem);
	signature = qml_handler_signature(handler);
	if (signature == NULL)
	{
		problem->sqlerrcode = ERRCODE_QML_HANDLER_NOT_FOUND;
		problem->message = psprintf("function %s of %s \"%s\" cannot be called",
									qml_function_ref_show(&handler->function),
									handler_word(handler), handler->method);
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
		problem->detail = psprintf("Role \"%s\" of %s \"%s\" must have the privilege EXECUTE.",
								   GetUserNameFromId(handler->run_as, true), handler_word(handler),
								   handler->method);
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
