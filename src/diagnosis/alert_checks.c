/*
 * alert_checks.c
 *		Alerts that are about the database as a whole.
 *
 * Most are checks of qml_status() that have failed for some time: the value is for how long, in
 * seconds, and the bound is the time that each may fail.  The table below has them.  To add one, add
 * an entry; doc/reference/views.md lists them.
 *
 * That there is no scheduler nobody could note in a table: it is seen when somebody looks.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "common/fault.h"
#include "common/spi.h"
#include "diagnosis/alert_checks.h"
#include "diagnosis/finding.h"
#include "diagnosis/processes.h"
#include "diagnosis/registrations.h"
#include "diagnosis/storage.h"
#include "diagnosis/traffic.h"
#include "maintenance/alert_rows.h"
#include "maintenance/service.h"
#include "model/catalog.h"

/* A server that was given up in so many minutes is one of late. */
#define DEAD_MINUTES 10

typedef struct Check
{
	const char *kind; /* the name of the check */
	void (*look)(QmlFinding *finding);
	int patience; /* seconds */

	/* What the alert says, where not all who monitor may know what the check has found. */
	const char *words;
} Check;

static const Check checks[] = {
	{"workers", qml_processes_check_workers, 120, NULL},
	{"queues", qml_traffic_check_queues, 300, NULL},
	{"handlers", qml_registrations_check_handlers, 60, NULL},
	{"hooks", qml_registrations_check_hooks, 60, NULL},
	{"middleware", qml_registrations_check_middleware, 60, NULL},
	{"recurring", qml_registrations_check_recurring, 60,
	 "schedules did not fire: the view qml.recurring shows their errors"},
	{"ticks", qml_registrations_check_ticks, 60, NULL},
	{"vacuum", qml_storage_check_vacuum, 600,
	 "something holds back vacuum: qml_status() shows administrators what"},
};

StaticAssertDecl(lengthof(checks) <= QML_ALERT_MAX_CHECKS, "there is room for each check");

/* Whether alerts of a kind are only looked at now and then. */
bool
qml_alert_checks_has(const char *kind)
{
	for (int i = 0; i < (int) lengthof(checks); i++)
	{
		if (strcmp(checks[i].kind, kind) == 0)
			return true;
	}
	return strcmp(kind, "dead_servers") == 0;
}

/* Since when an alert of a kind is active; 0: there is none. */
static TimestampTz
find_active(List *active, const char *kind)
{
	ListCell *lc;

	foreach(lc, active)
	{
		const QmlAlert *alert = lfirst(lc);

		if (strcmp(alert->kind, kind) == 0 && !TIMESTAMP_NOT_FINITE(alert->since))
			return alert->since;
	}
	return 0;
}

/* A check; active: the alerts that there are. */
static void
collect_check(QmlAlertValues *values, const Check *check, TimestampTz *failing_since, List *active)
{
	QmlAlertKey key = {.kind = check->kind, .method = ""};
	double patience = QML_FAULT_LIMIT("alerts.patience_s", check->patience);
	QmlFinding finding = {false};
	QmlAlertValue *over;
	TimestampTz since;

	check->look(&finding);
	if (!finding.is_known || finding.follows)
	{
		(void) qml_alert_values_add(values, &key, 0, patience);
		qml_alert_values_find(values, &key)->unknown = true;
		return;
	}
	if (finding.ok)
	{
		*failing_since = 0;
		(void) qml_alert_values_add(values, &key, 0, patience);
		return;
	}
	/* One that was active when the server went down goes on. */
	since = find_active(active, check->kind);
	if (*failing_since == 0 || *failing_since > values->now)
		*failing_since = values->now;
	if (since != 0)
		*failing_since = Min(*failing_since, since - (TimestampTz) (patience * USECS_PER_SEC) - 1);
	over = qml_alert_values_add(values, &key,
								(double) (values->now - *failing_since) / USECS_PER_SEC, patience);
	if (over)
		over->detail = check->words ? pstrdup(check->words) : finding.detail;
}

/* Servers outside that were given up of late. */
static void
collect_dead_servers(QmlAlertValues *values)
{
	QmlAlertKey key = {.kind = "dead_servers", .method = ""};
	Oid type = TIMESTAMPTZOID;
	Datum since = TimestampTzGetDatum(values->now - DEAD_MINUTES * (int64) USECS_PER_MINUTE);
	QmlAlertValue *over;
	int64 dead;
	QmlSpi spi;

	qml_spi_begin(&spi, qml_catalog()->owner);
	(void) qml_spi_execute_latest("SELECT pg_catalog.count(*) FROM qml.server_data s "
								  "WHERE s.dead_at > $1",
								  1, &type, &since, NULL, SPI_OK_SELECT);
	dead = DatumGetInt64(qml_spi_value(SPI_tuptable, 0, 1, INT8OID, NULL));
	qml_spi_end(&spi);
	over = qml_alert_values_add(values, &key, (double) dead, 0);
	if (over)
		over->detail = psprintf("%s without a heartbeat given up in the last %d minutes",
								qml_finding_count(dead, "server was", "servers were"),
								DEAD_MINUTES);
}

/* Collects the values of all of them.  active: the alerts that there are. */
void
qml_alert_checks_collect(QmlAlertValues *values, QmlAlertChecks *state, List *active)
{
	for (int i = 0; i < (int) lengthof(checks); i++)
	{
		CHECK_FOR_INTERRUPTS();
		collect_check(values, &checks[i], &state->failing_since[i], active);
	}
	collect_dead_servers(values);
}

/*
 * Whether there is nobody to begin alerts; *since becomes since when, as far as it is known, and
 * *detail why.
 */
bool
qml_alert_checks_scheduler(TimestampTz *since, char **detail)
{
	static void (*const looks[])(
		QmlFinding * finding) = {qml_processes_check_preloaded, qml_processes_check_enabled,
								 qml_processes_check_database,	qml_processes_check_adopted,
								 qml_processes_check_launcher,	qml_processes_check_scheduler};
	QmlFinding last = {false};
	QmlService service;

	/* A standby has none, as it should be. */
	if (RecoveryInProgress())
		return false;
	for (int i = 0; i < (int) lengthof(looks); i++)
	{
		QmlFinding finding = {false};

		looks[i](&finding);
		if (finding.is_known && !finding.ok && *detail == NULL)
			*detail = finding.detail;
		last = finding;
	}
	/* Of all these, the last one is what counts: it fails if one before does, unless pg_cron helps. */
	if (!last.is_known || last.ok)
		return false;
	qml_service_find_own(&service);
	*since = service.view.served_at != 0 ? service.view.served_at : PgStartTime;
	return true;
}
