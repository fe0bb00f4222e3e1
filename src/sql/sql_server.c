/*
 * sql_server.c
 *		SQL functions of servers: qml_register_server, qml_heartbeat_server,
 *		qml_unregister_server, qml_reclaim_server; and qml.background_servers,
 *		qml.is_alive and qml.background_databases for the views.
 */
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "common/args.h"
#include "compat.h"
#include "maintenance/server.h"
#include "maintenance/service.h"
#include "model/acl.h"
#include "qml.h"

QML_FUNCTION(qml_register_server);
QML_FUNCTION(qml_heartbeat_server);
QML_FUNCTION(qml_unregister_server);
QML_FUNCTION(qml_reclaim_server);
QML_FUNCTION(qml_background_servers);
QML_FUNCTION(qml_is_alive);
QML_FUNCTION(qml_background_databases);

/* Highest number of workers that a server may claim to have. */
#define MAX_WORKERS 100000

/* Returns the id of the registration, which the names of its workers begin with. */
Datum
qml_register_server(PG_FUNCTION_ARGS)
{
	char *name;
	int workers;
	int nqueues;
	char **queues;

	qml_acl_require_any(QML_CAN_WORK);
	name = qml_args_name(fcinfo, 0, "name", QML_MAX_SERVER_NAME);
	workers = qml_args_int(fcinfo, 1, "workers", 1, MAX_WORKERS);
	queues = qml_args_queues(fcinfo, 2, "queues", &nqueues);
	if (strchr(name, '/'))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"name\" must not contain a slash"),
				 errdetail("In the name of a worker, a slash separates the server from the rest.")));
	PG_RETURN_TEXT_P(cstring_to_text(
		qml_server_register(name, workers,
							queues ? qml_args_text_array(queues, nqueues) : (Datum) 0)));
}

/* The id of a registration; maintenance/server.c checks who may use it. */
static char *
read_id(FunctionCallInfo fcinfo)
{
	qml_acl_require_any(QML_CAN_WORK);
	return qml_args_name(fcinfo, 0, "id", QML_MAX_NAME);
}

Datum
qml_heartbeat_server(PG_FUNCTION_ARGS)
{
	char *id = read_id(fcinfo);

	PG_RETURN_BOOL(qml_server_heartbeat(id, qml_args_flag(fcinfo, 1, "missing_ok")));
}

Datum
qml_unregister_server(PG_FUNCTION_ARGS)
{
	char *id = read_id(fcinfo);

	PG_RETURN_BOOL(qml_server_unregister(id, qml_args_flag(fcinfo, 1, "missing_ok")));
}

Datum
qml_reclaim_server(PG_FUNCTION_ARGS)
{
	char *id = read_id(fcinfo);

	PG_RETURN_INT32(qml_server_reclaim(id, qml_args_flag(fcinfo, 1, "missing_ok")));
}

/* For the view qml.server: the background processes of this database. */
Datum
qml_background_servers(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	qml_acl_require_one(QML_MAY_WATCH, NULL);
	InitMaterializedSRF(fcinfo, 0);
	qml_server_list_background(rsinfo->setResult, rsinfo->setDesc);
	return (Datum) 0;
}

/* For the view qml.server: whether the latest heartbeat is recent, and it is not dead. */
Datum
qml_is_alive(PG_FUNCTION_ARGS)
{
	qml_acl_require_one(QML_MAY_WATCH, NULL);
	if (PG_ARGISNULL(0) || !PG_ARGISNULL(1))
		PG_RETURN_BOOL(false);
	PG_RETURN_BOOL(qml_server_is_alive(PG_GETARG_TIMESTAMPTZ(0)));
}

/*
 * For the view qml.database: how this database is served, and for those who may see all
 * processes of the server also how the others are.
 */
Datum
qml_background_databases(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	bool all = superuser() || has_privs_of_role(GetUserId(), ROLE_PG_MONITOR);

	qml_acl_require_one(QML_MAY_WATCH, NULL);
	InitMaterializedSRF(fcinfo, 0);
	qml_service_list(all, rsinfo->setResult, rsinfo->setDesc);
	return (Datum) 0;
}
