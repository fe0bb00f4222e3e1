/*
 * grant.c
 *		Grants capabilities to roles, and revokes them.
 *
 * A capability has two halves.  The row in qml.acl_data says for which queues; every
 * function checks it in C (acl.c).  The privileges of PostgreSQL on the functions and
 * views that belong to the capability let the role call them at all; they are granted
 * with the first row of a kind and revoked with the last.  Neither alone is enough.
 *
 * GRANT and REVOKE take effect as of now in any isolation level.  So the rows that they
 * follow are read as of now, too, under a lock on qml.acl_data that keeps them so.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

#include "common/spi.h"
#include "common/table.h"
#include "compat.h"
#include "model/catalog.h"
#include "model/grant.h"

#define ENQUEUE (1 << QML_CAN_ENQUEUE)
#define WORK	(1 << QML_CAN_WORK)
#define MONITOR (1 << QML_CAN_MONITOR)
#define ADMIN	(1 << QML_CAN_ADMIN)
#define ANY		(ENQUEUE | WORK | MONITOR | ADMIN)
/* Not a capability: a handler runs as the role. */
#define RUN (1 << QML_CAPABILITIES)

/*
 * Which capabilities grant EXECUTE on which function.  Those with 0 are for the owner
 * alone.  A test compares this with the extension's objects, so that a new one cannot
 * be forgotten.
 */
static const struct
{
	const char *name;
	int capabilities;
} functions[] = {
	{"qml_enqueue", ENQUEUE | ADMIN},
	{"qml_enqueue_many", ENQUEUE | ADMIN},
	{"qml_fetch", WORK | ADMIN},
	{"qml_heartbeat", WORK | ADMIN},
	{"qml_progress", WORK | ADMIN | RUN},
	{"qml_succeed", WORK | ADMIN},
	{"qml_succeed_many", WORK | ADMIN},
	{"qml_fail", WORK | ADMIN},
	{"qml_release", WORK | ADMIN},
	{"qml_try_lock", WORK | ADMIN},
	{"qml_unlock", WORK | ADMIN},
	{"qml_can_transition", ANY},
	{"qml_job", ANY},
	{"qml_counts", MONITOR | ADMIN},
	{"qml_queue_counts", MONITOR | ADMIN},
	{"qml_delete", ENQUEUE | ADMIN},
	{"qml_retry", ENQUEUE | ADMIN},
	{"qml_reschedule", ENQUEUE | ADMIN},
	{"qml_set_state", ADMIN},
	{"qml_create_queue", ADMIN},
	{"qml_alter_queue", ADMIN},
	{"qml_drop_queue", ADMIN},
	{"qml_pause_queue", ADMIN},
	{"qml_resume_queue", ADMIN},
	{"qml_promote_due", ADMIN},
	{"qml_reclaim", ADMIN},
	{"qml_cleanup", ADMIN},
	{"qml_maintain", ADMIN},
	{"qml_adopt", ADMIN},
	{"qml_schedule_recurring", ENQUEUE | ADMIN},
	{"qml_remove_recurring", ENQUEUE | ADMIN},
	{"qml_pause_recurring", ENQUEUE | ADMIN},
	{"qml_resume_recurring", ENQUEUE | ADMIN},
	{"qml_run_recurring", ENQUEUE | ADMIN},
	{"qml_cron_next", ANY},
	{"qml_poll_recurring", ADMIN},
	{"qml_pg_cron_schedule", ADMIN},
	{"qml_pg_cron_unschedule", ADMIN},
	{"qml_register_server", WORK | ADMIN},
	{"qml_heartbeat_server", WORK | ADMIN},
	{"qml_unregister_server", WORK | ADMIN},
	{"qml_reclaim_server", WORK | ADMIN},
	{"qml_register_handler", ADMIN},
	{"qml_unregister_handler", ADMIN},
	{"qml_register_hook", ADMIN},
	{"qml_unregister_hook", ADMIN},
	{"qml_register_middleware", ADMIN},
	{"qml_unregister_middleware", ADMIN},
	{"qml_next", ADMIN},
	{"qml_tracing", ADMIN},
	{"qml_wait", WORK | ADMIN},
	{"qml_wait_for", ANY},
	{"qml_current_job", RUN},
	{"qml_retry_later", RUN},
	{"qml_discard", RUN},
	{"qml_grant", 0},
	{"qml_revoke", 0},
	{"job_access", ANY},
	{"queue_access", ANY},
	{"recurring_access", ANY},
	{"background_servers", WORK | MONITOR | ADMIN},
	{"is_alive", WORK | MONITOR | ADMIN},
	{"handler_problem", WORK | MONITOR | ADMIN},
	{"hook_problem", WORK | MONITOR | ADMIN},
	{"middleware_problem", WORK | MONITOR | ADMIN},
	{"is_admin", ANY},
	{"invalidate", 0},
};

/* Which capabilities grant SELECT on which view. */
static const struct
{
	const char *name;
	int capabilities;
} views[] = {
	{"job", ANY},
	{"queue", ANY},
	{"acl", ANY},
	{"lock", WORK | MONITOR | ADMIN},
	{"recurring", ANY},
	{"server", WORK | MONITOR | ADMIN},
	{"handler", WORK | MONITOR | ADMIN},
	{"hook", WORK | MONITOR | ADMIN},
	{"middleware", WORK | MONITOR | ADMIN},
};

static int
function_capabilities(const char *name)
{
	for (int i = 0; i < (int) lengthof(functions); i++)
	{
		if (strcmp(functions[i].name, name) == 0)
			return functions[i].capabilities;
	}
	elog(ERROR, "function \"%s\" of extension \"qml\" has no capabilities", name);
}

/* Signatures of the extension's functions that belong to any of the capabilities. */
static char *
list_functions(int capabilities)
{
	Relation depend = table_open(DependRelationId, AccessShareLock);
	Oid extension = get_extension_oid("qml", false);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple tuple;
	StringInfoData list;

	initStringInfo(&list);
	ScanKeyInit(&keys[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(ExtensionRelationId));
	ScanKeyInit(&keys[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(extension));
	scan = systable_beginscan(depend, DependReferenceIndexId, true, NULL, 2, keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend entry = (Form_pg_depend) GETSTRUCT(tuple);

		if (entry->classid == ProcedureRelationId && entry->deptype == DEPENDENCY_EXTENSION &&
			(function_capabilities(get_func_name(entry->objid)) & capabilities) != 0)
			appendStringInfo(&list, "%s%s", list.len ? ", " : "",
							 format_procedure_qualified(entry->objid));
	}
	systable_endscan(scan);
	table_close(depend, AccessShareLock);
	return list.data;
}

/* The same for views. */
static char *
list_views(int capabilities)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < (int) lengthof(views); i++)
	{
		if ((views[i].capabilities & capabilities) != 0)
			appendStringInfo(&list, "%s%s.%s", list.len ? ", " : "", QML_SCHEMA, views[i].name);
	}
	return list.data;
}

static void
run_utility(const char *sql)
{
	(void) qml_spi_execute(sql, 0, NULL, NULL, NULL, SPI_OK_UTILITY);
}

/* Capabilities that a role holds by rows of its own, and RUN, as bits. */
static int
held_capabilities(Oid grantee)
{
	Oid type = REGROLEOID;
	Datum value = ObjectIdGetDatum(grantee);
	uint64 rows;
	int held = 0;

	rows = qml_spi_execute_latest("SELECT DISTINCT capability FROM qml.acl_data WHERE grantee = $1",
								  1, &type, &value, NULL, SPI_OK_SELECT);
	for (uint64 i = 0; i < rows; i++)
	{
		char *name = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);

		for (int c = 0; c < QML_CAPABILITIES; c++)
		{
			if (strcmp(name, qml_capability_names[c]) == 0)
				held |= 1 << c;
		}
	}
	if (qml_spi_execute_latest("SELECT FROM qml.handler_data h WHERE h.run_as = $1 LIMIT 1", 1,
							   &type, &value, NULL, SPI_OK_SELECT) > 0)
		held |= RUN;
	return held;
}

/*
 * Changes the rows about USAGE on the schema of the functions; $1 is the role, $2, if the
 * statement uses it, the owner.  Returns how many rows changed.
 */
static uint64
change_usage_row(const char *sql, Oid grantee, int expected)
{
	Oid types[] = {REGROLEOID, REGROLEOID};
	Datum values[] = {ObjectIdGetDatum(grantee), ObjectIdGetDatum(qml_catalog()->owner)};

	return qml_spi_execute_latest(sql, 2, types, values, NULL, expected);
}

/*
 * The schema of the functions is not qml's own, and a role may have USAGE on it from
 * somebody else.  So a row records that it was qml that granted it, and only then is it
 * revoked.
 */
static void
grant_schema_usage(Oid grantee)
{
	Oid schema = qml_catalog()->function_schema;

	if (qml_schema_is_usable(schema, grantee))
		return;
	run_utility(psprintf("GRANT USAGE ON SCHEMA %s TO %s",
						 quote_identifier(get_namespace_name(schema)),
						 quote_identifier(GetUserNameFromId(grantee, false))));
	(void) change_usage_row("INSERT INTO qml.acl_data (grantee, capability, grantor) "
							"VALUES ($1, '" QML_ACL_USAGE "', $2) ON CONFLICT DO NOTHING",
							grantee, SPI_OK_INSERT);
}

/* Revokes USAGE on that schema, if qml granted it. */
static void
revoke_schema_usage(Oid grantee)
{
	Oid schema = qml_catalog()->function_schema;

	if (change_usage_row("DELETE FROM qml.acl_data WHERE grantee = $1 "
						 "AND capability = '" QML_ACL_USAGE "'",
						 grantee, SPI_OK_DELETE) > 0)
		run_utility(psprintf("REVOKE USAGE ON SCHEMA %s FROM %s",
							 quote_identifier(get_namespace_name(schema)),
							 quote_identifier(GetUserNameFromId(grantee, false))));
}

/* Grants the privileges that belong to the capabilities. */
static void
grant_privileges(Oid grantee, int capabilities)
{
	const char *role = quote_identifier(GetUserNameFromId(grantee, false));

	grant_schema_usage(grantee);
	run_utility(psprintf("GRANT USAGE ON SCHEMA %s TO %s", QML_SCHEMA, role));
	run_utility(psprintf("GRANT USAGE ON TYPE qml.job_state TO %s", role));
	run_utility(psprintf("GRANT EXECUTE ON ROUTINE %s TO %s", list_functions(capabilities), role));
	if (capabilities & ANY)
		run_utility(psprintf("GRANT SELECT ON %s TO %s", list_views(capabilities), role));
}

/* Revokes all of them; the caller grants again what the role still holds. */
static void
revoke_privileges(Oid grantee)
{
	const char *role = quote_identifier(GetUserNameFromId(grantee, false));

	run_utility(psprintf("REVOKE SELECT ON %s FROM %s", list_views(ANY), role));
	run_utility(psprintf("REVOKE EXECUTE ON ROUTINE %s FROM %s", list_functions(ANY | RUN), role));
	run_utility(psprintf("REVOKE USAGE ON TYPE qml.job_state FROM %s", role));
	run_utility(psprintf("REVOKE USAGE ON SCHEMA %s FROM %s", QML_SCHEMA, role));
}

/* One transaction at a time: two GRANTs on the same function collide. */
static void
lock_acl(void)
{
	qml_table_require_write();
	LockRelationOid(qml_catalog()->acl, ShareRowExclusiveLock);
}

/*
 * Changes rows of qml.acl_data: $1 is the grantee, $2 the capability, $3 the queue and $4,
 * if the statement uses it, the grantor.
 */
static void
change_row(const char *sql, Oid grantee, QmlCapability capability, const char *queue, Oid grantor,
		   int expected)
{
	Oid types[] = {REGROLEOID, TEXTOID, TEXTOID, REGROLEOID};
	Datum values[] = {ObjectIdGetDatum(grantee),
					  CStringGetTextDatum(qml_capability_names[capability]),
					  queue ? CStringGetTextDatum(queue) : (Datum) 0, ObjectIdGetDatum(grantor)};
	bool nulls[] = {false, false, queue == NULL, false};

	(void) qml_spi_execute_latest(sql, 4, types, values, nulls, expected);
}

/* Grants a capability on a queue, which need not exist yet; NULL: on all queues. */
void
qml_grant_capability(Oid grantee, QmlCapability capability, const char *queue)
{
	Oid grantor = GetUserId();
	QmlSpi spi;

	lock_acl();
	qml_spi_begin(&spi, qml_catalog()->owner);
	change_row("INSERT INTO qml.acl_data (grantee, capability, queue, grantor) "
			   "VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
			   grantee, capability, queue, grantor, SPI_OK_INSERT);
	if (grantee != qml_catalog()->owner)
		grant_privileges(grantee, 1 << capability);
	qml_spi_end(&spi);
}

/* Leaves a role the privileges that belong to the rows it still has. */
static void
adjust_privileges(Oid grantee)
{
	int held = held_capabilities(grantee);

	/* The owner has its privileges by ownership; they are not for qml to revoke. */
	if (grantee == qml_catalog()->owner)
		return;
	revoke_privileges(grantee);
	if (held)
		grant_privileges(grantee, held);
	else
		revoke_schema_usage(grantee);
}

/* A handler that runs as the role was registered or unregistered. */
void
qml_grant_adjust_role(Oid role)
{
	QmlSpi spi;

	/* The privileges of a role that was dropped went with it. */
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(role)))
		return;
	lock_acl();
	qml_spi_begin(&spi, qml_catalog()->owner);
	adjust_privileges(role);
	qml_spi_end(&spi);
}

/* Revokes a capability on a queue; NULL: on all queues, also those granted one by one. */
void
qml_grant_revoke(Oid grantee, QmlCapability capability, const char *queue)
{
	Oid grantor = GetUserId();
	QmlSpi spi;

	lock_acl();
	qml_spi_begin(&spi, qml_catalog()->owner);
	change_row("DELETE FROM qml.acl_data WHERE grantee = $1 AND capability = $2 "
			   "AND (queue = $3 OR $3 IS NULL)",
			   grantee, capability, queue, grantor, SPI_OK_DELETE);
	adjust_privileges(grantee);
	qml_spi_end(&spi);
}

/* Revokes all capabilities on a queue that is dropped: a new one of its name has none. */
void
qml_grant_forget_queue(const char *queue)
{
	Oid type = TEXTOID;
	Datum value = CStringGetTextDatum(queue);
	SPITupleTable *grantees;
	QmlSpi spi;
	uint64 rows;

	lock_acl();
	qml_spi_begin(&spi, qml_catalog()->owner);
	rows = qml_spi_execute_latest("DELETE FROM qml.acl_data WHERE queue = $1 RETURNING grantee", 1,
								  &type, &value, NULL, SPI_OK_DELETE_RETURNING);
	grantees = SPI_tuptable;
	for (uint64 i = 0; i < rows; i++)
	{
		bool isnull;
		Oid grantee = DatumGetObjectId(
			SPI_getbinval(grantees->vals[i], grantees->tupdesc, 1, &isnull));

		/* The privileges of a role that was dropped went with it. */
		if (SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(grantee)))
			adjust_privileges(grantee);
	}
	qml_spi_end(&spi);
}
