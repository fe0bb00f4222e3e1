/*
 * alert_rows.c
 *		Alerts: rows of qml.alert_data, and who is told of them.
 *
 * An alert is a row, from its begin on; it is active as long as the row has no end.  When it begins
 * and when it ends, the same transaction
 *	 - sends a notification on the channel "qml.alert", with the id and the event: everybody in the
 *	   database may listen, so it says no more;
 *	 - makes a job for each hook that is called for alerts (jobs/after_commit.c), so an error of a
 *	   hook is that of its job, and is in nobody's way;
 *	 - notes the change for sessions that watch (ipc/watch_notes.c).
 * So each of them happens once for each begin and each end, whatever crashes: what is committed is
 * found as a row by the next scheduler, and what is not has not happened.
 *
 * An index allows one active alert of a kind, queue and method.  Alerts that have ended are kept for
 * 30 days.  To remove them waits for nobody.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "commands/async.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"

#include "common/json.h"
#include "common/spi.h"
#include "common/uuid.h"
#include "ipc/watch_notes.h"
#include "jobs/after_commit.h"
#include "maintenance/alert_rows.h"
#include "model/catalog.h"
#include "model/job.h"
#include "model/queue.h"
#include "userfn/settings.h"

#define CHANNEL "qml.alert"

/* False: somebody has locked the table, and it cannot be written just now. */
bool
qml_alert_rows_lock(void)
{
	Oid relid = get_relname_relid("alert_data", qml_catalog()->schema);

	return OidIsValid(relid) && ConditionalLockRelationOid(relid, RowExclusiveLock);
}

/* ----- reading ----- */

static char *
read_text(uint64 row, int column)
{
	return TextDatumGetCString(qml_spi_value(SPI_tuptable, row, column, TEXTOID, NULL));
}

static void *
read_alert(uint64 row)
{
	QmlAlert *alert = palloc0(sizeof(QmlAlert));
	bool isnull;
	Datum calm_since = qml_spi_value(SPI_tuptable, row, 6, TIMESTAMPTZOID, &isnull);

	alert->id = *DatumGetUUIDP(qml_spi_value(SPI_tuptable, row, 1, UUIDOID, NULL));
	alert->kind = read_text(row, 2);
	alert->queue = DatumGetInt32(qml_spi_value(SPI_tuptable, row, 3, INT4OID, NULL));
	alert->method = read_text(row, 4);
	alert->since = DatumGetTimestampTz(qml_spi_value(SPI_tuptable, row, 5, TIMESTAMPTZOID, NULL));
	alert->calm_since = isnull ? QML_NO_TIME : DatumGetTimestampTz(calm_since);
	alert->value = DatumGetFloat8(qml_spi_value(SPI_tuptable, row, 7, FLOAT8OID, NULL));
	alert->bound = DatumGetFloat8(qml_spi_value(SPI_tuptable, row, 8, FLOAT8OID, NULL));
	alert->detail = read_text(row, 9);
	return alert;
}

/* Those that are active, as they are now in any isolation level; in the current memory context. */
List *
qml_alert_rows_active(void)
{
	MemoryContext context = CurrentMemoryContext;
	List *alerts;
	QmlSpi spi;

	qml_spi_begin(&spi, qml_catalog()->owner);
	(void) qml_spi_execute_latest("SELECT a.id, a.kind, a.queue_id, a.method, a.since, "
								  "a.calm_since, a.value, a.bound, a.detail FROM qml.alert_data a "
								  "WHERE a.until IS NULL ORDER BY a.kind, a.queue_id, a.method",
								  0, NULL, NULL, NULL, SPI_OK_SELECT);
	alerts = qml_spi_rows(context, read_alert);
	qml_spi_end(&spi);
	return alerts;
}

/* ----- telling ----- */

static void
push_number(JsonbParseState **state, const char *key, double number)
{
	JsonbValue value = {.type = jbvNumeric};

	/* Somebody may have written one by hand that is no number in JSON. */
	if (isnan(number) || isinf(number))
	{
		qml_json_push_text(state, key, (Datum) 0);
		return;
	}
	qml_json_push_key(state, key);
	value.val.numeric = DatumGetNumeric(
		DirectFunctionCall1(float8_numeric, Float8GetDatum(number)));
	(void) pushJsonbValue(state, WJB_VALUE, &value);
}

static Datum
text_or_null(const char *value)
{
	return value && *value ? CStringGetTextDatum(value) : (Datum) 0;
}

/* What a hook is told. */
static Datum
show_alert(const QmlAlert *alert, const char *queue, const char *event, TimestampTz until)
{
	JsonbParseState *state = NULL;
	int guc_level = NewGUCNestLevel();
	Datum shown;

	/* What it says does not depend on the settings of the session. */
	qml_settings_pin();
	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	qml_json_push_text(&state, "event", CStringGetTextDatum(event));
	qml_json_push_key(&state, "alert");
	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	qml_json_push_text(&state, "id", CStringGetTextDatum(qml_job_id_string(&alert->id)));
	qml_json_push_text(&state, "kind", CStringGetTextDatum(alert->kind));
	qml_json_push_text(&state, "queue", text_or_null(queue));
	qml_json_push_text(&state, "method", text_or_null(alert->method));
	qml_json_push_time(&state, "since", alert->since);
	qml_json_push_time(&state, "until", until);
	push_number(&state, "value", alert->value);
	push_number(&state, "bound", alert->bound);
	qml_json_push_text(&state, "detail", CStringGetTextDatum(alert->detail));
	(void) pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	shown = JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
	AtEOXact_GUC(false, guc_level);
	return shown;
}

/* An alert begins, or (until) ends. */
static void
tell(const QmlAlert *alert, TimestampTz until)
{
	const char *event = until == QML_NO_TIME ? "begin" : "end";
	const QmlQueue *queue = alert->queue == 0 ? NULL : qml_queue_by_id(alert->queue);

	Async_Notify(CHANNEL, psprintf("{\"id\": \"%s\", \"event\": \"%s\"}",
								   qml_job_id_string(&alert->id), event));
	if (alert->queue == 0)
		qml_watch_note_common();
	else
		qml_watch_note_queue(alert->queue);
	/* Nobody has a right to a queue whose row somebody has deleted. */
	if (alert->queue == 0 || queue)
		qml_after_commit_tell_alert(show_alert(alert, queue ? queue->name : NULL, event, until),
									queue ? queue->name : NULL);
}

/* ----- writing ----- */

/* Gives the alert its id.  Nothing happens if there is one of this kind, queue and method. */
void
qml_alert_rows_begin(QmlAlert *alert)
{
	Oid types[] = {UUIDOID,		   TEXTOID,	  INT4OID,	 TEXTOID,
				   TIMESTAMPTZOID, FLOAT8OID, FLOAT8OID, TEXTOID};
	Datum values[lengthof(types)];
	uint64 rows;
	QmlSpi spi;

	qml_uuid_generate(&alert->id);
	values[0] = UUIDPGetDatum(&alert->id);
	values[1] = CStringGetTextDatum(alert->kind);
	values[2] = Int32GetDatum(alert->queue);
	values[3] = CStringGetTextDatum(alert->method);
	values[4] = TimestampTzGetDatum(alert->since);
	values[5] = Float8GetDatum(alert->value);
	values[6] = Float8GetDatum(alert->bound);
	values[7] = CStringGetTextDatum(alert->detail);
	qml_spi_begin(&spi, qml_catalog()->owner);
	rows = qml_spi_execute("INSERT INTO qml.alert_data (id, kind, queue_id, method, since, value, "
						   "bound, detail) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) "
						   "ON CONFLICT (kind, queue_id, method) WHERE until IS NULL DO NOTHING",
						   lengthof(types), types, values, NULL, SPI_OK_INSERT);
	qml_spi_end(&spi);
	if (rows > 0)
		tell(alert, QML_NO_TIME);
}

/* Notes its value, its bound, what it says, and whether it is calm. */
void
qml_alert_rows_note(const QmlAlert *alert)
{
	Oid types[] = {UUIDOID, TIMESTAMPTZOID, FLOAT8OID, FLOAT8OID, TEXTOID};
	Datum values[] = {UUIDPGetDatum(&alert->id), TimestampTzGetDatum(alert->calm_since),
					  Float8GetDatum(alert->value), Float8GetDatum(alert->bound),
					  CStringGetTextDatum(alert->detail)};
	bool nulls[lengthof(types)] = {false};
	QmlSpi spi;

	nulls[1] = alert->calm_since == QML_NO_TIME;
	qml_spi_begin(&spi, qml_catalog()->owner);
	(void) qml_spi_execute_latest("UPDATE qml.alert_data SET calm_since = $2, value = $3, "
								  "bound = $4, detail = $5 WHERE id = $1 AND until IS NULL",
								  lengthof(types), types, values, nulls, SPI_OK_UPDATE);
	qml_spi_end(&spi);
}

void
qml_alert_rows_end(const QmlAlert *alert, TimestampTz until)
{
	Oid types[] = {UUIDOID, TIMESTAMPTZOID};
	Datum values[] = {UUIDPGetDatum(&alert->id), TimestampTzGetDatum(until)};
	uint64 rows;
	QmlSpi spi;

	qml_spi_begin(&spi, qml_catalog()->owner);
	rows = qml_spi_execute_latest("UPDATE qml.alert_data SET until = $2 "
								  "WHERE id = $1 AND until IS NULL",
								  lengthof(types), types, values, NULL, SPI_OK_UPDATE);
	qml_spi_end(&spi);
	if (rows > 0)
		tell(alert, until);
}
