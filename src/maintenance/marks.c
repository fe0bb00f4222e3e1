/*
 * marks.c
 *		Marks on charts: when something happened outside of qml, such as a deployment.
 *
 * They are rows of qml.mark_data, which the cleanup removes after 30 days.  All of it is the
 * caller's transaction.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"

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
