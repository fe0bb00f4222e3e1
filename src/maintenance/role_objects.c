/*
 * role_objects.c
 *		Removing all that a role has in qml, so that it can be dropped.
 *
 * That is its capabilities, with the privileges that belong to them, the handlers that run
 * as it or that it registered, its hooks, middleware and schedules.  Jobs are nobody's
 * property: unfinished ones stay, and those of a removed handler wait for another one, or
 * for a worker outside the database.
 *
 * Locks: the rows of schedules, then those of model/grant.c, then the other rows, in the
 * order in which who changes them takes them.  Schedules that were defined between the two are
 * removed under the locks.  All of it is the caller's transaction.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/syscache.h"

#include "common/cache.h"
#include "common/spi.h"
#include "common/table.h"
#include "jobs/watching.h"
#include "maintenance/role_objects.h"
#include "model/catalog.h"
#include "model/grant.h"

/* Removes rows of a role, $1, from a table that backends cache; adds how many to *count. */
static void
delete_rows(const char *sql, Oid role, Oid cached, int64 *count)
{
	Oid type = REGROLEOID;
	Datum value = ObjectIdGetDatum(role);
	uint64 rows = qml_spi_execute_latest(sql, 1, &type, &value, NULL, SPI_OK_DELETE);

	if (rows > 0)
		qml_cache_changed(cached);
	*count += (int64) rows;
}

/* The roles that a statement about the role, $1, returns, in the current memory context. */
static List *
list_roles(const char *sql, Oid role)
{
	MemoryContext context = CurrentMemoryContext;
	Oid type = REGROLEOID;
	Datum value = ObjectIdGetDatum(role);
	List *roles = NIL;
	QmlSpi spi;
	uint64 rows;

	qml_spi_begin(&spi, qml_catalog()->owner);
	rows = qml_spi_execute_latest(sql, 1, &type, &value, NULL, SPI_OK_SELECT);
	for (uint64 i = 0; i < rows; i++)
	{
		Oid found = DatumGetObjectId(qml_spi_value(SPI_tuptable, i, 1, OIDOID, NULL));
		MemoryContext oldcontext = MemoryContextSwitchTo(context);

		roles = lappend_oid(roles, found);
		MemoryContextSwitchTo(oldcontext);
	}
	qml_spi_end(&spi);
	return roles;
}

static void
drop_schedules(Oid role, QmlRoleObjects *dropped)
{
	MemoryContext context = CurrentMemoryContext;
	Oid type = REGROLEOID;
	Datum value = ObjectIdGetDatum(role);
	List *queues;
	ListCell *lc;
	QmlSpi spi;

	qml_spi_begin(&spi, qml_catalog()->owner);
	dropped->schedules += (int64) qml_spi_execute_latest(
		"DELETE FROM qml.recurring_data WHERE created_by = $1 RETURNING queue", 1, &type, &value,
		NULL, SPI_OK_DELETE_RETURNING);
	queues = qml_spi_strings(context);
	qml_spi_end(&spi);
	foreach(lc, queues)
		qml_watching_note_queue(lfirst(lc));
}

/* All the rest. */
static void
drop_rows(Oid role, QmlRoleObjects *dropped)
{
	const QmlCatalog *cat = qml_catalog();
	QmlSpi spi;

	qml_spi_begin(&spi, cat->owner);
	delete_rows("DELETE FROM qml.handler_data WHERE run_as = $1 OR registered_by = $1", role,
				cat->handler, &dropped->handlers);
	delete_rows("DELETE FROM qml.hook_data WHERE run_as = $1", role, cat->hook, &dropped->hooks);
	delete_rows("DELETE FROM qml.middleware_data WHERE run_as = $1", role, cat->middleware,
				&dropped->middleware);
	/* The row about USAGE is for model/grant.c. */
	delete_rows("DELETE FROM qml.acl_data WHERE grantee = $1 AND " QML_ACL_IS_CAPABILITY, role,
				cat->acl, &dropped->capabilities);
	qml_spi_end(&spi);
}

/* Removes all that the role has; it need not exist any more. */
void
qml_role_objects_drop(Oid role, QmlRoleObjects *dropped)
{
	List *runners;	  /* of handlers that the role registered */
	List *registrars; /* of handlers that run as the role */
	ListCell *lc;

	memset(dropped, 0, sizeof(*dropped));
	qml_table_require_write();
	drop_schedules(role, dropped);
	qml_grant_lock_role(role);
	drop_schedules(role, dropped);
	runners = list_roles("SELECT DISTINCT h.run_as::pg_catalog.oid FROM qml.handler_data h "
						 "WHERE h.registered_by = $1 AND h.run_as <> $1",
						 role);
	registrars = list_roles("SELECT DISTINCT h.registered_by::pg_catalog.oid "
							"FROM qml.handler_data h "
							"WHERE h.run_as = $1 AND h.registered_by <> $1",
							role);
	drop_rows(role, dropped);
	qml_grant_adjust_role(role);
	foreach(lc, runners)
		qml_grant_adjust_role(lfirst_oid(lc));
	foreach(lc, registrars)
		qml_grant_unmark_role(lfirst_oid(lc));
}
