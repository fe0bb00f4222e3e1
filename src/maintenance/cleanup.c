/*
 * cleanup.c
 *		What has to be done from time to time besides the jobs themselves: let
 *		history, locks, ticks and servers expire; and adopt a copy.
 *
 * Any number of callers may do this at once; none waits for a row that somebody
 * else is changing.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/timestamp.h"

#include "common/spi.h"
#include "common/table.h"
#include "jobs/history.h"
#include "maintenance/cleanup.h"
#include "maintenance/reclaim.h"
#include "maintenance/server.h"
#include "model/catalog.h"
#include "schedule/tick.h"

static int64
delete_expired_locks(const QmlCatalog *cat)
{
	QmlSpi spi;
	uint64 deleted;

	qml_spi_begin(&spi, cat->owner);
	/* Passes over a lock that somebody is taking over just now. */
	deleted = qml_spi_execute("DELETE FROM qml.lock WHERE resource IN "
							  "(SELECT l.resource FROM qml.lock l "
							  "WHERE l.expires_at <= pg_catalog.clock_timestamp() "
							  "FOR UPDATE SKIP LOCKED)",
							  0, NULL, NULL, NULL, SPI_OK_DELETE);
	qml_spi_end(&spi);
	return (int64) deleted;
}

/*
 * Rows of roles that were dropped give nobody anything, but a dump would carry
 * them as numbers, which may be another role where it is restored.
 */
static void
forget_dropped_roles(const QmlCatalog *cat)
{
	static const struct
	{
		const char *table;
		const char *column;
	} roles[] = {
		{"handler", "owner"},	  {"handler", "run_as"}, {"handler", "registered_by"},
		{"hook", "owner"},		  {"hook", "run_as"},	 {"middleware", "owner"},
		{"middleware", "run_as"},
	};
	QmlSpi spi;

	qml_spi_begin(&spi, cat->owner);
	/* Looks first: a DELETE would tell all backends that rights changed. */
	if (qml_spi_execute("SELECT FROM qml.acl a WHERE NOT EXISTS "
						"(SELECT FROM pg_catalog.pg_roles r WHERE r.oid = a.grantee)",
						0, NULL, NULL, NULL, SPI_OK_SELECT) > 0)
		(void) qml_spi_execute("DELETE FROM qml.acl a WHERE NOT EXISTS "
							   "(SELECT FROM pg_catalog.pg_roles r WHERE r.oid = a.grantee)",
							   0, NULL, NULL, NULL, SPI_OK_DELETE);
	/* What was registered stays, for its jobs to fail with the reason. */
	for (int i = 0; i < (int) lengthof(roles); i++)
	{
		const char *condition = psprintf("t.%s <> 0 AND NOT EXISTS "
										 "(SELECT FROM pg_catalog.pg_roles r WHERE r.oid = t.%s)",
										 roles[i].column, roles[i].column);

		if (qml_spi_execute(psprintf("SELECT FROM qml.%s t WHERE %s", roles[i].table, condition), 0,
							NULL, NULL, NULL, SPI_OK_SELECT) > 0)
			(void) qml_spi_execute(psprintf("UPDATE qml.%s t SET %s = 0 WHERE %s", roles[i].table,
											roles[i].column, condition),
								   0, NULL, NULL, NULL, SPI_OK_UPDATE);
	}
	qml_spi_end(&spi);
}

/* Lets what is expired go, and makes the partitions that come next. */
void
qml_cleanup_expired(QmlCleanup *done)
{
	const QmlCatalog *cat = qml_catalog_to_work();

	forget_dropped_roles(cat);
	done->locks = delete_expired_locks(cat);
	qml_tick_forget();
	qml_server_forget();
	done->jobs = qml_history_expire(&done->partitions);
	done->prepared = qml_history_prepare();
}

/*
 * Makes this database the home of its jobs.  Claims were made in the original:
 * those jobs are enqueued again, with their attempts counted.  Once: when somebody
 * else has adopted it, claims may have been made here.
 */
void
qml_cleanup_adopt(void)
{
	const QmlCatalog *cat = qml_catalog();
	Oid types[] = {INT8OID, OIDOID};
	Datum values[] = {Int64GetDatum((int64) GetSystemIdentifier()), ObjectIdGetDatum(MyDatabaseId)};
	QmlSpi spi;

	if (cat->adopted)
		return;
	qml_table_require_write();
	LockRelationOid(cat->instance, ShareRowExclusiveLock);
	cat = qml_catalog();
	if (cat->adopted)
		return;
	qml_reclaim_all();
	qml_spi_begin(&spi, cat->owner);
	(void) qml_spi_execute_latest("DELETE FROM qml.instance", 0, NULL, NULL, NULL, SPI_OK_DELETE);
	(void) qml_spi_execute("INSERT INTO qml.instance (system_identifier, database) "
						   "VALUES ($1, $2)",
						   2, types, values, NULL, SPI_OK_INSERT);
	qml_spi_end(&spi);
}
