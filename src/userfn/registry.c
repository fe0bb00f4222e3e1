/*
 * registry.c
 *		Registers and unregisters handlers, state hooks and middleware.
 *
 * The caller has checked that the current user has the capability "admin".  Here the
 * function, the options and the privileges of the role are checked, so that a mistake is
 * an error of the registration.  What changes later is found by the same checks before
 * each call (userfn/handler.c, userfn/callback.c).
 *
 * A registration replaces one of the same name.  A hook or middleware of a role with the
 * privileges of the extension's owner, which may run in all sessions, is replaced and removed
 * by such roles alone: others would switch off what the owner relies on.  Handlers are not
 * protected so: who has "admin" decides what becomes of all jobs, and the handler that takes
 * the place of another one runs as a role that its registrar could be.  A command is a
 * handler, too: its text is what the registrar says, who could become the role and run it.
 *
 * The tables belong to the owner of the extension and are written with its rights.
 *
 * Locks: that of model/grant.c on all registrations, then those on roles, then the row.  The
 * roles that a registration names are marked with the first one, the role of a handler gets
 * privileges, and both are lost with the last one; and what is replaced or removed must be
 * known, and stay as it is.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"

#include "common/cache.h"
#include "common/spi.h"
#include "common/suggest.h"
#include "common/table.h"
#include "compat.h"
#include "errcodes.h"
#include "ipc/wakeup.h"
#include "model/audit.h"
#include "model/catalog.h"
#include "model/grant.h"
#include "model/options.h"
#include "model/queue.h"
#include "userfn/callback.h"
#include "userfn/handler.h"
#include "userfn/registry.h"
#include "userfn/statement.h"

/* The role that jobs run as.  The current user must be able to become it. */
static Oid
choose_role(const QmlHandlerOptions *options)
{
	Oid role;

	if (options->run_as == NULL)
		return GetUserId();
	role = get_role_oid(options->run_as, false);
	if (!qml_may_become(GetUserId(), role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to register a handler that runs as role \"%s\"",
						options->run_as),
				 errdetail("You must be a member of the role."),
				 errhint("Ask for GRANT %s TO %s.", quote_identifier(options->run_as),
						 quote_identifier(GetUserNameFromId(GetUserId(), false)))));
	return role;
}

/* For qml_function_ref_choose(). */
static bool
can_be_handler(Oid function, void *arg)
{
	char *reason;

	return qml_signature_load(function, qml_catalog()->job_type, &reason) != NULL;
}

/* The function of a name that is to be a handler; by search_path. */
Oid
qml_registry_handler_function(const char *name)
{
	return qml_function_ref_choose(name, "handler", can_be_handler, NULL);
}

/* For qml_function_ref_choose(); arg: the kind.  A hook may be called after the commit. */
static bool
can_be_callback(Oid function, void *arg)
{
	QmlCallbackKind kind = *(QmlCallbackKind *) arg;

	return qml_callback_refuse(kind, false, function) == NULL ||
		   (kind == QML_HOOK && qml_callback_refuse(kind, true, function) == NULL);
}

/* The same for a hook or middleware. */
Oid
qml_registry_callback_function(QmlCallbackKind kind, const char *name)
{
	return qml_function_ref_choose(name, qml_callback_word(kind), can_be_callback, &kind);
}

/* The signature of a function that can be a handler, or an error. */
static const QmlSignature *
require_signature(Oid function)
{
	char *reason;
	const QmlSignature *signature = qml_signature_load(function, qml_catalog()->job_type, &reason);

	if (signature == NULL)
		ereport(ERROR,
				(errcode(OidIsValid(function) && get_func_name(function) ?
							 ERRCODE_WRONG_OBJECT_TYPE :
							 ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function %s cannot be a handler",
						get_func_name(function) ? format_procedure(function) : "with this OID"),
				 errdetail("%s", reason),
				 errhint("A handler takes one jsonb, one qml.job, or named arguments that match "
						 "the keys of the payload.")));
	return signature;
}

/* Raises 42501 if a superuser would run a function that another role can replace. */
static void
require_superuser_owner(Oid function, Oid owner, Oid role)
{
	if (!qml_function_ref_superuser_allowed(owner, role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("function %s must not run as superuser \"%s\"",
						format_procedure(function), GetUserNameFromId(role, false)),
				 errdetail("It belongs to role \"%s\", which is not a superuser and could replace it.",
						   GetUserNameFromId(owner, false)),
				 errhint("Register it as its owner, or register a handler with the option run_as.")));
}

/* The row of a handler: of a function; or of a command, which has no function, or NULL. */
static void
write_handler(const char *method, Oid function, const char *command, Oid role, Jsonb *options)
{
	Oid types[] = {TEXTOID,	   TEXTOID,	   TEXTOID,	 TEXTARRAYOID, REGROLEOID,
				   REGROLEOID, REGROLEOID, JSONBOID, TEXTOID};
	Datum values[lengthof(types)];
	QmlSpi spi;

	values[0] = CStringGetTextDatum(method);
	if (command == NULL)
		qml_function_ref_values(function, &values[1]);
	else
	{
		values[1] = values[2] = CStringGetTextDatum("");
		values[3] = PointerGetDatum(construct_empty_array(TEXTOID));
		values[4] = ObjectIdGetDatum(InvalidOid);
	}
	values[1 + QML_FUNCTION_COLUMNS] = ObjectIdGetDatum(role);
	values[2 + QML_FUNCTION_COLUMNS] = ObjectIdGetDatum(GetUserId());
	values[3 + QML_FUNCTION_COLUMNS] = JsonbPGetDatum(options);
	values[4 + QML_FUNCTION_COLUMNS] = CStringGetTextDatum(command ? command : "");
	qml_spi_begin(&spi, qml_catalog()->owner);
	(void)
		qml_spi_execute("INSERT INTO qml.handler_data AS h (method, schema, name, argument_types, "
						"owner, run_as, registered_by, registered_at, options, command) "
						"VALUES ($1, $2, $3, $4, $5, $6, $7, pg_catalog.now(), $8, $9) "
						"ON CONFLICT (method) DO UPDATE SET schema = excluded.schema, "
						"name = excluded.name, argument_types = excluded.argument_types, "
						"owner = excluded.owner, run_as = excluded.run_as, "
						"registered_by = excluded.registered_by, "
						"registered_at = excluded.registered_at, options = excluded.options, "
						"command = excluded.command",
						lengthof(types), types, values, NULL, SPI_OK_INSERT);
	qml_spi_end(&spi);
	qml_cache_changed(qml_catalog()->handler);
}

/* What was registered is not in the table: a trigger, a rule or a policy that somebody added. */
pg_noreturn static void
raise_lost(const char *word, const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("%s \"%s\" was registered, but is not there", word, name),
			 errhint("Look for triggers, rules and row-level security on the tables of schema \"%s\".",
					 QML_SCHEMA)));
}

static void
raise_problem(const QmlProblem *problem)
{
	ereport(ERROR,
			(errcode(problem->sqlerrcode), errmsg("%s", problem->message),
			 problem->detail ? errdetail("%s", problem->detail) : 0));
}

/* Registers a function, or a command, as the handler of a method in place of the present one. */
static void
add_handler(const char *method, Oid function, const char *command, Oid role,
			const QmlHandlerOptions *parsed, Jsonb *options)
{
	const QmlHandler *handler;
	QmlProblem problem;
	Oid old_role;
	Oid old_registrar;
	Datum before;

	qml_grant_lock();
	before = qml_audit_look(QML_AUDIT_HANDLER, method);
	handler = qml_handler_find(method);
	old_role = handler ? handler->run_as : InvalidOid;
	old_registrar = handler ? handler->registered_by : InvalidOid;
	qml_grant_mark_role(role);
	qml_grant_mark_role(GetUserId());
	write_handler(method, function, command, role, options);

	/*
	 * Check the handler as it is read back: that the names lead to the function again,
	 * and that the role may log in and execute it.
	 */
	handler = qml_handler_find(method);
	if (handler == NULL)
		raise_lost("handler", method);
	if (!qml_handler_usable(handler, &problem))
		raise_problem(&problem);
	qml_audit_change(command ? "qml_register_command" : "qml_register_handler", QML_AUDIT_HANDLER,
					 method, parsed->queue, before);
	qml_wakeup_rules_changed();
	qml_grant_adjust_role(role);
	if (OidIsValid(old_role) && old_role != role)
		qml_grant_adjust_role(old_role);
	if (OidIsValid(old_registrar))
		qml_grant_unmark_role(old_registrar);
	if (parsed->queue)
		qml_queue_check_named(parsed->queue);
}

/* Registers a function as the handler of a method. */
void
qml_registry_add_handler(const char *method, Oid function, Jsonb *options)
{
	QmlHandlerOptions parsed;
	const QmlSignature *signature;
	Oid role;

	qml_options_parse_handler(options, &parsed);
	signature = require_signature(function);
	role = choose_role(&parsed);
	require_superuser_owner(function, signature->owner, role);
	add_handler(method, function, NULL, role, &parsed, options);
}

/* Registers a statement as the handler of a method. */
void
qml_registry_add_command(const char *method, const char *command, Jsonb *options)
{
	QmlHandlerOptions parsed;
	JsonbValue value;

	qml_options_parse_handler(options, &parsed);
	if (getKeyJsonValueFromContainer(&options->root, "middleware", strlen("middleware"), &value) &&
		value.type != jbvNull)
		ereport(ERROR,
				(errcode(ERRCODE_QML_INVALID_OPTION),
				 errmsg("option \"%s\" is not for commands", "middleware"),
				 errdetail("Middleware is a function, and a command runs inside of none.")));
	(void) qml_statement_parse(command);
	add_handler(method, InvalidOid, command, choose_role(&parsed), &parsed, options);
}

/* What a method without a handler may have been meant to be. */
static const char *
guess_method(const char *method)
{
	MemoryContext context = CurrentMemoryContext;
	QmlSuggestion suggestion;
	List *methods;
	ListCell *lc;
	QmlSpi spi;

	qml_spi_begin(&spi, qml_catalog()->owner);
	(void) qml_spi_execute("SELECT h.method FROM qml.handler_data h ORDER BY h.method", 0, NULL,
						   NULL, NULL, SPI_OK_SELECT);
	methods = qml_spi_strings(context);
	qml_spi_end(&spi);
	qml_suggest_begin(&suggestion, method);
	foreach(lc, methods)
		qml_suggest_consider(&suggestion, lfirst(lc));
	return qml_suggest_question(&suggestion);
}

/* Returns false when the method has no handler and missing_ok; raises QM007 without it. */
bool
qml_registry_remove_handler(const char *method, bool missing_ok)
{
	Oid type = TEXTOID;
	Datum value = CStringGetTextDatum(method);
	Oid role = InvalidOid;
	Oid registrar = InvalidOid;
	Datum before;
	QmlSpi spi;
	bool found;

	qml_grant_lock();
	before = qml_audit_look(QML_AUDIT_HANDLER, method);
	qml_spi_begin(&spi, qml_catalog()->owner);
	found = qml_spi_execute_latest("DELETE FROM qml.handler_data h WHERE h.method = $1 "
								   "RETURNING h.run_as, h.registered_by",
								   1, &type, &value, NULL, SPI_OK_DELETE_RETURNING) > 0;
	if (found)
	{
		role = DatumGetObjectId(qml_spi_value(SPI_tuptable, 0, 1, REGROLEOID, NULL));
		registrar = DatumGetObjectId(qml_spi_value(SPI_tuptable, 0, 2, REGROLEOID, NULL));
	}
	qml_spi_end(&spi);
	if (found)
		qml_cache_changed(qml_catalog()->handler);
	/* This session forgets it, however many it registers and unregisters. */
	(void) qml_handler_find(method);
	if (!found && !missing_ok)
		ereport(ERROR,
				(errcode(ERRCODE_QML_HANDLER_NOT_FOUND),
				 errmsg("method \"%s\" has no handler", method),
				 errhint("%sThe view qml.handler lists those that there are.",
						 guess_method(method))));
	qml_audit_change("qml_unregister_handler", QML_AUDIT_HANDLER, method, NULL, before);
	/* Its jobs are for those who name no method, too. */
	if (found)
		qml_wakeup_rules_changed();
	if (OidIsValid(role))
		qml_grant_adjust_role(role);
	if (OidIsValid(registrar))
		qml_grant_unmark_role(registrar);
	return found;
}

/* ----- state hooks and middleware ----- */

/* Raises an error unless the function can be a hook, or a middleware. */
static void
require_callback(QmlCallbackKind kind, bool after_commit, Oid function)
{
	char *reason = qml_callback_refuse(kind, after_commit, function);
	bool exists = get_func_name(function) != NULL;

	if (reason)
		ereport(ERROR,
				(errcode(exists ? ERRCODE_WRONG_OBJECT_TYPE : ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function %s cannot be a %s",
						exists ? format_procedure(function) : "with this OID",
						qml_callback_word(kind)),
				 errdetail("%s", reason)));
}

/*
 * Raises 42501 if a role without the privileges of the extension's owner may execute the
 * function: who can call it decides what it does later in the same session.
 */
static void
require_private(Oid function)
{
	char *stranger = qml_callback_stranger(function);

	if (stranger)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("function %s must not run in the sessions of other roles",
						format_procedure(function)),
				 errdetail("%s has the privilege EXECUTE on it, which only roles with the privileges of "
						   "role \"%s\", the owner of the extension, may have.",
						   stranger, GetUserNameFromId(qml_catalog()->owner, false)),
				 errhint("REVOKE EXECUTE ON FUNCTION %s FROM %s", format_procedure_qualified(function),
						 strcmp(stranger, "PUBLIC") == 0 ? stranger : quote_identifier(stranger))));
}

/*
 * Raises 42501 unless the function, of a role with the privileges of the extension's owner,
 * belongs to such a role, too, and only such roles may execute it: these decide what runs in
 * the sessions of others.
 */
static void
require_trusted_owner(QmlCallbackKind kind, Oid function)
{
	Oid owner = qml_function_ref_owner(function);

	if (!qml_callback_is_owners(owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("function %s must not run in the sessions of other roles",
						format_procedure(function)),
				 errdetail("It belongs to role \"%s\", which does not have the privileges of role "
						   "\"%s\", the owner of the extension.",
						   GetUserNameFromId(owner, false),
						   GetUserNameFromId(qml_catalog()->owner, false)),
				 kind == QML_HOOK ?
					 errhint("Make a function of your own that does the same, or register it as its "
							 "owner with the option {\"after_commit\": true}.") :
					 errhint("Make a function of your own that does the same, or register it as its "
							 "owner: then it stands around handlers that run as that very role.")));
	require_private(function);
}

/*
 * Raises 42501 unless the current user may have a function called in all transactions that
 * change jobs.
 */
static void
require_hook_right(Oid function)
{
	if (!qml_callback_is_owners(GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to register a hook that runs in the sessions of other roles"),
				 errdetail("The privileges of role \"%s\", the owner of the extension, are required.",
						   GetUserNameFromId(qml_catalog()->owner, false)),
				 errhint("Register it with the option {\"after_commit\": true}: then it is called by a "
						 "job that runs as your own role.")));
	require_trusted_owner(QML_HOOK, function);
}

/* Raises an error unless a worker can run the jobs of a hook of the current user. */
static void
require_hook_role(void)
{
	QmlProblem problem;

	if (!qml_handler_role_usable(GetUserId(), &problem))
		ereport(ERROR,
				(errcode(problem.sqlerrcode),
				 errmsg("role \"%s\" cannot run hooks after the commit",
						GetUserNameFromId(GetUserId(), false)),
				 errdetail("A background worker must be able to connect as the role: it needs LOGIN, and "
						   "the privilege CONNECT on the database."),
				 errhint("Run ALTER ROLE ... LOGIN, or GRANT CONNECT ON DATABASE, or register the hook "
						 "as another role.")));
}

/* Values of the columns that both tables have, except for the time. */
static void
set_callback_values(const char *name, Oid function, Datum *values)
{
	values[CALLBACK_NAME - 1] = CStringGetTextDatum(name);
	qml_function_ref_values(function, &values[CALLBACK_SCHEMA - 1]);
	values[CALLBACK_RUN_AS - 1] = ObjectIdGetDatum(GetUserId());
}

/* After it was written: checks a callback as it is read back. */
static void
check_callback(QmlCallbackKind kind, const char *name)
{
	const QmlCallback *callback;
	QmlProblem problem;

	qml_cache_changed(qml_callback_table(kind));
	callback = qml_callback_find(kind, name);
	if (callback == NULL)
		raise_lost(qml_callback_word(kind), name);
	if (!OidIsValid(qml_callback_resolve(callback, &problem)))
		raise_problem(&problem);
}

#define CALLBACK_TYPES	 TEXTOID, TEXTOID, TEXTOID, TEXTARRAYOID, REGROLEOID, REGROLEOID
#define CALLBACK_COLUMNS "name, schema, function, argument_types, owner, run_as, registered_at"
#define CALLBACK_UPDATES                                                 \
	"schema = excluded.schema, function = excluded.function, "           \
	"argument_types = excluded.argument_types, owner = excluded.owner, " \
	"run_as = excluded.run_as, registered_at = excluded.registered_at"

/*
 * Locks the hooks and middleware, and returns the role of the one of this name that is about
 * to be replaced or removed; InvalidOid: there is none.  Raises 42501 if the current user may
 * not do that.
 */
static Oid
lock_callback(QmlCallbackKind kind, const char *name, const char *action)
{
	const QmlCallback *callback;

	qml_grant_lock();
	callback = qml_callback_find(kind, name);
	if (callback == NULL)
		return InvalidOid;
	if (qml_callback_is_owners(callback->role) && !qml_callback_is_owners(GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to %s %s \"%s\"", action, qml_callback_word(kind), name),
				 errdetail("It belongs to role \"%s\", which has the privileges of role \"%s\", the "
						   "owner of the extension.  Only such roles may %s it.",
						   GetUserNameFromId(callback->role, false),
						   GetUserNameFromId(qml_catalog()->owner, false), action),
				 errhint("Leave it as it is, and choose another name for one of your own.")));
	return callback->role;
}

/*
 * Registers a function as a hook, in place of one of the same name, and enables it.
 * states is an array of qml.job_state, or 0 for all.  Returns whether it is called after the
 * commit.
 */
bool
qml_registry_add_hook(const char *name, Oid function, Datum states, Jsonb *options)
{
	Oid types[] = {CALLBACK_TYPES, get_array_type(qml_catalog()->state_type), JSONBOID};
	Datum values[lengthof(types)];
	bool nulls[lengthof(types)] = {false};
	QmlHookOptions parsed;
	Oid old_role;
	Datum before;
	QmlSpi spi;

	qml_options_parse_hook(options, &parsed);
	if (parsed.alerts && states != (Datum) 0)
		ereport(ERROR,
				(errcode(ERRCODE_QML_INVALID_OPTION),
				 errmsg("option \"alerts\" and argument \"states\" exclude each other"),
				 errdetail("A hook is told either of alerts or of transitions."),
				 errhint("Register one hook for each.")));
	require_callback(QML_HOOK, parsed.after_commit, function);
	if (parsed.after_commit)
		require_hook_role();
	else
		require_hook_right(function);
	set_callback_values(name, function, values);
	values[CALLBACK_RUN_AS] = states;
	nulls[CALLBACK_RUN_AS] = states == (Datum) 0;
	values[CALLBACK_RUN_AS + 1] = JsonbPGetDatum(options);
	old_role = lock_callback(QML_HOOK, name, "replace");
	before = qml_audit_look(QML_AUDIT_HOOK, name);
	qml_grant_mark_role(GetUserId());
	qml_spi_begin(&spi, qml_catalog()->owner);
	(void) qml_spi_execute("INSERT INTO qml.hook_data AS h (" CALLBACK_COLUMNS ", states, options) "
						   "VALUES ($1, $2, $3, $4, $5, $6, pg_catalog.now(), $7, $8) "
						   "ON CONFLICT (name) DO UPDATE SET " CALLBACK_UPDATES
						   ", states = excluded.states, options = excluded.options, "
						   "errors = 0, broken = false, "
						   "last_error = NULL, last_error_at = NULL",
						   lengthof(types), types, values, nulls, SPI_OK_INSERT);
	qml_spi_end(&spi);
	check_callback(QML_HOOK, name);
	qml_audit_change("qml_register_hook", QML_AUDIT_HOOK, name, NULL, before);
	if (OidIsValid(old_role))
		qml_grant_unmark_role(old_role);
	return parsed.after_commit;
}

/* The same for a middleware; lower positions are further out. */
void
qml_registry_add_middleware(const char *name, Oid function, int position, Jsonb *options)
{
	Oid types[] = {CALLBACK_TYPES, INT4OID};
	Datum values[lengthof(types)];
	Oid old_role;
	Datum before;
	QmlSpi spi;

	qml_options_parse_middleware(options);
	require_callback(QML_MIDDLEWARE, false, function);
	if (qml_callback_is_owners(GetUserId()))
		require_trusted_owner(QML_MIDDLEWARE, function);
	set_callback_values(name, function, values);
	values[CALLBACK_RUN_AS] = Int32GetDatum(position);
	old_role = lock_callback(QML_MIDDLEWARE, name, "replace");
	before = qml_audit_look(QML_AUDIT_MIDDLEWARE, name);
	qml_grant_mark_role(GetUserId());
	qml_spi_begin(&spi, qml_catalog()->owner);
	(void) qml_spi_execute("INSERT INTO qml.middleware_data AS m (" CALLBACK_COLUMNS ", position) "
						   "VALUES ($1, $2, $3, $4, $5, $6, pg_catalog.now(), $7) "
						   "ON CONFLICT (name) DO UPDATE SET " CALLBACK_UPDATES
						   ", position = excluded.position",
						   lengthof(types), types, values, NULL, SPI_OK_INSERT);
	qml_spi_end(&spi);
	check_callback(QML_MIDDLEWARE, name);
	qml_audit_change("qml_register_middleware", QML_AUDIT_MIDDLEWARE, name, NULL, before);
	if (OidIsValid(old_role))
		qml_grant_unmark_role(old_role);
}

/* What an unknown name may have been meant to be. */
static const char *
guess_callback(QmlCallbackKind kind, const char *name)
{
	QmlSuggestion suggestion;
	ListCell *lc;

	qml_suggest_begin(&suggestion, name);
	foreach(lc, qml_callback_all(kind))
		qml_suggest_consider(&suggestion, ((const QmlCallback *) lfirst(lc))->name);
	return qml_suggest_question(&suggestion);
}

/* Returns false when there is none of that name and missing_ok; raises 42704 without it. */
bool
qml_registry_remove_callback(QmlCallbackKind kind, const char *name, bool missing_ok)
{
	Oid type = TEXTOID;
	Datum value = CStringGetTextDatum(name);
	Oid role = lock_callback(kind, name, "unregister");
	QmlAuditKind audited = kind == QML_HOOK ? QML_AUDIT_HOOK : QML_AUDIT_MIDDLEWARE;
	Datum before = qml_audit_look(audited, name);
	QmlSpi spi;
	bool found;

	qml_spi_begin(&spi, qml_catalog()->owner);
	found = qml_spi_execute_latest(kind == QML_HOOK ?
									   "DELETE FROM qml.hook_data h WHERE h.name = $1" :
									   "DELETE FROM qml.middleware_data m WHERE m.name = $1",
								   1, &type, &value, NULL, SPI_OK_DELETE) > 0;
	qml_spi_end(&spi);
	if (found)
		qml_cache_changed(qml_callback_table(kind));
	if (!found && !missing_ok)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("%s \"%s\" does not exist", qml_callback_word(kind), name),
				 errhint("%sThe view qml.%s lists those that there are.",
						 guess_callback(kind, name), qml_callback_word(kind))));
	qml_audit_change(kind == QML_HOOK ? "qml_unregister_hook" : "qml_unregister_middleware",
					 audited, name, NULL, before);
	if (OidIsValid(role))
		qml_grant_unmark_role(role);
	return found;
}
