/*
 * bulk_action.c
 *		What a bulk operation does to a job: in memory, by the functions that change a single one.
 *
 * Each action is for jobs in some states; others are not looked for.  Jobs that run are never
 * changed but deleted, which cancels them, as qml_delete() does.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

#include "common/args.h"
#include "common/json_merge.h"
#include "common/report.h"
#include "common/suggest.h"
#include "core/state.h"
#include "errcodes.h"
#include "jobs/bulk_action.h"
#include "jobs/transition.h"
#include "jobs/update.h"
#include "qml.h"

const char *const qml_bulk_outcome_names[QML_BULK_OUTCOMES] = {
	[QML_BULK_CHANGED] = "changed",
	[QML_BULK_UNCHANGED] = "unchanged",
	[QML_BULK_NOT_PERMITTED] = "not_permitted",
	[QML_BULK_GONE] = "changed_meanwhile",
	[QML_BULK_HELD] = "locked",
	[QML_BULK_FAILED] = "error",
};

/* ----- options ----- */

static void read_all(JsonbValue *value, QmlBulkAction *action);
static void read_queue(JsonbValue *value, QmlBulkAction *action);
static void read_priority(JsonbValue *value, QmlBulkAction *action);
static void read_reason(JsonbValue *value, QmlBulkAction *action);
static void read_patch(JsonbValue *value, QmlBulkAction *action);

#define BIT(kind) (1 << (kind))
#define ANY_KIND  (BIT(QML_BULK_REDRIVE + 1) - 1)

static const char *const kinds[] = {"retry", "delete", "move", "priority", "redrive"};

static const struct
{
	const char *name;
	int taken; /* by these kinds */
	int needed;
	void (*read)(JsonbValue *value, QmlBulkAction *action);
} bulk_options[] = {
	{"all", ANY_KIND, 0, read_all},
	{"queue", BIT(QML_BULK_MOVE) | BIT(QML_BULK_REDRIVE), BIT(QML_BULK_MOVE), read_queue},
	{"priority", BIT(QML_BULK_PRIORITY), BIT(QML_BULK_PRIORITY), read_priority},
	{"reason", BIT(QML_BULK_DELETE), 0, read_reason},
	{"patch", BIT(QML_BULK_REDRIVE), 0, read_patch},
};

pg_noreturn static void
bad_value(const char *name, const char *allowed)
{
	ereport(ERROR,
			(errcode(ERRCODE_QML_INVALID_OPTION), errmsg("invalid value for option \"%s\"", name),
			 errdetail("It must be %s.", allowed)));
}

static void
read_all(JsonbValue *value, QmlBulkAction *action)
{
	if (value->type != jbvBool)
		bad_value("all", "true or false");
	action->all = value->val.boolean;
}

/* As qml_update_job() takes it. */
static void
read_queue(JsonbValue *value, QmlBulkAction *action)
{
	char *name = NULL;

	if (value->type == jbvString)
		name = pnstrdup(value->val.string.val, value->val.string.len);
	if (name == NULL || !qml_args_is_name(name, QML_MAX_QUEUE_NAME))
		bad_value("queue", psprintf("a string of 1 to %d characters without control characters, "
									"and without blanks at either end",
									QML_MAX_QUEUE_NAME));
	if (qml_args_is_reserved_queue(name))
		bad_value("queue", "the name of a queue that is not reserved");
	action->changes.queue = name;
}

static void
read_priority(JsonbValue *value, QmlBulkAction *action)
{
	int64 number = 0;
	bool valid = value->type == jbvNumeric;

	if (valid)
	{
		Datum digits = DirectFunctionCall1(numeric_out, NumericGetDatum(value->val.numeric));
		char *end;

		errno = 0;
		number = strtoi64(DatumGetCString(digits), &end, 10);
		valid = errno == 0 && *end == '\0' && number >= PG_INT32_MIN && number <= PG_INT32_MAX;
	}
	if (!valid)
		bad_value("priority", "a whole number of 32 bits");
	action->changes.has_priority = true;
	action->changes.priority = (int) number;
}

static void
read_reason(JsonbValue *value, QmlBulkAction *action)
{
	if (value->type != jbvString)
		bad_value("reason", "a string");
	action->reason = qml_report_cut(value->val.string.val, value->val.string.len, QML_MAX_ERROR);
}

static void
read_patch(JsonbValue *value, QmlBulkAction *action)
{
	if (value->type != jbvBinary || !JsonContainerIsObject(value->val.binary.data))
		bad_value("patch", "an object");
	action->patch = JsonbPGetDatum(JsonbValueToJsonb(value));
	qml_args_check_document(action->patch, "patch");
}

/* The options that a kind takes, for a hint. */
static char *
list_options(QmlBulkKind kind)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < (int) lengthof(bulk_options); i++)
	{
		if (bulk_options[i].taken & BIT(kind))
			appendStringInfo(&list, "%s%s", list.len ? ", " : "", bulk_options[i].name);
	}
	return list.data;
}

pg_noreturn static void
refuse_option(const char *key, QmlBulkKind kind)
{
	QmlSuggestion suggestion;

	for (int i = 0; i < (int) lengthof(bulk_options); i++)
	{
		if (strcmp(bulk_options[i].name, key) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_QML_INVALID_OPTION),
					 errmsg("option \"%s\" has no meaning for action \"%s\"", key, kinds[kind]),
					 errhint("Its options are: %s.", list_options(kind))));
	}
	qml_suggest_begin(&suggestion, key);
	for (int i = 0; i < (int) lengthof(bulk_options); i++)
	{
		if (bulk_options[i].taken & BIT(kind))
			qml_suggest_consider(&suggestion, bulk_options[i].name);
	}
	ereport(ERROR,
			(errcode(ERRCODE_QML_INVALID_OPTION),
			 errmsg("unrecognized option \"%s\"",
					pnstrdup(key, pg_mbcliplen(key, strlen(key), QML_MAX_NAME))),
			 errhint("%sOptions of action \"%s\" are: %s.", qml_suggest_question(&suggestion),
					 kinds[kind], list_options(kind))));
}

/* ----- actions ----- */

static int
states_of(QmlBulkKind kind)
{
	int states = 0;

	for (int i = 0; i < QML_STATES; i++)
	{
		QmlState state = (QmlState) i;
		bool fits = false;

		switch (kind)
		{
			case QML_BULK_RETRY:
				fits = state != QML_PROCESSING && qml_state_allowed(state, QML_ENQUEUED);
				break;
			case QML_BULK_DELETE:
				fits = qml_state_allowed(state, QML_DELETED);
				break;
			case QML_BULK_MOVE:
			case QML_BULK_PRIORITY:
				fits = state != QML_PROCESSING && state != QML_SUCCEEDED && state != QML_DELETED;
				break;
			case QML_BULK_REDRIVE:
				fits = state == QML_FAILED;
				break;
		}
		if (fits)
			states |= 1 << i;
	}
	return states;
}

/* The action of this name, without its options; raises 22023. */
void
qml_bulk_action_begin(const char *name, QmlBulkAction *action)
{
	QmlSuggestion suggestion;

	memset(action, 0, sizeof(*action));
	action->changes.run_at = QML_NO_TIME;
	qml_suggest_begin(&suggestion, name);
	for (int i = 0; i < (int) lengthof(kinds); i++)
	{
		if (strcmp(kinds[i], name) == 0)
		{
			action->kind = (QmlBulkKind) i;
			action->states = states_of(action->kind);
			return;
		}
		qml_suggest_consider(&suggestion, kinds[i]);
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("unrecognized action \"%s\"", name),
			 errhint("%sActions are: retry, delete, move, priority, redrive.",
					 qml_suggest_question(&suggestion))));
}

/* The same with its options, an object; raises QM005. */
void
qml_bulk_action_parse(const char *name, Jsonb *options, QmlBulkAction *action)
{
	JsonbIterator *it;
	JsonbValue key;
	JsonbValue value;
	int given = 0;

	qml_bulk_action_begin(name, action);
	it = JsonbIteratorInit(&options->root);
	(void) JsonbIteratorNext(&it, &key, true);
	while (JsonbIteratorNext(&it, &key, true) == WJB_KEY)
	{
		char *option = pnstrdup(key.val.string.val, key.val.string.len);
		int number = 0;

		while (number < (int) lengthof(bulk_options) &&
			   (strcmp(bulk_options[number].name, option) != 0 ||
				(bulk_options[number].taken & BIT(action->kind)) == 0))
			number++;
		if (number == (int) lengthof(bulk_options))
			refuse_option(option, action->kind);
		(void) JsonbIteratorNext(&it, &value, true);
		if (value.type == jbvNull)
			continue;
		bulk_options[number].read(&value, action);
		given |= 1 << number;
	}
	for (int i = 0; i < (int) lengthof(bulk_options); i++)
	{
		if ((bulk_options[i].needed & BIT(action->kind)) && (given & (1 << i)) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_QML_INVALID_OPTION),
					 errmsg("action \"%s\" needs option \"%s\"", name, bulk_options[i].name)));
	}
}

/* A failed job becomes ready, perhaps elsewhere, or with another payload. */
static void
redrive(const QmlBulkAction *action, const QmlQueue *queue, QmlJob *job, TimestampTz now)
{
	QmlJobChanges changes = action->changes;

	qml_transition_set(job, QML_ENQUEUED, now);
	if (action->patch != (Datum) 0)
	{
		changes.payload = qml_json_merge(job->payload, action->patch);
		qml_args_check_document(changes.payload, "payload");
	}
	if (changes.queue || changes.payload != (Datum) 0)
		(void) qml_update_apply(job, queue, &changes, now);
}

/*
 * Changes a job in memory.  queue: the one that the action names, locked.  An outcome other than
 * "changed" leaves it as it is; an error that lies in the job is raised.
 */
QmlBulkOutcome
qml_bulk_action_apply(const QmlBulkAction *action, const QmlQueue *queue, QmlJob *job,
					  TimestampTz now)
{
	if ((action->states & (1 << job->state)) == 0)
		return QML_BULK_GONE;
	switch (action->kind)
	{
		case QML_BULK_RETRY:
			qml_transition_set(job, QML_ENQUEUED, now);
			break;
		case QML_BULK_DELETE:
			qml_transition_delete(job, action->reason, now);
			break;
		case QML_BULK_MOVE:
		case QML_BULK_PRIORITY:
			if (!qml_update_apply(job, queue, &action->changes, now))
				return QML_BULK_UNCHANGED;
			break;
		case QML_BULK_REDRIVE:
			redrive(action, queue, job, now);
			break;
	}
	return QML_BULK_CHANGED;
}
