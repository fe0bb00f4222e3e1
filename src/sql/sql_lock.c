/*
 * sql_lock.c
 *		SQL functions of named locks: qml_try_lock, qml_unlock.
 */
#include "postgres.h"

#include "fmgr.h"

#include "common/args.h"
#include "compat.h"
#include "jobs/named_lock.h"
#include "model/acl.h"
#include "qml.h"

QML_FUNCTION(qml_try_lock);
QML_FUNCTION(qml_unlock);

/* Producers and workers of any queue may take locks, which depend on no queue. */
static void
require_right(void)
{
	qml_acl_require_one(QML_MAY_ENQUEUE | QML_MAY_WORK, NULL);
}

/* Returns the fencing number; NULL if another owner holds the lock. */
Datum
qml_try_lock(PG_FUNCTION_ARGS)
{
	char *resource;
	char *owner;
	int64 ttl;
	int64 fence;

	require_right();
	resource = qml_args_name(fcinfo, 0, "resource", QML_MAX_NAME);
	owner = qml_args_name(fcinfo, 1, "owner", QML_MAX_NAME);
	qml_args_require(fcinfo, 2, "ttl");
	ttl = qml_args_duration(fcinfo, 2, "ttl");
	if (!qml_named_lock_take(resource, owner, ttl, &fence))
		PG_RETURN_NULL();
	PG_RETURN_INT64(fence);
}

Datum
qml_unlock(PG_FUNCTION_ARGS)
{
	char *resource;
	char *owner;

	require_right();
	resource = qml_args_name(fcinfo, 0, "resource", QML_MAX_NAME);
	owner = qml_args_name(fcinfo, 1, "owner", QML_MAX_NAME);
	PG_RETURN_BOOL(qml_named_lock_release(resource, owner));
}
