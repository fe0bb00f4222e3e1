/*
 * sql_rights.c
 *		SQL functions of rights: qml_grant, qml_revoke; qml.is_admin for the view;
 *		and qml.revoke_default_privileges for the install script.
 */
#include "postgres.h"

#include "commands/extension.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/syscache.h"

#include "common/args.h"
#include "common/default_acl.h"
#include "common/spi.h"
#include "compat.h"
#include "model/acl.h"
#include "model/grant.h"
#include "qml.h"

QML_FUNCTION(qml_grant);
QML_FUNCTION(qml_revoke);
QML_FUNCTION(qml_is_admin);
QML_FUNCTION(qml_revoke_default_privileges);

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

	for (int i = 0; i < QML_CAPABILITIES; i++)
	{
		if (strcmp(name, qml_capability_names[i]) == 0)
			return (QmlCapability) i;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unrecognized capability \"%s\"", name),
			 errhint("Capabilities are: enqueue, work, monitor, admin.")));
}

Datum
qml_grant(PG_FUNCTION_ARGS)
{
	Oid role = read_role(fcinfo);
	QmlCapability capability = read_capability(fcinfo);
	char *queue = qml_args_name_or_null(fcinfo, 2, "queue", QML_MAX_QUEUE_NAME);

	qml_acl_require_owner("grant capabilities");
	qml_grant_capability(role, capability, queue);
	PG_RETURN_VOID();
}

Datum
qml_revoke(PG_FUNCTION_ARGS)
{
	Oid role = read_role(fcinfo);
	QmlCapability capability = read_capability(fcinfo);
	char *queue = qml_args_name_or_null(fcinfo, 2, "queue", QML_MAX_QUEUE_NAME);

	qml_acl_require_owner("revoke capabilities");
	qml_grant_revoke(role, capability, queue);
	PG_RETURN_VOID();
}

Datum
qml_is_admin(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(qml_acl_allow(QML_CAN_ADMIN, NULL));
}

/*
 * The script that creates the extension calls this and drops it: an update would
 * revoke what has been granted since.
 */
Datum
qml_revoke_default_privileges(PG_FUNCTION_ARGS)
{
	QmlSpi spi;

	if (!creating_extension)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s can only be called from an SQL script executed by CREATE EXTENSION",
						"qml.revoke_default_privileges()")));
	qml_spi_begin(&spi, GetUserId());
	qml_default_acl_close_extension(CurrentExtensionObject);
	qml_spi_end(&spi);
	PG_RETURN_VOID();
}
