/*
 * sql_server.c
 *		SQL functions of servers: qml_register_server, qml_heartbeat_server,
 *		qml_deregister_server, qml_reclaim_server; and qml.background_servers and
 *		qml.is_alive for the view.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "utils/builtins.h"

#include "common/args.h"
#include "common/guc.h"
#include "compat.h"
#include "ipc/shmem.h"
#include "maintenance/server.h"
#include "model/acl.h"
#include "qml.h"

QML_FUNCTION(qml_register_server);
QML_FUNCTION(qml_heartbeat_server);
QML_FUNCTION(qml_deregister_server);
QML_FUNCTION(qml_reclaim_server);
QML_FUNCTION(qml_background_servers);
QML_FUNCTION(qml_is_alive);

/* Highest number of workers that a server may claim to have. */
#define MAX_WORKERS 100000

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
qml_deregister_server(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(qml_server_deregister(read_id(fcinfo)));
}

Datum
qml_reclaim_server(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(qml_server_reclaim(read_id(fcinfo)));
}

/* What is shown of a background process. */
typedef struct Background
{
	int pid;
	QmlKind kind;
	Oid role;
	TimestampTz started_at;
	TimestampTz heartbeat_at;
} Background;

/* Those of this database; returns how many. */
static int
copy_backgrounds(Background *backgrounds)
{
	int count = 0;

	LWLockAcquire(qml_shmem->lock, LW_SHARED);
	for (int i = 0; i < qml_shmem->nslots; i++)
	{
		QmlSlot *slot = &qml_shmem->slots[i];

		if (slot->state != QML_SLOT_RUNNING || slot->database != MyDatabaseId ||
			slot->kind == QML_LOOK)
			continue;
		backgrounds[count].pid = slot->pid;
		backgrounds[count].kind = slot->kind;
		backgrounds[count].role = slot->role;
		backgrounds[count].started_at = slot->started_at;
		backgrounds[count++].heartbeat_at = (TimestampTz) pg_atomic_read_u64(&slot->heartbeat_at);
	}
	LWLockRelease(qml_shmem->lock);
	return count;
}

/* The background processes of this database, from shared memory. */
Datum
qml_background_servers(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	char *name = qml_server_own_name();
	Background *backgrounds;
	int count;

	InitMaterializedSRF(fcinfo, 0);
	if (qml_shmem == NULL)
		return (Datum) 0;
	backgrounds = palloc(sizeof(Background) * qml_shmem->nslots);
	count = copy_backgrounds(backgrounds);
	for (int i = 0; i < count; i++)
	{
		const Background *background = &backgrounds[i];
		const char *kind = background->kind == QML_WORKER ? "worker" : "scheduler";
		Datum values[] = {CStringGetTextDatum(psprintf("%s:%d", name, background->pid)),
						  CStringGetTextDatum(name),
						  CStringGetTextDatum(kind),
						  ObjectIdGetDatum(background->role),
						  TimestampTzGetDatum(background->started_at),
						  TimestampTzGetDatum(background->heartbeat_at)};
		bool nulls[lengthof(values)] = {false};

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* Whether a server has been heard of lately, and was not given up. */
Datum
qml_is_alive(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0) || !PG_ARGISNULL(1))
		PG_RETURN_BOOL(false);
	PG_RETURN_BOOL(PG_GETARG_TIMESTAMPTZ(0) >
				   GetCurrentTimestamp() - qml_dead_server_timeout * USECS_PER_SEC);
}
