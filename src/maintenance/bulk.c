/*
 * bulk.c
 *		Bulk operations: making, pausing, resuming and canceling them.
 *
 * An operation is a row of qml.bulk_data: what is to be done to which jobs, by whose rights, how far
 * it has come and what became of the jobs.  It is done in chunks (bulk_run.c), each of which
 * locks the row.  So whoever steers an operation waits for one chunk at most, and none follows.
 *
 * What the query says of time is counted from when the operation was made, in the zone of the
 * session that made it; jobs that were created later are not meant.
 *
 * An operation can be steered by roles with the privileges of the one that made it, and by
 * administrators of all queues.  It is always done with the rights of the former.  Each of these
 * acts is recorded, and is all of it the caller's transaction.
 *
 * Operations that have ended are kept for a week.  They are removed when another one is made.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "common/json.h"
#include "common/spi.h"
#include "common/table.h"
#include "common/uuid.h"
#include "errcodes.h"
#include "ipc/wakeup.h"
#include "ipc/watch_notes.h"
#include "jobs/bulk_action.h"
#include "jobs/search.h"
#include "maintenance/bulk.h"
#include "maintenance/idle.h"
#include "model/acl.h"
#include "model/audit.h"
#include "model/queue.h"

/* Whether the current user may see and steer the operations of a role. */
bool
qml_bulk_may_see(Oid made_by)
{
	if (qml_acl_allow(QML_CAN_ADMIN, NULL))
		return true;
	/* It may have been dropped. */
	return GetUserNameFromId(made_by, true) != NULL && has_privs_of_role(GetUserId(), made_by);
}

/* ----- making ----- */

static void
forget_old(void)
{
	(void)
		qml_spi_execute("DELETE FROM qml.bulk_data WHERE id IN (SELECT b.id FROM qml.bulk_data b "
						"WHERE b.state IN ('finished', 'canceled', 'failed') AND b.state_at < "
						"pg_catalog.statement_timestamp() - interval '7 days' "
						"FOR UPDATE SKIP LOCKED)",
						0, NULL, NULL, NULL, SPI_OK_DELETE);
}

static void
insert_row(const pg_uuid_t *id, const char *action, const char *query, Jsonb *options,
		   TimestampTz now)
{
	Oid types[] = {UUIDOID, TEXTOID, TEXTOID, JSONBOID, TEXTOID, OIDOID, TIMESTAMPTZOID};
	Datum values[] = {UUIDPGetDatum(id),
					  CStringGetTextDatum(action),
					  CStringGetTextDatum(query),
					  JsonbPGetDatum(options),
					  CStringGetTextDatum(pg_get_timezone_name(session_timezone)),
					  ObjectIdGetDatum(GetUserId()),
					  TimestampTzGetDatum(now)};
	QmlSpi spi;

	qml_spi_begin(&spi, qml_catalog()->owner);
	forget_old();
	(void) qml_spi_execute("INSERT INTO qml.bulk_data (id, action, query, options, timezone, "
						   "made_by, made_at, state, state_at) "
						   "VALUES ($1, $2, $3, $4, $5, $6, $7, 'running', $7)",
						   lengthof(values), types, values, NULL, SPI_OK_INSERT);
	qml_spi_end(&spi);
}

static void
record_making(const pg_uuid_t *id, const char *action, const char *query, Jsonb *options)
{
	QmlAuditAct act = {.action = "qml_bulk",
					   .kind = QML_AUDIT_BULK,
					   .object = qml_job_id_string(id)};
	JsonbParseState *state = NULL;

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	qml_json_push_text(&state, "action", CStringGetTextDatum(action));
	qml_json_push_text(&state, "query", CStringGetTextDatum(query));
	qml_json_push_document(&state, "options", JsonbPGetDatum(options));
	act.after = JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
	qml_audit_write(&act);
}

/* Makes an operation, which begins when the transaction commits. */
void
qml_bulk_make(const char *action, const char *query, Jsonb *options, pg_uuid_t *id)
{
	TimestampTz now = GetCurrentTimestamp();
	QmlSearchCompiled *compiled;
	QmlBulkAction parsed;
	ListCell *lc;

	qml_bulk_action_parse(action, options, &parsed);
	compiled = qml_search_compile(query, now);
	if (qml_search_is_empty(compiled) && !parsed.all)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("the query matches all jobs"),
				 errhint("If all are meant, add \"all\": true to the options.")));
	foreach(lc, qml_search_queues(compiled))
		qml_acl_require(QML_CAN_ADMIN, lfirst(lc));
	if (parsed.changes.queue)
	{
		qml_acl_require(QML_CAN_ENQUEUE, parsed.changes.queue);
		qml_queue_check_named(parsed.changes.queue);
	}
	qml_table_require_write();
	qml_uuid_generate(id);
	insert_row(id, action, query, options, now);
	record_making(id, action, query, options);
	qml_wakeup_at(QML_WAKE_BULK, now);
	qml_watch_note_common();
	qml_idle_warn(QML_IDLE_BULK);
}

/* ----- steering ----- */

/* A row that is going to be changed, and is locked. */
typedef struct Standing
{
	Oid made_by;
	char *state;
} Standing;

pg_noreturn static void
raise_missing(const pg_uuid_t *id)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("bulk operation %s does not exist", qml_job_id_string(id)),
			 errhint("The view %s.bulk shows them.", QML_SCHEMA)));
}

/* Locks the row, within SPI; false: there is none.  The state is in the given memory context. */
static bool
lock_row(const pg_uuid_t *id, MemoryContext context, Standing *standing)
{
	Oid type = UUIDOID;
	Datum value = UUIDPGetDatum(id);
	MemoryContext oldcontext;
	Datum state;

	if (qml_spi_execute_latest("SELECT b.made_by::oid, b.state FROM qml.bulk_data b "
							   "WHERE b.id = $1 FOR UPDATE",
							   1, &type, &value, NULL, SPI_OK_SELECT) == 0)
		return false;
	standing->made_by = DatumGetObjectId(qml_spi_value(SPI_tuptable, 0, 1, OIDOID, NULL));
	state = qml_spi_value(SPI_tuptable, 0, 2, TEXTOID, NULL);
	oldcontext = MemoryContextSwitchTo(context);
	standing->state = TextDatumGetCString(state);
	MemoryContextSwitchTo(oldcontext);
	return true;
}

static void
write_state(const pg_uuid_t *id, const char *state, Datum reason)
{
	Oid types[] = {UUIDOID, TEXTOID, TEXTOID};
	Datum values[] = {UUIDPGetDatum(id), CStringGetTextDatum(state), reason};
	bool nulls[] = {false, false, reason == (Datum) 0};

	(void) qml_spi_execute_latest("UPDATE qml.bulk_data SET state = $2, state_reason = $3, "
								  "state_at = pg_catalog.clock_timestamp(), not_before = NULL "
								  "WHERE id = $1",
								  lengthof(values), types, values, nulls, SPI_OK_UPDATE);
}

static void
record_steering(const char *function, const pg_uuid_t *id, const char *before, const char *after,
				Datum reason)
{
	QmlAuditAct act = {.action = function, .kind = QML_AUDIT_BULK, .object = qml_job_id_string(id)};
	JsonbParseState *state = NULL;

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	qml_json_push_text(&state, "state", CStringGetTextDatum(before));
	act.before = JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
	state = NULL;
	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	qml_json_push_text(&state, "state", CStringGetTextDatum(after));
	qml_json_push_text(&state, "reason", reason);
	act.after = JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
	qml_audit_write(&act);
}

/* A list of words in a string: "running paused". */
static bool
is_one_of(const char *state, const char *states)
{
	size_t length = strlen(state);

	for (const char *found = strstr(states, state); found; found = strstr(found + 1, state))
	{
		if ((found == states || found[-1] == ' ') &&
			(found[length] == ' ' || found[length] == '\0'))
			return true;
	}
	return false;
}

/* Gives an operation another state; false: it has it already. */
static bool
set_state(const char *function, const pg_uuid_t *id, const char *from, const char *to, Datum reason)
{
	MemoryContext context = CurrentMemoryContext;
	Standing standing;
	bool found;
	QmlSpi spi;

	qml_table_require_write();
	qml_spi_begin(&spi, qml_catalog()->owner);
	found = lock_row(id, context, &standing);
	qml_spi_end(&spi);
	/* What somebody may not see is not there for him. */
	if (!found || !qml_bulk_may_see(standing.made_by))
		raise_missing(id);
	if (strcmp(standing.state, to) == 0)
		return false;
	if (!is_one_of(standing.state, from))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("bulk operation %s is %s", qml_job_id_string(id), standing.state)));
	qml_spi_begin(&spi, qml_catalog()->owner);
	write_state(id, to, reason);
	qml_spi_end(&spi);
	record_steering(function, id, standing.state, to, reason);
	qml_watch_note_common();
	return true;
}

bool
qml_bulk_pause(const pg_uuid_t *id, Datum reason)
{
	return set_state("qml_pause_bulk", id, "running", "paused", reason);
}

/* Also one that has stopped because of an error: it goes on where it was. */
bool
qml_bulk_resume(const pg_uuid_t *id)
{
	bool changed = set_state("qml_resume_bulk", id, "paused failed", "running", (Datum) 0);

	qml_wakeup_at(QML_WAKE_BULK, GetCurrentTimestamp());
	qml_idle_warn(QML_IDLE_BULK);
	return changed;
}

bool
qml_bulk_cancel(const pg_uuid_t *id, Datum reason)
{
	return set_state("qml_cancel_bulk", id, "running paused failed", "canceled", reason);
}
