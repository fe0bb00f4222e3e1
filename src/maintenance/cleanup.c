/*
 * cleanup.c
 *		Removing what has expired: finished jobs, named locks, the record of ticks, dead
 *		servers, and names of roles that were dropped.
 *
 * Any number of callers may do this at once.  Expired rows that another transaction is
 * changing are left to the next call, and expired partitions that are in use are, too.
 * All of it is the caller's transaction; a crash before its commit leaves everything as it
 * was, and the next call does it again.
 */
#include "postgres.h"

#include "common/spi.h"
#include "jobs/history.h"
#include "maintenance/cleanup.h"
#include "maintenance/server.h"
#include "model/catalog.h"
#include "schedule/occurrence.h"

/* Returns how many. */
static int64
delete_expired_locks(const QmlCatalog *cat)
{
	QmlSpi spi;
	uint64 deleted;

	qml_spi_begin(&spi, cat->owner);
	/* A lock that somebody is taking over just now is left alone. */
	deleted = qml_spi_execute("DELETE FROM qml.lock_data WHERE resource IN "
							  "(SELECT l.resource FROM qml.lock_data l "
							  "WHERE l.expires_at <= pg_catalog.clock_timestamp() "
							  "FOR UPDATE SKIP LOCKED)",
							  0, NULL, NULL, NULL, SPI_OK_DELETE);
	qml_spi_end(&spi);
	return (int64) deleted;
}

/*
 * Rows that name a role which was dropped give nobody anything.  But a dump would
 * contain the number of the role, and where it is restored that may be another role's.
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
	/* A look first: a DELETE would invalidate what all backends know of capabilities. */
	if (qml_spi_execute("SELECT FROM qml.acl_data a WHERE NOT EXISTS "
						"(SELECT FROM pg_catalog.pg_roles r WHERE r.oid = a.grantee)",
						0, NULL, NULL, NULL, SPI_OK_SELECT) > 0)
		(void) qml_spi_execute("DELETE FROM qml.acl_data a WHERE NOT EXISTS "
							   "(SELECT FROM pg_catalog.pg_roles r WHERE r.oid = a.grantee)",
							   0, NULL, NULL, NULL, SPI_OK_DELETE);
	/* What is registered stays, so that its jobs fail and say why. */
	for (int i = 0; i < (int) lengthof(roles); i++)
	{
		const char *condition = psprintf("t.%s <> 0 AND NOT EXISTS "
										 "(SELECT FROM pg_catalog.pg_roles r WHERE r.oid = t.%s)",
										 roles[i].column, roles[i].column);

		if (qml_spi_execute(psprintf("SELECT FROM qml.%s_data t WHERE %s", roles[i].table,
									 condition),
							0, NULL, NULL, NULL, SPI_OK_SELECT) > 0)
			(void) qml_spi_execute(psprintf("UPDATE qml.%s_data t SET %s = 0 WHERE %s",
											roles[i].table, roles[i].column, condition),
								   0, NULL, NULL, NULL, SPI_OK_UPDATE);
	}
	qml_spi_end(&spi);
}

/* Removes what has expired, and makes the partitions that are needed next. */
void
qml_cleanup_expired(QmlCleanup *done)
{
	const QmlCatalog *cat = qml_catalog_to_work();

	forget_dropped_roles(cat);
	done->locks = delete_expired_locks(cat);
	qml_occurrence_forget();
	qml_server_forget();
	done->jobs = qml_history_expire(&done->partitions);
	done->prepared = qml_history_make_ahead();
}
