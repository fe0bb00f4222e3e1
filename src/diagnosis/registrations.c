/*
 * registrations.c
 *		Checks of what users have registered: handlers, hooks, middleware and schedules.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

#include "common/guc.h"
#include "common/spi.h"
#include "diagnosis/names.h"
#include "diagnosis/registrations.h"
#include "model/acl.h"
#include "model/catalog.h"
#include "model/role_mark.h"
#include "userfn/callback.h"
#include "userfn/handler.h"

/* A schedule is late if its next tick has been due for so long. */
#define LATE_TIME (10 * USECS_PER_SEC)

/* Ticks that are looked at of each schedule, of so many schedules; and what is recent. */
#define LAST_TICKS	   "2"
#define MOST_SCHEDULES 1000
#define RECENTLY	   "1 hour"

#define SEE_VIEW(view) "SELECT * FROM qml." view " WHERE problem IS NOT NULL;"

void
qml_registrations_check_handlers(QmlFinding *finding)
{
	List *all = qml_handler_all();
	QmlNameList broken;
	ListCell *lc;

	qml_names_init(&broken);
	foreach(lc, all)
	{
		const QmlHandler *handler = lfirst(lc);
		QmlProblem problem;

		if (!qml_handler_usable(handler, &problem))
			qml_names_add(&broken, handler->method, problem.message);
	}
	if (broken.count > 0)
		qml_finding_fail(finding, pstrdup(SEE_VIEW("handler")), "%s cannot run: %s",
						 qml_finding_count(broken.count, "handler", "handlers"),
						 qml_names_text(&broken));
	else
		qml_finding_pass(finding, "%s can run",
						 qml_finding_count(list_length(all), "handler", "handlers"));
}

/* Hooks, or middleware. */
static void
check_callbacks(QmlFinding *finding, QmlCallbackKind kind, const char *one, const char *many,
				const char *see)
{
	List *all = qml_callback_all(kind);
	QmlNameList broken;
	ListCell *lc;

	qml_names_init(&broken);
	foreach(lc, all)
	{
		const QmlCallback *callback = lfirst(lc);
		char *problem = callback->broken ? "disabled after too many errors" :
										   qml_callback_problem(callback);

		if (problem)
			qml_names_add(&broken, callback->name, problem);
	}
	if (broken.count > 0)
		qml_finding_fail(finding, pstrdup(see), "not called: %s", qml_names_text(&broken));
	else
		qml_finding_pass(finding, "%s can be called",
						 qml_finding_count(list_length(all), one, many));
}

void
qml_registrations_check_hooks(QmlFinding *finding)
{
	check_callbacks(finding, QML_HOOK, "hook", "hooks",
					"SELECT * FROM qml.hook WHERE broken OR problem IS NOT NULL;");
}

void
qml_registrations_check_middleware(QmlFinding *finding)
{
	check_callbacks(finding, QML_MIDDLEWARE, "middleware", "middleware", SEE_VIEW("middleware"));
}

/* ----- schedules ----- */

/* What a query says of a schedule. */
typedef struct Schedule
{
	char *id;
	char *queue;
	char *comment; /* NULL: none */
	Oid created_by;
} Schedule;

/*
 * Runs a query that returns id, queue, created_by and comment; the list of schedules that the
 * current user sees.  $1 is the time by which ticks are late, as far as the query asks for it.
 */
static List *
query_schedules(const char *sql, int nargs)
{
	MemoryContext context = CurrentMemoryContext;
	Oid type = TIMESTAMPTZOID;
	Datum late = TimestampTzGetDatum(GetCurrentTimestamp() - LATE_TIME);
	List *found = NIL;
	List *seen = NIL;
	ListCell *lc;
	QmlSpi spi;
	uint64 rows;

	qml_spi_begin(&spi, qml_catalog()->owner);
	rows = qml_spi_execute_latest(sql, nargs, &type, &late, NULL, SPI_OK_SELECT);
	for (uint64 i = 0; i < rows; i++)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(context);
		Schedule *schedule = palloc0(sizeof(Schedule));
		Datum value;
		bool isnull;

		schedule->id = TextDatumGetCString(qml_spi_value(SPI_tuptable, i, 1, TEXTOID, NULL));
		schedule->queue = TextDatumGetCString(qml_spi_value(SPI_tuptable, i, 2, TEXTOID, NULL));
		schedule->created_by = DatumGetObjectId(qml_spi_value(SPI_tuptable, i, 3, OIDOID, NULL));
		value = qml_spi_value(SPI_tuptable, i, 4, TEXTOID, &isnull);
		if (!isnull)
			schedule->comment = TextDatumGetCString(value);
		found = lappend(found, schedule);
		MemoryContextSwitchTo(oldcontext);
	}
	qml_spi_end(&spi);

	/* As the caller again. */
	foreach(lc, found)
	{
		const Schedule *schedule = lfirst(lc);

		if (qml_acl_access(schedule->queue, schedule->created_by) != QML_ACCESS_NONE)
			seen = lappend(seen, lfirst(lc));
	}
	return seen;
}

#define SCHEDULE_COLUMNS "SELECT r.id, r.queue, r.created_by::pg_catalog.oid, "

/* Schedules that cannot fire, or whose latest tick could not. */
void
qml_registrations_check_recurring(QmlFinding *finding)
{
	List *all = query_schedules(SCHEDULE_COLUMNS
								"r.error FROM qml.recurring_data r WHERE r.enabled ORDER BY r.id",
								0);
	QmlNameList broken;
	ListCell *lc;

	qml_names_init(&broken);
	foreach(lc, all)
	{
		const Schedule *schedule = lfirst(lc);
		bool full = qml_acl_access(schedule->queue, schedule->created_by) == QML_ACCESS_FULL;
		const char *problem = qml_role_mark_problem(QML_MARK_REGISTRATION, schedule->created_by,
													"The role that defined it");

		if (problem == NULL)
			problem = schedule->comment;
		if (problem)
			qml_names_add(&broken, schedule->id, full ? problem : NULL);
	}
	if (!qml_recurring_enabled && all != NIL)
		qml_finding_fail_setting(finding, "qml.enable_recurring", "on",
								 "qml.enable_recurring is off: %s not fire",
								 qml_finding_count(list_length(all), "schedule does",
												   "schedules do"));
	else if (broken.count > 0)
		qml_finding_fail(finding, pstrdup("SELECT * FROM qml.recurring WHERE error IS NOT NULL;"),
						 "%s did not fire: %s",
						 qml_finding_count(broken.count, "schedule", "schedules"),
						 qml_names_text(&broken));
	else
		qml_finding_pass(finding, "%s can fire",
						 qml_finding_count(list_length(all), "schedule", "schedules"));
}

/* Ticks that are late, or were missed of late. */
void
qml_registrations_check_ticks(QmlFinding *finding)
{
	List *late = query_schedules(SCHEDULE_COLUMNS
								 "NULL::text FROM qml.recurring_data r "
								 "WHERE r.enabled AND r.next_run_at < $1 ORDER BY r.next_run_at",
								 1);
	List *missed = query_schedules(
		SCHEDULE_COLUMNS
		"NULL::text FROM (SELECT * FROM qml.recurring_data d WHERE d.enabled "
		"ORDER BY d.id LIMIT " CppAsString2(
			MOST_SCHEDULES) ") r "
							"WHERE EXISTS (SELECT FROM (SELECT o.outcome, o.fired_at FROM qml.occurrence_data o "
							"WHERE o.recurring = r.id AND o.fired_at >= r.created_at "
							"ORDER BY o.occurrence DESC LIMIT " LAST_TICKS
							") t WHERE t.outcome = 'missed' "
							"AND t.fired_at > pg_catalog.statement_timestamp() - interval '" RECENTLY
							"') "
							"ORDER BY r.id",
		0);
	List *worse = late != NIL ? late : missed;
	QmlNameList names;
	ListCell *lc;

	qml_names_init(&names);
	foreach(lc, worse)
		qml_names_add(&names, ((const Schedule *) lfirst(lc))->id, NULL);
	if (late != NIL)
		qml_finding_fail(finding, qml_finding_call("qml_poll_recurring", ""),
						 "%s should have fired by now: %s",
						 qml_finding_count(names.count, "schedule", "schedules"),
						 qml_names_text(&names));
	else if (missed != NIL)
		qml_finding_fail(finding,
						 pstrdup("SELECT * FROM qml.recurring_tick WHERE outcome = 'missed';"),
						 "%s missed ticks within the last hour: %s",
						 qml_finding_count(names.count, "schedule", "schedules"),
						 qml_names_text(&names));
	else
		qml_finding_pass(finding, "no tick is late, and none was missed within the last hour");
}
