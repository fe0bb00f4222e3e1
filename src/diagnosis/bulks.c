/*
 * bulks.c
 *		Whether bulk operations go on.
 *
 * One that is under way has a chunk done at least every few seconds, also when the server is busy.  One
 * that has failed waits for somebody to resume or cancel it; one that is paused is meant to be.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/uuid.h"

#include "common/fault.h"
#include "common/spi.h"
#include "diagnosis/bulks.h"
#include "diagnosis/names.h"
#include "maintenance/bulk.h"
#include "model/catalog.h"
#include "model/job.h"

/* Seconds without a chunk after which an operation stands still. */
#define STILL_AFTER QML_FAULT_LIMIT("bulk.still_after", 60)

/* An operation that has not ended. */
typedef struct Operation
{
	char *id;
	Oid made_by;
	char *state;
	bool is_late;
} Operation;

static void *
read_operation(uint64 row)
{
	Operation *operation = palloc(sizeof(Operation));

	operation->id = qml_job_id_string(
		DatumGetUUIDP(qml_spi_value(SPI_tuptable, row, 1, UUIDOID, NULL)));
	operation->made_by = DatumGetObjectId(qml_spi_value(SPI_tuptable, row, 2, OIDOID, NULL));
	operation->state = TextDatumGetCString(qml_spi_value(SPI_tuptable, row, 3, TEXTOID, NULL));
	operation->is_late = DatumGetBool(qml_spi_value(SPI_tuptable, row, 4, BOOLOID, NULL));
	return operation;
}

/* All of them, also such as the caller does not see. */
static List *
list_operations(void)
{
	MemoryContext context = CurrentMemoryContext;
	Oid type = INT4OID;
	Datum seconds = Int32GetDatum(STILL_AFTER);
	List *operations;
	QmlSpi spi;

	qml_spi_begin(&spi, qml_catalog()->owner);
	(void) qml_spi_execute_latest(
		"SELECT b.id, b.made_by::oid, b.state, pg_catalog.clock_timestamp() > "
		"greatest(b.state_at, b.worked_at, b.not_before) + $1 * interval '1 second' "
		"FROM qml.bulk_data b WHERE b.state IN ('running', 'paused', 'failed') ORDER BY b.made_at",
		1, &type, &seconds, NULL, SPI_OK_SELECT);
	operations = qml_spi_rows(context, read_operation);
	qml_spi_end(&spi);
	return operations;
}

void
qml_bulks_check(QmlFinding *finding)
{
	QmlNameList still;
	QmlNameList failed;
	const char *first_failed = NULL;
	int running = 0;
	int paused = 0;
	ListCell *lc;

	qml_names_init(&still);
	qml_names_init(&failed);
	foreach(lc, list_operations())
	{
		const Operation *operation = lfirst(lc);

		if (!qml_bulk_may_see(operation->made_by))
			continue;
		if (strcmp(operation->state, "paused") == 0)
			paused++;
		else if (strcmp(operation->state, "failed") == 0)
		{
			first_failed = first_failed ? first_failed : operation->id;
			qml_names_add(&failed, operation->id, NULL);
		}
		else if (operation->is_late)
			qml_names_add(&still, operation->id, NULL);
		else
			running++;
	}
	if (still.count > 0)
		qml_finding_fail(finding, qml_finding_call("qml_maintain", ""),
						 "%s still, though not paused: %s",
						 qml_finding_count(still.count, "bulk operation stands",
										   "bulk operations stand"),
						 qml_names_text(&still));
	else if (failed.count > 0)
		qml_finding_fail(finding,
						 qml_finding_call("qml_resume_bulk", qml_finding_quote(first_failed)),
						 "%s failed, as qml.bulk says: %s",
						 qml_finding_count(failed.count, "bulk operation has",
										   "bulk operations have"),
						 qml_names_text(&failed));
	else
		qml_finding_pass(finding, "%s under way, %d paused",
						 qml_finding_count(running, "bulk operation is", "bulk operations are"),
						 paused);
}
