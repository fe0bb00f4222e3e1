/*
 * status.c
 *		Whether anything is missing for jobs to run here: qml_status().
 *
 * The table below is the list of checks: a row of the answer each, in its order.  Those that keep
 * jobs from running are reasons of qml_explain() and qml_explain_queue() as well.  To add a
 * check, write a function in the file of what it looks at, and an entry here; doc/reference/functions.md lists them.
 *
 * A caller with the capability `admin` on all queues gets all rows.  To others those are not shown
 * that tell of sessions, databases or jobs of others, and the rest speaks only of what they see.
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "diagnosis/bulks.h"
#include "diagnosis/numbers.h"
#include "diagnosis/pauses.h"
#include "diagnosis/processes.h"
#include "diagnosis/registrations.h"
#include "diagnosis/status.h"
#include "diagnosis/storage.h"
#include "diagnosis/traffic.h"
#include "model/acl.h"

#define STATUS_COLUMNS 4

typedef struct Check
{
	const char *name;
	void (*look)(QmlFinding *finding);
	int keeps_from;		/* what jobs need of it */
	const char *reason; /* of a job that is kept from it */
	bool admin_only;
} Check;

#define NEEDS_PROCESSES (QML_NEEDS_ADVANCE | QML_NEEDS_WORKERS)
#define NEEDS_ALL		(NEEDS_PROCESSES | QML_NEEDS_CLAIM)

/* Causes come before what follows from them. */
static const Check checks[] = {
	{"preloaded", qml_processes_check_preloaded, NEEDS_PROCESSES, "qml is not preloaded", false},
	{"version", qml_processes_check_version, 0, NULL, false},
	{"primary", qml_processes_check_primary, NEEDS_ALL, "standby", false},
	{"enabled", qml_processes_check_enabled, NEEDS_PROCESSES, "background processing is off",
	 false},
	{"database", qml_processes_check_database, NEEDS_PROCESSES, "database not served", false},
	{"adopted", qml_processes_check_adopted, NEEDS_ALL, "copy not adopted", false},
	{"launcher", qml_processes_check_launcher, NEEDS_PROCESSES, "no launcher", false},
	{"scheduler", qml_processes_check_scheduler, NEEDS_PROCESSES, "no scheduler", false},
	{"enable_scheduler", qml_processes_check_promotion, QML_NEEDS_ADVANCE, "scheduler is off",
	 false},
	{"enable_cleanup", qml_processes_check_cleanup, 0, NULL, false},
	{"workers", qml_processes_check_workers, QML_NEEDS_WORKERS, "no worker slot", false},
	{"process_slots", qml_processes_check_slots, 0, NULL, true},
	{"pause_all", qml_pauses_check_all, QML_NEEDS_CLAIM, "all queues paused", false},
	{"paused", qml_pauses_check_queues, 0, NULL, false},
	{"queues", qml_traffic_check_queues, 0, NULL, false},
	{"handlers", qml_registrations_check_handlers, 0, NULL, false},
	{"hooks", qml_registrations_check_hooks, 0, NULL, false},
	{"middleware", qml_registrations_check_middleware, 0, NULL, false},
	{"recurring", qml_registrations_check_recurring, 0, NULL, false},
	{"ticks", qml_registrations_check_ticks, 0, NULL, false},
	{"bulk", qml_bulks_check, 0, NULL, false},
	{"servers", qml_traffic_check_servers, 0, NULL, false},
	{"leases", qml_traffic_check_leases, 0, NULL, true},
	{"locks", qml_traffic_check_locks, 0, NULL, false},
	{"vacuum", qml_storage_check_vacuum, 0, NULL, true},
	{"autovacuum", qml_storage_check_autovacuum, 0, NULL, false},
	{"triggers", qml_storage_check_triggers, 0, NULL, false},
	{"counters", qml_numbers_check, 0, NULL, false},
	{"alerts", qml_traffic_check_alerts, 0, NULL, false},
};

static void
put_row(Tuplestorestate *store, TupleDesc desc, const Check *check, const QmlFinding *finding)
{
	Datum values[STATUS_COLUMNS];
	bool nulls[STATUS_COLUMNS] = {false};

	Assert(desc->natts == STATUS_COLUMNS);
	values[0] = CStringGetTextDatum(check->name);
	nulls[1] = !finding->is_known;
	values[1] = BoolGetDatum(finding->ok);
	values[2] = CStringGetTextDatum(qml_finding_detail(finding));
	nulls[3] = finding->remedy == NULL;
	values[3] = finding->remedy ? CStringGetTextDatum(finding->remedy) : (Datum) 0;
	tuplestore_putvalues(store, desc, values, nulls);
}

/* The rows of qml_status(). */
void
qml_status_list(Tuplestorestate *store, TupleDesc desc)
{
	bool full = qml_acl_allow(QML_CAN_ADMIN, NULL);

	for (int i = 0; i < (int) lengthof(checks); i++)
	{
		QmlFinding finding = {false};

		if (checks[i].admin_only && !full)
			continue;
		CHECK_FOR_INTERRUPTS();
		checks[i].look(&finding);
		put_row(store, desc, &checks[i], &finding);
	}
}

/* Adds the checks that fail, if a job needs what they keep it from. */
void
qml_status_explain(int needs, QmlReasons *reasons)
{
	for (int i = 0; i < (int) lengthof(checks); i++)
	{
		QmlFinding finding = {false};

		if ((checks[i].keeps_from & needs) == 0)
			continue;
		checks[i].look(&finding);
		if (finding.is_known && !finding.ok && !finding.follows)
			qml_finding_add_reason(reasons, checks[i].reason, qml_finding_detail(&finding),
								   finding.remedy);
	}
}
