/*
 * sql_server.c
 *		SQL functions of servers: qml_register_server, qml_heartbeat_server,
 *		qml_unregister_server, qml_reclaim_server; and qml.background_servers and
 *		qml.is_alive for the view.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"

#include "common/args.h"
#include "compat.h"
#include "maintenance/server.h"
#include "model/acl.h"
#include "qml.h"

QML_FUNCTION(qml_register_server);
QML_FUNCTION(qml_heartbeat_server);
QML_FUNCTION(qml_unregister_server);
QML_FUNCTION(qml_reclaim_server);
QML_FUNCTION(qml_background_servers);
QML_FUNCTION(qml_is_alive);

/* Highest number of workers that a server may claim to have. */
#define MAX_WORKERS 100000

/* Returns the id of the registration, which the names of its workers begin with. */
Datum
qml_register_server(PG_FUNCTION_ARGS)
{
	char *name = qml_args_name(fcinfo, 0, "name", QML_MAX_SERVER_NAME);
	int workers = qml_args_int(fcinfo, 1, "workers", 1, MAX_WORKERS);
	int nqueues;
	bool all = qml_args_queues(fcinfo, 2, "queues", &nqueues) == NULL;

	if (strchr(name, '/'))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"name\" must not contain a slash"),
				 errdetail("In the name of a worker, a slash separates the server from the rest.")));
	qml_acl_require_any(QML_CAN_WORK);
	PG_RETURN_TEXT_P(
		cstring_to_text(qml_server_register(name, workers, all ? (Datum) 0 : PG_GETARG_DATUM(2))));
}

/* The id of a registration; maintenance/server.c checks who may use it. */
static char *
read_id(FunctionCallInfo fcinfo)
{
	char *id = qml_args_name(fcinfo, 0, "id", QML_MAX_NAME);

	qml_acl_require_any(QML_CAN_WORK);
	return id;
}

Datum
qml_heartbeat_server(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(qml_server_heartbeat(read_id(fcinfo)));
}

Datum
qml_unregister_server(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(qml_server_unregister(read_id(fcinfo)));
}

Datum
qml_reclaim_server(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(qml_server_reclaim(read_id(fcinfo)));
}

/* For the view qml.server: the background processes of this database. */
Datum
qml_background_servers(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	qml_server_list_background(rsinfo->setResult, rsinfo->setDesc);
	return (Datum) 0;
}

/* For the view qml.server: whether the latest heartbeat is recent, and it is not dead. */
Datum
qml_is_alive(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0) || !PG_ARGISNULL(1))
		PG_RETURN_BOOL(false);
	PG_RETURN_BOOL(qml_server_is_alive(PG_GETARG_TIMESTAMPTZ(0)));
}
