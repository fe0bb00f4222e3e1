/*
 * alert_pass.c
 *		Begins and ends alerts.
 *
 * The scheduler calls it at intervals.  A pass collects values (alert_values.c, alert_checks.c),
 * reads which alerts are active, and begins, notes and ends some (maintenance/alert_rows.c), all in
 * the caller's transaction.  When one begins and ends says core/alert.c.  As long as nothing of that
 * happens, nothing is written.
 *
 * There is no storm.  Of each kind that is about queues, at most qml.alert_limit have an alert of
 * their own, those that are the farthest over their bounds.  All others of the kind are in one alert
 * without a queue, whose value is how many they are.  While there is that one, nothing else of the
 * kind begins.  It ends when so few are left that they have room, so that a number that moves
 * around the limit does not make it begin and end.
 *
 * A queue that could not be looked at, or a check whose answer is not known, changes nothing.
 * A crash at any point undoes the pass, or leaves all of it: what is active is in the table.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "miscadmin.h"

#include "common/fault.h"
#include "common/guc.h"
#include "core/alert.h"
#include "diagnosis/alert_pass.h"
#include "diagnosis/names.h"
#include "maintenance/alert_rows.h"
#include "model/catalog.h"
#include "model/queue.h"
#include "qml.h"

/* A value must be low for so long. */
#define CALM_NEEDED ((int64) QML_FAULT_LIMIT("alerts.calm_s", 60) * USECS_PER_SEC)

typedef struct Pass
{
	QmlAlertValues values;
	bool looked_at_checks;
	List *active; /* of QmlAlert */
} Pass;

/* The alert of all others of a kind. */
static bool
is_summary(const QmlAlert *alert)
{
	return alert->queue == 0 && qml_alert_values_queue_kind(alert->kind) >= 0;
}

/* ----- alerts that are active ----- */

static QmlAlertChange
judge(const Pass *pass, const QmlAlert *alert, double value, double bound)
{
	QmlAlertState state = {.active = true,
						   .calm = alert->calm_since != QML_NO_TIME,
						   .noted = alert->value};

	if (state.calm)
		state.calm_for = pass->values.now - alert->calm_since;
	/* The clock was set back: it begins to be calm now. */
	if (state.calm_for < 0)
		return QML_ALERT_CALM;
	return qml_alert_change(&state, value, bound, CALM_NEEDED);
}

/* Does what follows from a value; detail: of one that is above the bound.  True: the alert goes on. */
static bool
apply(const Pass *pass, QmlAlert *alert, double value, double bound, const char *detail)
{
	QmlAlertChange change = judge(pass, alert, value, bound);

	switch (change)
	{
		case QML_ALERT_STAYS:
		case QML_ALERT_BEGINS:
			return true;
		case QML_ALERT_ENDS:
			qml_alert_rows_end(alert, pass->values.now);
			return false;
		case QML_ALERT_CALM:
			alert->calm_since = pass->values.now;
			break;
		case QML_ALERT_WORSE:
		case QML_ALERT_BACK:
			alert->calm_since = QML_NO_TIME;
			alert->value = Max(alert->value, value);
			alert->bound = bound;
			if (detail)
				alert->detail = detail;
			break;
	}
	qml_alert_rows_note(alert);
	return true;
}

/* Whether the pass knows what became of what the alert is about. */
static bool
is_known(const Pass *pass, const QmlAlert *alert, const QmlAlertKey *key,
		 const QmlAlertValue *value)
{
	if (value)
		return !value->unknown;
	if (qml_alert_checks_has(alert->kind) && !pass->looked_at_checks)
		return false;
	return qml_alert_values_are_known(&pass->values, key);
}

/* All but summaries. */
static void
go_on(Pass *pass)
{
	ListCell *lc;

	foreach(lc, pass->active)
	{
		QmlAlert *alert = lfirst(lc);
		QmlAlertKey key = {.kind = alert->kind, .queue = alert->queue, .method = alert->method};
		QmlAlertValue *value;

		if (is_summary(alert))
			continue;
		value = qml_alert_values_find(&pass->values, &key);
		if (value)
			value->is_used = true;
		if (!is_known(pass, alert, &key, value))
			continue;
		/* Where there is no value, there is nothing over a bound, or no bound any more. */
		if (!apply(pass, alert, value ? value->value : 0, value ? value->bound : alert->bound,
				   value ? value->detail : NULL))
			pass->active = foreach_delete_current(pass->active, lc);
	}
}

/* ----- alerts that begin ----- */

static void
begin(Pass *pass, const char *kind, int queue, const char *method, double value, double bound,
	  const char *detail)
{
	QmlAlert *alert = palloc0(sizeof(QmlAlert));

	alert->kind = kind;
	alert->queue = queue;
	alert->method = method;
	alert->since = pass->values.now;
	alert->calm_since = QML_NO_TIME;
	alert->value = value;
	alert->bound = bound;
	alert->detail = detail;
	qml_alert_rows_begin(alert);
}

static void
begin_for(Pass *pass, const QmlAlertValue *value)
{
	begin(pass, value->key.kind, value->key.queue, value->key.method, value->value, value->bound,
		  value->detail);
}

/* Those that are the farthest over their bounds come first. */
static int
compare_values(const ListCell *a, const ListCell *b)
{
	const QmlAlertValue *one = lfirst(a);
	const QmlAlertValue *other = lfirst(b);
	double first = one->bound > 0 ? one->value / one->bound : one->value;
	double second = other->bound > 0 ? other->value / other->bound : other->value;

	if (first != second)
		return first > second ? -1 : 1;
	if (one->key.queue != other->key.queue)
		return one->key.queue < other->key.queue ? -1 : 1;
	return strcmp(one->key.method, other->key.method);
}

/* What the summary says of those that have no alert of their own. */
static char *
describe_others(List *values)
{
	QmlNameList names;
	ListCell *lc;

	qml_names_init(&names);
	foreach(lc, values)
	{
		const QmlAlertValue *value = lfirst(lc);
		const QmlQueue *queue = qml_queue_by_id(value->key.queue);

		qml_names_add(&names, queue ? queue->name : "",
					  *value->key.method ? psprintf("method \"%s\"", value->key.method) : NULL);
	}
	return psprintf("others over their bounds: %s", qml_names_text(&names));
}

/* A kind that is about queues: what of it is over its bound, and has no alert yet. */
static void
share(Pass *pass, const char *kind, List *over)
{
	QmlAlert *summary = NULL;
	int own = 0;
	int room;
	ListCell *lc;

	foreach(lc, pass->active)
	{
		QmlAlert *alert = lfirst(lc);

		if (strcmp(alert->kind, kind) != 0)
			continue;
		if (is_summary(alert))
			summary = alert;
		else
			own++;
	}
	list_sort(over, compare_values);
	if (summary)
	{
		bool few = own + list_length(over) <= qml_alert_limit / 2;

		(void) apply(pass, summary, few ? 0 : Max(list_length(over), 1), 0,
					 over == NIL ? NULL : describe_others(over));
		return;
	}
	room = Max(qml_alert_limit - own, 0);
	foreach(lc, over)
	{
		if (foreach_current_index(lc) < room)
			begin_for(pass, lfirst(lc));
	}
	if (list_length(over) <= room)
		return;
	over = list_copy_tail(over, room);
	begin(pass, kind, 0, "", list_length(over), 0, describe_others(over));
}

/* Begins what is over its bound and has no alert; summaries go on. */
static void
begin_new(Pass *pass)
{
	List *over[QML_ALERT_QUEUE_KINDS] = {NIL};
	HASH_SEQ_STATUS scan;
	QmlAlertValue *value;

	hash_seq_init(&scan, pass->values.values);
	while ((value = hash_seq_search(&scan)) != NULL)
	{
		int kind = qml_alert_values_queue_kind(value->key.kind);

		if (value->is_used || value->unknown || value->value <= value->bound)
			continue;
		if (kind < 0)
			begin_for(pass, value);
		else
			over[kind] = lappend(over[kind], value);
	}
	for (int i = 0; i < QML_ALERT_QUEUE_KINDS; i++)
		share(pass, qml_alert_queue_kinds[i], over[i]);
}

/*
 * Makes a pass.  checks: what is kept of them from one pass to the next; they are looked at only if
 * look_at_checks.  False: the table is locked, and nothing was done.
 */
bool
qml_alert_pass_run(QmlAlertChecks *checks, bool look_at_checks)
{
	Pass pass = {.looked_at_checks = look_at_checks};

	(void) qml_catalog_to_work();
	if (!qml_alert_rows_lock())
		return false;
	qml_alert_values_begin(&pass.values);
	pass.active = qml_alert_rows_active();
	qml_alert_values_collect(&pass.values);
	if (look_at_checks)
		qml_alert_checks_collect(&pass.values, checks, pass.active);
	go_on(&pass);
	begin_new(&pass);
	QML_FAULT_AT_COMMIT("alerts.before_commit");
	return true;
}
