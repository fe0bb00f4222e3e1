/*
 * adopt.c
 *		Adopting a copy of a database.
 *
 * qml.instance_data names the server and the database that the jobs belong to.  In a restored
 * dump or a copy made by CREATE DATABASE ... TEMPLATE it names another place.  Nothing
 * works there then, so that jobs do not run twice, until an administrator says that this
 * is their new home.
 *
 * The lock on qml.instance_data makes a second adoption wait and then find the copy adopted:
 * it must not reclaim jobs that were claimed since.  It is taken before any job row.
 * All of it is the caller's transaction; a crash before its commit leaves a copy.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/lmgr.h"

#include "common/cache.h"
#include "common/spi.h"
#include "common/table.h"
#include "ipc/counter_notes.h"
#include "ipc/ready_note.h"
#include "ipc/wakeup.h"
#include "jobs/partition.h"
#include "maintenance/adopt.h"
#include "maintenance/audit_partitions.h"
#include "maintenance/reclaim.h"
#include "maintenance/triggers.h"
#include "model/audit.h"
#include "model/catalog.h"
#include "model/life.h"

/*
 * Makes this database the home of its jobs.  Claims were made in the original: those jobs
 * are enqueued again, with their attempts counted.
 */
void
qml_adopt_database(void)
{
	const QmlCatalog *cat;
	Oid types[] = {INT8OID, OIDOID};
	Datum values[] = {Int64GetDatum((int64) GetSystemIdentifier()), ObjectIdGetDatum(MyDatabaseId)};
	QmlAuditAct act = {.action = "qml_adopt", .kind = QML_AUDIT_DATABASE};
	QmlSpi spi;

	/* Also in a database that is adopted: revoking again does no harm. */
	for (int i = 0; i < QML_STORES; i++)
		qml_partition_revoke(i);
	qml_audit_partitions_revoke();
	qml_partition_mend(QML_STORE_LOGGED);
	qml_triggers_mend();
	cat = qml_catalog();
	if (cat->adopted)
		return;
	qml_table_require_write();
	LockRelationOid(cat->instance, ShareRowExclusiveLock);
	/* Read again: somebody else may have adopted it while this waited. */
	cat = qml_catalog();
	if (cat->adopted)
		return;
	/* What restored the copy may have disabled the triggers that tell of rows. */
	qml_ready_note_sql();
	qml_counter_notes_sql();
	qml_life_begin_anew();
	qml_reclaim_all();
	qml_spi_begin(&spi, cat->owner);
	(void) qml_spi_execute_latest("DELETE FROM qml.instance_data", 0, NULL, NULL, NULL,
								  SPI_OK_DELETE);
	(void) qml_spi_execute("INSERT INTO qml.instance_data (system_identifier, database) "
						   "VALUES ($1, $2)",
						   2, types, values, NULL, SPI_OK_INSERT);
	qml_spi_end(&spi);
	qml_audit_write(&act);
	/* As the trigger on the table does, if it is not disabled. */
	qml_cache_changed(qml_catalog()->instance);
	qml_wakeup_launcher(true);
}
