/*
 * registry.c
 *		Registers and unregisters handlers, state hooks and middleware.
 *
 * The caller has checked that the current user has the capability "admin".  Here the
 * function, the options and the privileges of the role are checked, so that a mistake is
 * an error of the registration.  What changes later is found by the same checks before
 * each call (userfn/handler.c, userfn/callback.c).
 *
 * A registration replaces one of the same name.  The tables belong to the owner of the
 * extension and are written with its rights; their triggers make all backends read them
 * again.
 *
 * Locks: the exclusive lock on the method of a handler, then the row, then those of
 * model/grant.c, because the role of a handler gets privileges with its first handler and
 * loses them with its last one.  Hooks and middleware need the lock on the row only.
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
#include "common/table.h"
#include "compat.h"
#include "errcodes.h"
#include "ipc/wakeup.h"
#include "model/catalog.h"
#include "model/grant.h"
#include "model/options.h"
#include "userfn/callback.h"
#include "userfn/handler.h"
#include "userfn/registry.h"

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
				 errdetail("You must be a member of the role.")));
	return role;
}

/*
 * Registrations of a method wait for each other until the transaction ends: the role of
 * the handler that is replaced must be known, to adjust its privileges.
 */
static void
lock_method(const char *method)
{
	qml_table_require_write();
	LockDatabaseObject(qml_catalog()->handler, qml_cache_hash_name(&method, sizeof(method)), 0,
					   ExclusiveLock);
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

static void
write_handler(const char *method, const QmlSignature *signature, Oid role, Jsonb *options)
{
	Oid types[] = {TEXTOID,	   TEXTOID,	   TEXTOID,	   TEXTARRAYOID,
				   REGROLEOID, REGROLEOID, REGROLEOID, JSONBOID};
	Datum values[lengthof(types)];
	QmlSpi spi;

	values[0] = CStringGetTextDatum(method);
	qml_function_ref_values(signature->function, &values[1]);
	values[1 + QML_FUNCTION_COLUMNS] = ObjectIdGetDatum(role);
	values[2 + QML_FUNCTION_COLUMNS] = ObjectIdGetDatum(GetUserId());
	values[3 + QML_FUNCTION_COLUMNS] = JsonbPGetDatum(options);
	qml_spi_begin(&spi, qml_catalog()->owner);
	(void)
		qml_spi_execute("INSERT INTO qml.handler_data AS h (method, schema, name, argument_types, "
						"owner, run_as, registered_by, registered_at, options) "
						"VALUES ($1, $2, $3, $4, $5, $6, $7, pg_catalog.now(), $8) "
						"ON CONFLICT (method) DO UPDATE SET schema = excluded.schema, "
						"name = excluded.name, argument_types = excluded.argument_types, "
						"owner = excluded.owner, run_as = excluded.run_as, "
						"registered_by = excluded.registered_by, "
						"registered_at = excluded.registered_at, options = excluded.options",
						8, types, values, NULL, SPI_OK_INSERT);
	qml_spi_end(&spi);
}

static void
raise_problem(const QmlProblem *problem)
{
	ereport(ERROR,
			(errcode(problem->sqlerrcode), errmsg("%s", problem->message),
			 problem->detail ? errdetail("%s", problem->detail) : 0));
}

/* Registers a function as the handler of a method, in place of the present one. */
void
qml_registry_add_handler(const char *method, Oid function, Jsonb *options)
{
	QmlHandlerOptions parsed;
	const QmlSignature *signature;
	const QmlHandler *handler;
	QmlProblem problem;
	Oid role;
	Oid old_role;

	qml_options_parse_handler(options, &parsed);
	signature = require_signature(function);
	role = choose_role(&parsed);
	require_superuser_owner(function, signature->owner, role);
	lock_method(method);
	handler = qml_handler_find(method);
	old_role = handler ? handler->run_as : InvalidOid;
	write_handler(method, signature, role, options);

	/*
	 * Check the handler as it is read back: that the names lead to the function again,
	 * and that the role may log in and execute it.
	 */
	CommandCounterIncrement();
	handler = qml_handler_find(method);
	if (!qml_handler_usable(handler, &problem))
		raise_problem(&problem);
	qml_wakeup_anything();
	qml_grant_adjust_role(role);
	if (OidIsValid(old_role) && old_role != role)
		qml_grant_adjust_role(old_role);
}

/* Returns false when the method has no handler and missing_ok; raises QM007 without it. */
bool
qml_registry_remove_handler(const char *method, bool missing_ok)
{
	Oid type = TEXTOID;
	Datum value = CStringGetTextDatum(method);
	Oid role = InvalidOid;
	QmlSpi spi;
	bool found;
	bool isnull;

	lock_method(method);
	qml_spi_begin(&spi, qml_catalog()->owner);
	found = qml_spi_execute_latest(
				"DELETE FROM qml.handler_data h WHERE h.method = $1 RETURNING h.run_as", 1, &type,
				&value, NULL, SPI_OK_DELETE_RETURNING) > 0;
	if (found)
		role = DatumGetObjectId(
			SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	qml_spi_end(&spi);
	if (!found && !missing_ok)
		ereport(ERROR,
				(errcode(ERRCODE_QML_HANDLER_NOT_FOUND),
				 errmsg("method \"%s\" has no handler", method)));
	if (OidIsValid(role))
		qml_grant_adjust_role(role);
	return found;
}

/* ----- state hooks and middleware ----- */

/* Raises an error unless the function can be a hook, or a middleware. */
static void
require_callback(QmlCallbackKind kind, Oid function)
{
	char *reason = qml_callback_refuse(kind, function);
	bool exists = get_func_name(function) != NULL;

	if (reason)
		ereport(ERROR,
				(errcode(exists ? ERRCODE_WRONG_OBJECT_TYPE : ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function %s cannot be a %s",
						exists ? format_procedure(function) : "with this OID",
						qml_callback_word(kind)),
				 errdetail("%s", reason)));
}

/* Values of the columns that both tables have, except for the time. */
static void
set_callback_values(const char *name, Oid function, Datum *values)
{
	values[CALLBACK_NAME - 1] = CStringGetTextDatum(name);
	qml_function_ref_values(function, &values[CALLBACK_SCHEMA - 1]);
	values[CALLBACK_RUN_AS - 1] = ObjectIdGetDatum(GetUserId());
}

/* Checks a callback as it is read back. */
static void
check_callback(QmlCallbackKind kind, const char *name)
{
	const QmlCallback *callback;
	QmlProblem problem;

	CommandCounterIncrement();
	callback = qml_callback_find(kind, name);
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
 * Registers a function as a hook, in place of one of the same name, and enables it.
 * states is an array of qml.job_state, or 0 for all.
 */
void
qml_registry_add_hook(const char *name, Oid function, Datum states, Jsonb *options)
{
	Oid types[] = {CALLBACK_TYPES, get_array_type(qml_catalog()->state_type)};
	Datum values[lengthof(types)];
	bool nulls[lengthof(types)] = {false};
	QmlSpi spi;

	qml_options_parse_callback(options);
	require_callback(QML_HOOK, function);
	set_callback_values(name, function, values);
	values[CALLBACK_RUN_AS] = states;
	nulls[CALLBACK_RUN_AS] = states == (Datum) 0;
	qml_spi_begin(&spi, qml_catalog()->owner);
	(void) qml_spi_execute("INSERT INTO qml.hook_data AS h (" CALLBACK_COLUMNS ", states) "
						   "VALUES ($1, $2, $3, $4, $5, $6, pg_catalog.now(), $7) "
						   "ON CONFLICT (name) DO UPDATE SET " CALLBACK_UPDATES
						   ", states = excluded.states, errors = 0, broken = false, "
						   "last_error = NULL, last_error_at = NULL",
						   lengthof(types), types, values, nulls, SPI_OK_INSERT);
	qml_spi_end(&spi);
	check_callback(QML_HOOK, name);
}

/* The same for a middleware; lower positions are further out. */
void
qml_registry_add_middleware(const char *name, Oid function, int position, Jsonb *options)
{
	Oid types[] = {CALLBACK_TYPES, INT4OID};
	Datum values[lengthof(types)];
	QmlSpi spi;

	qml_options_parse_callback(options);
	require_callback(QML_MIDDLEWARE, function);
	set_callback_values(name, function, values);
	values[CALLBACK_RUN_AS] = Int32GetDatum(position);
	qml_spi_begin(&spi, qml_catalog()->owner);
	(void) qml_spi_execute("INSERT INTO qml.middleware_data AS m (" CALLBACK_COLUMNS ", position) "
						   "VALUES ($1, $2, $3, $4, $5, $6, pg_catalog.now(), $7) "
						   "ON CONFLICT (name) DO UPDATE SET " CALLBACK_UPDATES
						   ", position = excluded.position",
						   lengthof(types), types, values, NULL, SPI_OK_INSERT);
	qml_spi_end(&spi);
	check_callback(QML_MIDDLEWARE, name);
}

/* Returns false when there is none of that name and missing_ok; raises 42704 without it. */
bool
qml_registry_remove_callback(QmlCallbackKind kind, const char *name, bool missing_ok)
{
	Oid type = TEXTOID;
	Datum value = CStringGetTextDatum(name);
	QmlSpi spi;
	bool found;

	qml_spi_begin(&spi, qml_catalog()->owner);
	found = qml_spi_execute_latest(kind == QML_HOOK ?
									   "DELETE FROM qml.hook_data h WHERE h.name = $1" :
									   "DELETE FROM qml.middleware_data m WHERE m.name = $1",
								   1, &type, &value, NULL, SPI_OK_DELETE) > 0;
	qml_spi_end(&spi);
	if (!found && !missing_ok)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("%s \"%s\" does not exist", qml_callback_word(kind), name)));
	return found;
}
