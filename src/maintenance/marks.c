/*
 * marks.c
 *		Marks on charts: when something happened outside of qml, such as a deployment.
 *
 * They are rows of qml.mark_data, which are kept for 30 days.  All of it is the caller's
 * transaction.  To remove them waits for nobody.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "common/json.h"
#include "common/spi.h"
#include "common/table.h"
#include "ipc/watch_notes.h"
#include "maintenance/marks.h"
#include "model/audit.h"
#include "model/catalog.h"

/* An act of control is recorded. */
static void
record(Datum label)
{
	JsonbParseState *state = NULL;
	QmlAuditAct act = {.action = "qml_mark", .kind = QML_AUDIT_DATABASE};

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	qml_json_push_text(&state, "label", label);
	act.after = JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
	qml_audit_write(&act);
}

/* Returns the time of the mark. */
TimestampTz
qml_marks_add(const char *label)
{
	Oid types[] = {TIMESTAMPTZOID, TEXTOID, OIDOID};
	TimestampTz now = GetCurrentTimestamp();
	Datum values[] = {TimestampTzGetDatum(now), CStringGetTextDatum(label),
					  ObjectIdGetDatum(GetUserId())};
	QmlSpi spi;

	qml_table_require_write();
	qml_spi_begin(&spi, qml_catalog()->owner);
	(void) qml_spi_execute("INSERT INTO qml.mark_data (at, label, made_by) VALUES ($1, $2, $3)",
						   lengthof(values), types, values, NULL, SPI_OK_INSERT);
	qml_spi_end(&spi);
	record(values[1]);
	qml_watch_note_common();
	return now;
}

/* Removes those that are too old. */
void
qml_marks_forget(void)
{
	Oid relid = get_relname_relid("mark_data", qml_catalog()->schema);
	QmlSpi spi;

	if (!OidIsValid(relid) || !ConditionalLockRelationOid(relid, RowExclusiveLock))
		return;
	qml_spi_begin(&spi, qml_catalog()->owner);
	(void) qml_spi_execute("DELETE FROM qml.mark_data WHERE ctid IN "
						   "(SELECT m.ctid FROM qml.mark_data m WHERE m.at < "
						   "pg_catalog.statement_timestamp() - interval '30 days' "
						   "FOR UPDATE SKIP LOCKED)",
						   0, NULL, NULL, NULL, SPI_OK_DELETE);
	qml_spi_end(&spi);
}
