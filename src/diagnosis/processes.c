/*
 * processes.c
 *		Checks of what background work needs: the library, settings, processes and their slots.
 *
 * They are in the order of their causes: without the library there is no launcher, without the
 * launcher no scheduler.  Where a check fails only because an earlier one does, its finding
 * follows from that.  Where pg_cron is known to do the maintenance here and no handler is
 * registered, nothing is missing without the library.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "common/guc.h"
#include "diagnosis/processes.h"
#include "ipc/slots.h"
#include "maintenance/idle.h"
#include "maintenance/service.h"
#include "model/catalog.h"
#include "qml.h"
#include "schedule/pgcron.h"
#include "userfn/callback.h"
#include "userfn/handler.h"

/*
 * A scheduler is late if it sends no heartbeat for so many of its intervals, or if something is due
 * for so long that it does not do; both at least for the time below.
 */
#define LATE_HEARTBEATS 3
#define LATE_TIME		(10 * USECS_PER_SEC)

/* Whether workers have anything to run: a handler, or an after-commit hook. */
static bool
needs_workers(void)
{
	ListCell *lc;

	if (qml_handler_exist())
		return true;
	foreach(lc, qml_callback_all(QML_HOOK))
	{
		if (((const QmlCallback *) lfirst(lc))->options.after_commit)
			return true;
	}
	return false;
}

void
qml_processes_check_preloaded(QmlFinding *finding)
{
	if (qml_shmem)
		qml_finding_pass(finding, "qml is in shared_preload_libraries");
	else if (qml_pgcron_serves(false) && !needs_workers())
		qml_finding_pass(finding, "qml is not in shared_preload_libraries; pg_cron does the "
								  "maintenance, and no handler is registered");
	else
		qml_finding_fail(finding,
						 "Add qml to shared_preload_libraries in postgresql.conf, and restart the "
						 "server.",
						 "qml is not in shared_preload_libraries: no background process works "
						 "here");
}

/* Library and SQL objects of the same minor version: each can do all that the other one has. */
void
qml_processes_check_version(QmlFinding *finding)
{
	int minor = qml_catalog()->sql_minor;

	if (minor < QML_VERSION_MINOR)
		qml_finding_fail(finding, pstrdup("ALTER EXTENSION qml UPDATE;"),
						 "the SQL objects have version %d.%d, older than the library (%s)",
						 QML_VERSION_MAJOR, minor, QML_VERSION);
	else if (minor > QML_VERSION_MINOR)
		qml_finding_fail(finding, pstrdup("Restart the server to load the new library."),
						 "the SQL objects have version %d.%d, newer than the library (%s)",
						 QML_VERSION_MAJOR, minor, QML_VERSION);
	else
		qml_finding_pass(finding, "library and SQL objects have version %s", QML_VERSION);
}

void
qml_processes_check_primary(QmlFinding *finding)
{
	if (RecoveryInProgress())
		qml_finding_fail(finding, "Ask the primary.",
						 "the server is a standby: jobs run on the primary");
	else
		qml_finding_pass(finding, "the server is no standby");
}

/* A switch: on, as it should be, or off. */
static void
check_switch(QmlFinding *finding, const char *name, bool on, const char *consequence)
{
	if (on)
		qml_finding_pass(finding, "%s is on", name);
	else
		qml_finding_fail_setting(finding, name, "on", "%s is off: %s", name, consequence);
}

void
qml_processes_check_enabled(QmlFinding *finding)
{
	check_switch(finding, "qml.enabled", qml_enabled,
				 "no background process works in any database");
}

/* Whether qml.scheduler_enabled lets delayed jobs become ready, and lost ones be reclaimed. */
void
qml_processes_check_promotion(QmlFinding *finding)
{
	check_switch(finding, "qml.enable_scheduler", qml_scheduler_enabled,
				 "delayed jobs do not become ready, and lost ones are not reclaimed");
}

void
qml_processes_check_cleanup(QmlFinding *finding)
{
	check_switch(finding, "qml.enable_cleanup", qml_cleanup_enabled,
				 "expired jobs and locks are not removed");
}

void
qml_processes_check_database(QmlFinding *finding)
{
	const char *name = get_database_name(MyDatabaseId);

	if (qml_idle_is_listed())
		qml_finding_pass(finding, "qml.databases covers this database");
	else
	{
		char *entry = pstrdup(quote_identifier(name));
		char *list = qml_databases[0] == '\0' ? entry : psprintf("%s, %s", qml_databases, entry);

		qml_finding_fail_setting(
			finding, "qml.databases", quote_literal_cstr(list),
			"this database is not named in qml.databases: no background process works "
			"here");
	}
}

void
qml_processes_check_adopted(QmlFinding *finding)
{
	if (qml_catalog()->adopted)
		qml_finding_pass(finding, "the jobs belong to this database");
	else
		qml_finding_fail(finding, qml_finding_call("qml_adopt", ""),
						 "the jobs are a copy from another server or database, which stays idle "
						 "until it is adopted");
}

/* Whether background processes could work here, by all that the checks above look at. */
bool
qml_processes_may_work(void)
{
	return qml_shmem && qml_enabled && qml_idle_is_listed() && qml_catalog()->adopted &&
		   !RecoveryInProgress();
}

/* The launcher works for all databases, also if it has nothing to do in this one. */
void
qml_processes_check_launcher(QmlFinding *finding)
{
	if (qml_shmem && pg_atomic_read_u32(&qml_shmem->launcher) != 0)
		qml_finding_pass(finding, "the launcher runs");
	else if (qml_shmem == NULL || RecoveryInProgress())
		qml_finding_follow(finding, "the launcher does not run here");
	else
		qml_finding_fail(
			finding,
			psprintf("It is started again after a second, if max_worker_processes (%d) "
					 "has room for it: see the log of the server.",
					 max_worker_processes),
			"the launcher does not run");
}

/* Since when the scheduler should have done something; QML_WAKE_NEVER: it has done all. */
static TimestampTz
find_overdue(QmlSlot *scheduler)
{
	TimestampTz due = QML_WAKE_NEVER;

	for (int kind = 0; kind < QML_WAKES; kind++)
		due = Min(due, (TimestampTz) pg_atomic_read_u64(&scheduler->due[kind]));
	return due;
}

/* Of a scheduler that is there: whether it works. */
static void
check_scheduler_at_work(QmlFinding *finding, QmlSlot *scheduler)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz beat = (TimestampTz) pg_atomic_read_u64(&scheduler->heartbeat_at);
	TimestampTz due = find_overdue(scheduler);
	int64 patience = Max(qml_heartbeat_interval * LATE_HEARTBEATS * USECS_PER_SEC, LATE_TIME);
	int pid = scheduler->pid;
	char *remedy = psprintf("SELECT * FROM pg_stat_activity WHERE pid = %d;", pid);

	if (now - beat > patience)
		qml_finding_fail(finding, remedy, "the scheduler (pid %d) has sent no heartbeat for %s",
						 pid, qml_finding_duration(now - beat));
	else if (due < now - LATE_TIME)
		qml_finding_fail(finding, remedy,
						 "the scheduler (pid %d) is late: something has been due for %s", pid,
						 qml_finding_duration(now - due));
	else
		qml_finding_pass(finding, "the scheduler runs (pid %d)", pid);
}

void
qml_processes_check_scheduler(QmlFinding *finding)
{
	QmlSlot *scheduler = qml_slots_find_scheduler(MyDatabaseId);
	QmlService service;

	if (scheduler)
	{
		check_scheduler_at_work(finding, scheduler);
		return;
	}
	if (qml_shmem == NULL && qml_pgcron_serves(false))
	{
		qml_finding_pass(finding, "pg_cron does what the scheduler would do");
		return;
	}
	if (!qml_processes_may_work() || pg_atomic_read_u32(&qml_shmem->launcher) == 0)
	{
		qml_finding_follow(finding, "no scheduler works in this database");
		return;
	}
	qml_service_find_own(&service);
	if (service.view.state == QML_DATABASE_RESTING && service.view.due > GetCurrentTimestamp())
		qml_finding_pass(finding, "the scheduler has taken its turn, and nothing is due");
	else if (service.problem)
		qml_finding_fail(
			finding,
			"Raise max_worker_processes and qml.max_workers, which needs a restart, or "
			"name fewer databases in qml.databases; for errors see the log of the "
			"server.",
			"no scheduler works in this database: %s", service.problem);
	else
		qml_finding_fail(finding, NULL, "the scheduler of this database is being started");
}

void
qml_processes_check_workers(QmlFinding *finding)
{
	QmlService service;

	if (!needs_workers())
	{
		qml_finding_pass(finding, "no handler and no after-commit hook is registered");
		return;
	}
	if (qml_workers == 0)
	{
		qml_finding_fail_setting(finding, "qml.workers", "5",
								 "qml.workers is 0: nothing runs handlers");
		return;
	}
	if (!qml_processes_may_work() || pg_atomic_read_u32(&qml_shmem->launcher) == 0)
	{
		qml_finding_follow(finding, "no worker can be started");
		return;
	}
	qml_service_find_own(&service);
	if (service.view.waiting_roles > 0 && service.workers == 0)
		qml_finding_fail(finding,
						 "Raise max_worker_processes and qml.max_workers, which needs a restart.",
						 "handlers of %s wait for a worker, and no process can be started: %s",
						 qml_finding_count(service.view.waiting_roles, "role", "roles"),
						 service.problem ? service.problem : "see the log of the server");
	else
		qml_finding_pass(finding, "%s, up to %d when there is work",
						 qml_finding_count(service.workers, "worker", "workers"), qml_workers);
}

/* There can be fewer workers than are wanted: what gives room for so many processes. */
static void
fail_for_slots(QmlFinding *finding, const QmlService *service, int wanted, int workers)
{
	const char *few = qml_finding_count(workers, "worker", "workers");

	if (service->by_server)
		qml_finding_fail(finding,
						 psprintf("Raise max_worker_processes, now %d, by %d and restart the "
								  "server; or set qml.workers to %d.",
								  max_worker_processes, wanted - service->processes,
								  Max(workers, 1)),
						 "there can be %s, as the server has no slots for more, fewer than "
						 "qml.workers (%d)",
						 few, qml_workers);
	else if (qml_max_workers >= 0)
		qml_finding_fail_setting(finding, "qml.max_workers", psprintf("%d", wanted),
								 "there can be %s, fewer than qml.workers (%d)", few, qml_workers);
	else
		qml_finding_fail(finding,
						 psprintf("Set max_worker_processes, now %d, to %d or more and restart "
								  "the server; or set qml.workers to %d.",
								  max_worker_processes, 2 * wanted, Max(workers, 1)),
						 "there can be %s, fewer than qml.workers (%d)", few, qml_workers);
}

/* Whether there are as many processes as the settings ask for. */
void
qml_processes_check_slots(QmlFinding *finding)
{
	QmlService service;
	int schedulers;
	int workers;
	int wanted;

	if (!qml_processes_may_work())
	{
		qml_finding_pass(finding, "this database has no use for processes");
		return;
	}
	qml_service_find_own(&service);
	if (service.processes == 0)
	{
		qml_finding_leave(finding, "the launcher has not said yet how many processes there can be");
		return;
	}
	schedulers = qml_databases_most_schedulers(service.processes, qml_workers > 0);
	workers = service.processes - Min(service.databases, schedulers);
	wanted = service.databases + (needs_workers() ? qml_workers : 0);
	if (service.databases > schedulers)
		qml_finding_fail(
			finding,
			psprintf("Raise max_worker_processes, now %d, and qml.max_workers, now %d, "
					 "and restart the server; or name fewer databases in "
					 "qml.databases.",
					 max_worker_processes, qml_max_workers),
			"there can be %s, and %d databases take turns",
			qml_finding_count(schedulers, "scheduler", "schedulers"), service.databases);
	else if (needs_workers() && workers < qml_workers)
		fail_for_slots(finding, &service, wanted, workers);
	else
		qml_finding_pass(finding, "%s, of which %s in use",
						 qml_finding_count(service.processes, "process", "processes"),
						 qml_finding_count(service.databases + service.workers, "is", "are"));
}
