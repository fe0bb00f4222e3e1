/*
 * job_audit.c
 *		What an act of control changes of a job, for the record (model/audit.c).
 *
 * Only what differs is recorded, as it was and as it is then.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"

#include "common/json.h"
#include "core/state.h"
#include "jobs/job_audit.h"
#include "model/queue.h"

/* Two documents that are being made. */
typedef struct Difference
{
	JsonbParseState *before;
	JsonbParseState *after;
} Difference;

static void
add_text(Difference *to, const char *key, Datum before, Datum after)
{
	if (before == after)
		return;
	qml_json_push_text(&to->before, key, before);
	qml_json_push_text(&to->after, key, after);
}

static void
add_string(Difference *to, const char *key, const char *before, const char *after)
{
	if (strcmp(before, after) != 0)
		add_text(to, key, CStringGetTextDatum(before), CStringGetTextDatum(after));
}

static void
add_int(Difference *to, const char *key, int before, int after)
{
	if (before == after)
		return;
	qml_json_push_int(&to->before, key, before);
	qml_json_push_int(&to->after, key, after);
}

static void
add_time(Difference *to, const char *key, TimestampTz before, TimestampTz after)
{
	if (before == after)
		return;
	qml_json_push_time(&to->before, key, before);
	qml_json_push_time(&to->after, key, after);
}

static void
add_document(Difference *to, const char *key, Datum before, Datum after)
{
	if (before == after)
		return;
	qml_json_push_document(&to->before, key, before);
	qml_json_push_document(&to->after, key, after);
}

static Datum
end_document(JsonbParseState **state)
{
	return JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(state, WJB_END_OBJECT, NULL)));
}

/* A role by name; by number if it was dropped. */
static char *
name_role(Oid role)
{
	char *name = GetUserNameFromId(role, true);

	return name ? name : psprintf("%u", role);
}

/*
 * Fills in an act: which job it is about, and how that was before and is after it.  The documents
 * are made in the current memory context; the values of the job are copied.
 */
void
qml_job_audit_note(QmlAuditAct *act, const QmlJob *before, const QmlJob *after)
{
	const char *queue = qml_queue_require(before->queue_id)->name;
	Difference to = {NULL, NULL};

	act->kind = QML_AUDIT_JOB;
	act->object = qml_job_id_string(&before->id);
	act->queue = queue;
	(void) pushJsonbValue(&to.before, WJB_BEGIN_OBJECT, NULL);
	(void) pushJsonbValue(&to.after, WJB_BEGIN_OBJECT, NULL);
	add_string(&to, "state", qml_state_label(before->state), qml_state_label(after->state));
	add_string(&to, "queue", queue, qml_queue_require(after->queue_id)->name);
	add_int(&to, "priority", before->priority, after->priority);
	add_int(&to, "max_retries", before->max_retries, after->max_retries);
	add_int(&to, "timeout_ms", before->timeout_ms, after->timeout_ms);
	add_time(&to, "run_at", before->run_at, after->run_at);
	if (before->created_by != after->created_by)
		add_string(&to, "created_by", name_role(before->created_by), name_role(after->created_by));
	add_text(&to, "worker", before->worker, after->worker);
	add_text(&to, "reason", before->reason, after->reason);
	add_document(&to, "metadata", before->metadata, after->metadata);
	add_document(&to, "payload", before->payload, after->payload);
	add_document(&to, "result", before->result, after->result);
	if (before->errors != after->errors)
		add_text(&to, "error", qml_job_last_error(before), qml_job_last_error(after));
	act->is_lazy = qml_queue_storage(before->queue_id) != QML_DURABLE &&
				   qml_queue_storage(after->queue_id) != QML_DURABLE;
	act->before = end_document(&to.before);
	act->after = end_document(&to.after);
}
