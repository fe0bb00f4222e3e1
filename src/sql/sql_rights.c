/*
 * sql_rights.c
 *		SQL functions of rights: qml_grant, qml_revoke, qml_drop_role_objects; and
 *		qml.is_admin, qml.role_problem, qml.may_read and qml.may_plan for views.
 *
 * Everybody may call the functions of qml and read its views, as far as the server is
 * concerned, so that whoever lacks a right is told by qml how to get it.  Therefore each
 * function asks for a capability before it looks at its arguments, takes a lock or does
 * anything that costs: by qml_acl_require() and its like, or by what is below.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/json.h"
#include "utils/syscache.h"

#include "common/args.h"
#include "common/json.h"
#include "common/suggest.h"
#include "compat.h"
#include "ipc/wakeup.h"
#include "jobs/watching.h"
#include "maintenance/role_objects.h"
#include "model/acl.h"
#include "model/audit.h"
#include "model/grant.h"
#include "model/queue.h"
#include "model/role_mark.h"
#include "qml.h"
#include "sql/sql_rights.h"
#include "userfn/current_job.h"
#include "userfn/handler.h"

QML_FUNCTION(qml_grant);
QML_FUNCTION(qml_revoke);
QML_FUNCTION(qml_drop_role_objects);
QML_FUNCTION(qml_role_problem);
QML_FUNCTION(qml_is_admin);
QML_FUNCTION(qml_may_read);
QML_FUNCTION(qml_may_plan);

/* Views, and who may read them: on some queue, but administrators on all. */
static const struct
{
	const char *name;
	int capabilities;
} views[] = {
	{"job", QML_MAY_ANY},		{"queue", QML_MAY_ANY},		   {"acl", QML_MAY_ANY},
	{"lock", QML_MAY_ANY},		{"recurring", QML_MAY_ANY},	   {"recurring_tick", QML_MAY_ANY},
	{"server", QML_MAY_WATCH},	{"database", QML_MAY_WATCH},   {"handler", QML_MAY_WATCH},
	{"hook", QML_MAY_WATCH},	{"middleware", QML_MAY_WATCH}, {"pause", QML_MAY_ANY},
	{"audit", QML_MAY_ADMIN},	{"recent", QML_MAY_ANY},	   {"stats_minute", QML_MAY_MONITOR},
	{"mark", QML_MAY_MONITOR},	{"bulk", QML_MAY_ANY},		   {"dead_letter", QML_MAY_MONITOR},
	{"alert", QML_MAY_MONITOR},
};

/* ----- what functions ask for before anything else ----- */

/* The queue that an argument names; NULL: none, or none that could be granted. */
static char *
peek_queue(FunctionCallInfo fcinfo, int arg)
{
	char *name;

	if (PG_ARGISNULL(arg) || toast_raw_datum_size(PG_GETARG_DATUM(arg)) >
								 VARHDRSZ + QML_MAX_QUEUE_NAME * MAX_MULTIBYTE_CHAR_LEN)
		return NULL;
	name = text_to_cstring(PG_GETARG_TEXT_PP(arg));
	return qml_args_is_name(name, QML_MAX_QUEUE_NAME) && !qml_args_is_reserved_queue(name) ? name :
																							 NULL;
}

/*
 * Raises 42501 unless the current user has one of a set of capabilities on some queue.  The
 * argument names the queue to ask for.  Whether it is on that queue is for the caller to look
 * at, after it has checked its arguments.
 */
void
qml_sql_require_queue(FunctionCallInfo fcinfo, int capabilities, int arg)
{
	/* A right that was revoked meanwhile is gone, also within a transaction. */
	AcceptInvalidationMessages();
	if (!qml_acl_allow_one(capabilities, NULL))
		qml_acl_refuse(capabilities, peek_queue(fcinfo, arg));
}

/* Whether the current user is the owner, the role of a handler, or that of the job that runs. */
static bool
is_handler_role(void)
{
	if (qml_current_job_or_null() && has_privs_of_role(GetUserId(), GetSessionUserId()))
		return true;
	AcceptInvalidationMessages();
	return qml_acl_is_owner() || qml_handler_exist_for(GetUserId());
}

/* For functions that mean the job of this session: raises 42501 for others than its role. */
void
qml_sql_require_handler(void)
{
	StringInfoData options;

	if (is_handler_role())
		return;
	initStringInfo(&options);
	appendStringInfoString(&options, "{\"run_as\": ");
	escape_json(&options, GetUserNameFromId(GetUserId(), false));
	appendStringInfoChar(&options, '}');
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for extension \"qml\""),
			 errdetail("Only the role of a handler may call this function."),
			 errhint("An administrator of all queues can register a handler: SELECT "
					 "%s(<method>, <function>, %s);",
					 qml_acl_qualify("qml_register_handler"), quote_literal_cstr(options.data))));
}

/* The same for functions that mean a claim, or that job. */
void
qml_sql_require_work_or_handler(void)
{
	AcceptInvalidationMessages();
	if (!qml_acl_allow_any(QML_CAN_WORK) && !is_handler_role())
		qml_acl_refuse(QML_MAY_WORK, NULL);
}

/* ----- granting ----- */

static Oid
read_role(FunctionCallInfo fcinfo)
{
	Oid role;

	qml_args_require(fcinfo, 0, "grantee");
	role = PG_GETARG_OID(0);
	/* A number passes as a regrole without being one. */
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(role)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role with OID %u does not exist", role)));
	return role;
}

static QmlCapability
read_capability(FunctionCallInfo fcinfo)
{
	char *name = qml_args_name(fcinfo, 1, "capability", QML_MAX_NAME);
	QmlSuggestion suggestion;

	qml_suggest_begin(&suggestion, name);
	for (int i = 0; i < QML_CAPABILITIES; i++)
	{
		if (strcmp(name, qml_capability_names[i]) == 0)
			return (QmlCapability) i;
		qml_suggest_consider(&suggestion, qml_capability_names[i]);
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unrecognized capability \"%s\"", name),
			 errhint("%sCapabilities are: enqueue, work, monitor, admin.",
					 qml_suggest_question(&suggestion))));
}

Datum
qml_grant(PG_FUNCTION_ARGS)
{
	Oid role;
	QmlCapability capability;
	char *queue;

	qml_acl_require_owner("grant capabilities");
	role = read_role(fcinfo);
	capability = read_capability(fcinfo);
	queue = qml_args_name_or_null(fcinfo, 2, "queue", QML_MAX_QUEUE_NAME);
	if (queue)
		qml_args_check_queue(queue);
	qml_grant_capability(role, capability, queue);
	if (queue)
	{
		qml_queue_check_named(queue);
		qml_watching_note_queue(queue);
	}
	/* Who waits for all queues that it may work has new ones. */
	if (capability == QML_CAN_WORK || capability == QML_CAN_ADMIN)
		qml_wakeup_anything();
	PG_RETURN_BOOL(true);
}

Datum
qml_revoke(PG_FUNCTION_ARGS)
{
	Oid role;
	QmlCapability capability;
	char *queue;

	qml_acl_require_owner("revoke capabilities");
	role = read_role(fcinfo);
	capability = read_capability(fcinfo);
	queue = qml_args_name_or_null(fcinfo, 2, "queue", QML_MAX_QUEUE_NAME);
	qml_grant_revoke(role, capability, queue);
	PG_RETURN_BOOL(true);
}

/* Raises 42501 unless the current user may drop what the role has, as for DROP OWNED BY. */
static void
require_role_or_owner(Oid role)
{
	char *name = GetUserNameFromId(role, true);

	if (name && has_privs_of_role(GetUserId(), role))
		return;
	if (!qml_acl_is_owner())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to drop objects"),
				 name ? errdetail("Only roles with privileges of role \"%s\", and the owner of "
								  "extension \"qml\", may do this.",
								  name) :
						errdetail("Only the owner of extension \"qml\" may do this for a role that "
								  "was dropped.")));
}

/* Removes all that a role has, so that it can be dropped; returns how many of each. */
Datum
qml_drop_role_objects(PG_FUNCTION_ARGS)
{
	QmlRoleObjects dropped;
	QmlAuditAct act = {.action = "qml_drop_role_objects", .kind = QML_AUDIT_ROLE};
	JsonbParseState *state = NULL;
	Oid role;

	/* Whoever has nothing of qml needs no lock of it. */
	if (!is_handler_role())
		qml_acl_require_one(QML_MAY_ANY, NULL);
	qml_args_require(fcinfo, 0, "role");
	role = PG_GETARG_OID(0);
	if (!OidIsValid(role))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role with OID %u does not exist", role)));
	require_role_or_owner(role);
	qml_role_objects_drop(role, &dropped);
	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	qml_json_push_int(&state, "capabilities", dropped.capabilities);
	qml_json_push_int(&state, "handlers", dropped.handlers);
	qml_json_push_int(&state, "hooks", dropped.hooks);
	qml_json_push_int(&state, "middleware", dropped.middleware);
	qml_json_push_int(&state, "schedules", dropped.schedules);
	act.before = JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
	act.object = GetUserNameFromId(role, true);
	if (act.object == NULL)
		act.object = psprintf("%u", role);
	if (dropped.capabilities + dropped.handlers + dropped.hooks + dropped.middleware +
			dropped.schedules >
		0)
		qml_audit_write(&act);
	PG_RETURN_DATUM(act.before);
}

/* For views: why the rows of a role do not count; NULL: they do. */
Datum
qml_role_problem(PG_FUNCTION_ARGS)
{
	bool registrations = PG_GETARG_BOOL(1);
	char *problem;

	qml_acl_require_one(QML_MAY_ANY, NULL);
	problem = qml_role_mark_problem(registrations ? QML_MARK_REGISTRATION : QML_MARK_CAPABILITY,
									PG_GETARG_OID(0), registrations ? "its owner" : "the role");
	if (problem == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(problem));
}

Datum
qml_is_admin(PG_FUNCTION_ARGS)
{
	bool admin = qml_acl_allow(QML_CAN_ADMIN, NULL);

	if (!admin)
		qml_acl_require_one(QML_MAY_ANY, NULL);
	PG_RETURN_BOOL(admin);
}

/* ----- views ----- */

/* Raises 42501 unless the current user may read the view.  To look is to monitor. */
static void
require_view(const char *name)
{
	int capabilities = QML_MAY_ANY;
	bool known = false;

	for (int i = 0; i < (int) lengthof(views) && !known; i++)
	{
		known = strcmp(views[i].name, name) == 0;
		if (known)
			capabilities = views[i].capabilities;
	}
	AcceptInvalidationMessages();
	if (capabilities == QML_MAY_ADMIN)
		qml_acl_require(QML_CAN_ADMIN, NULL);
	else if (!qml_acl_allow_one(capabilities, NULL))
		qml_acl_refuse_advising(capabilities, QML_CAN_MONITOR, NULL);
	if (!known)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("extension \"qml\" has no view \"%s\"", name)));
}

/*
 * In each view, a condition that does not depend on its rows: it is tested before the first row
 * is read.  True, or 42501.
 */
Datum
qml_may_read(PG_FUNCTION_ARGS)
{
	require_view(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	PG_RETURN_BOOL(true);
}

/* The same, marked as immutable: it is called when a statement is planned. */
Datum
qml_may_plan(PG_FUNCTION_ARGS)
{
	return qml_may_read(fcinfo);
}
