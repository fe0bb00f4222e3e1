/*
 * guc.c
 *		Settings.
 *
 * Those that a call reads can be changed by a reload, and by a superuser for a session.
 * Those that the background processes read in their loops can be changed by a reload
 * only.  Ordinary users can change none of these, because settings limit what jobs may do.  What
 * a client says of itself is for everybody to set.
 *
 * The initial values of the variables are the defaults.
 *
 * Also here: settings of the server that qml changes for a while.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/varlena.h"

#include "common/guc.h"
#include "compat.h"
#include "qml.h"

int qml_max_retries = 5;
int qml_job_timeout = 5 * 60 * 1000;
int qml_lease = 5 * 60 * 1000;
int qml_succeeded_ttl = 24 * 60 * 60;
int qml_failed_ttl = 7 * 24 * 60 * 60;
int qml_max_payload_size = 1024;
int qml_new_queues = QML_NEW_QUEUES_NOTICE;
bool qml_warn_idle = true;
bool qml_log_failures = true;
bool qml_ready_lists = true;
int qml_search_limit = 10000;
bool qml_enabled = true;
bool qml_scheduler_enabled = true;
bool qml_recurring_enabled = true;
bool qml_cleanup_enabled = true;
int qml_scheduler_poll_interval = 1000;
int qml_recurring_poll_interval = 1000;
int qml_cleanup_interval = 60;
int qml_audit_ttl = 366 * 24 * 60 * 60;
int qml_heartbeat_interval = 10;
int qml_dead_server_timeout = 60;
int qml_stats_series = 1000;
int qml_alert_interval = 10;
int qml_alert_max_age = 60 * 60;
double qml_alert_max_failure_rate = 0.5;
int qml_alert_limit = 20;
int qml_workers = 5;
int qml_max_workers = -1;
int qml_worker_idle_timeout = 60;
int qml_shutdown_timeout = 30;
char *qml_databases;
char *qml_server_name;
char *qml_actor;

static const struct config_enum_entry new_queues_entries[] = {
	{"notice", QML_NEW_QUEUES_NOTICE, false},
	{"quiet", QML_NEW_QUEUES_QUIET, false},
	{"error", QML_NEW_QUEUES_ERROR, false},
	{NULL, 0, false},
};

/* The helpers take the default of a setting from the variable's initial value. */

static void
define_switch(const char *name, const char *description, bool *value)
{
	DefineCustomBoolVariable(name, description, NULL, value, *value, PGC_SIGHUP, 0, NULL, NULL,
							 NULL);
}

/* The same, read by each call. */
static void
define_call_switch(const char *name, const char *description, const char *more, bool *value)
{
	DefineCustomBoolVariable(name, description, more, value, *value, PGC_SUSET, 0, NULL, NULL,
							 NULL);
}

/* Read by the background processes in their loops: a number, or a time if it has a unit. */
static void
define_background_int(const char *name, const char *description, const char *more, int *value,
					  int min, int max, int unit)
{
	DefineCustomIntVariable(name, description, more, value, *value, min, max, PGC_SIGHUP, unit,
							NULL, NULL, NULL);
}

/* Read by each call. */
static void
define_call_int(const char *name, const char *description, const char *more, int *value, int min,
				int max, int unit)
{
	DefineCustomIntVariable(name, description, more, value, *value, min, max, PGC_SUSET, unit, NULL,
							NULL, NULL);
}

/* The name is followed by a slash in the names of workers, and is part of their ids. */
static bool
check_server_name(char **newval, void **extra, GucSource source)
{
	if (strlen(*newval) <= QML_MAX_SERVER_NAME && strchr(*newval, '/') == NULL)
		return true;
	GUC_check_errdetail("It must have at most %d bytes and contain no slash.", QML_MAX_SERVER_NAME);
	return false;
}

/* With fewer a database could have a scheduler or a worker, but never both. */
static bool
check_max_workers(int *newval, void **extra, GucSource source)
{
	if (*newval == -1 || *newval >= 2)
		return true;
	GUC_check_errdetail("It must be -1, or at least 2: one for a scheduler and one for a worker.");
	return false;
}

/* It is shown to people, and kept. */
static bool
check_actor(char **newval, void **extra, GucSource source)
{
	if (strlen(*newval) > QML_MAX_NAME)
	{
		GUC_check_errdetail("It must have at most %d bytes.", QML_MAX_NAME);
		return false;
	}
	for (const char *c = *newval; *c; c++)
	{
		if ((unsigned char) *c < ' ' || *c == 0x7f)
		{
			GUC_check_errdetail("It must not contain control characters.");
			return false;
		}
	}
	return true;
}

static bool
check_databases(char **newval, void **extra, GucSource source)
{
	char *copy = pstrdup(*newval);
	List *names;

	if (strcmp(*newval, "*") == 0 || SplitIdentifierString(copy, ',', &names))
		return true;
	GUC_check_errdetail("It must be * or a comma-separated list of database names.");
	return false;
}

/* Called when the library is loaded. */
void
qml_guc_init(void)
{
	define_call_int("qml.max_retries", "Sets the default number of retries of a job.",
					"Used if neither the caller, the handler nor the queue sets it.",
					&qml_max_retries, 0, QML_MAX_RETRIES, 0);
	define_call_int("qml.job_timeout", "Sets the default time limit of an attempt.",
					"Used if neither the caller, the handler nor the queue sets it.",
					&qml_job_timeout, 1, INT_MAX, GUC_UNIT_MS);
	define_call_int("qml.lease", "Sets the default lease of a claim.",
					"Used if neither the worker nor the queue sets it.", &qml_lease, 1, INT_MAX,
					GUC_UNIT_MS);
	define_call_int("qml.succeeded_ttl", "Sets how long succeeded and deleted jobs are kept.",
					"0 keeps none.", &qml_succeeded_ttl, 0, (int) QML_MAX_SECONDS, GUC_UNIT_S);
	define_call_int("qml.failed_ttl", "Sets how long failed jobs are kept.", "0 keeps none.",
					&qml_failed_ttl, 0, (int) QML_MAX_SECONDS, GUC_UNIT_S);
	define_call_int("qml.max_payload_size",
					"Sets the maximum size of the payload, metadata, progress or result of a job.",
					NULL, &qml_max_payload_size, 1, 256 * 1024, GUC_UNIT_KB);

	DefineCustomEnumVariable("qml.new_queues",
							 "Sets what happens when a queue comes into being by being named.",
							 "With \"error\", only qml_create_queue() makes queues.",
							 &qml_new_queues, qml_new_queues, new_queues_entries, PGC_SUSET, 0,
							 NULL, NULL, NULL);
	define_call_switch("qml.warn_idle",
					   "Warns when nothing would do the background work that is asked for.",
					   "Each kind of work is warned about once a session.", &qml_warn_idle);
	define_call_switch("qml.ready_lists", "Claims jobs from the lists of ready jobs in memory.",
					   "When off, each claim searches the index.", &qml_ready_lists);
	define_call_int(
		"qml.search_limit", "Sets how many jobs a search looks at.",
		"So many unfinished and so many finished ones; the caller is told if there are more.",
		&qml_search_limit, 100, INT_MAX, 0);
	define_call_switch("qml.log_failures", "Logs each job that fails for good.", NULL,
					   &qml_log_failures);
	DefineCustomStringVariable("qml.actor", "Sets on whose behalf the client acts.",
							   "It is recorded with each act of control, as a claim of the client.",
							   &qml_actor, "", PGC_USERSET, 0, check_actor, NULL, NULL);

	define_switch("qml.enabled", "Enables background processing.", &qml_enabled);
	define_switch("qml.enable_scheduler",
				  "Enables the scheduler to promote due jobs and reclaim lost ones.",
				  &qml_scheduler_enabled);
	define_switch("qml.enable_recurring", "Enables the scheduler to fire recurring jobs.",
				  &qml_recurring_enabled);
	define_switch("qml.enable_cleanup", "Enables the scheduler to remove expired jobs and locks.",
				  &qml_cleanup_enabled);
	define_background_int("qml.scheduler_poll_interval",
						  "Sets how often the scheduler polls for due jobs.", NULL,
						  &qml_scheduler_poll_interval, 1, 3600 * 1000, GUC_UNIT_MS);
	define_background_int("qml.recurring_poll_interval",
						  "Sets how often the scheduler polls for recurring jobs.", NULL,
						  &qml_recurring_poll_interval, 1, 3600 * 1000, GUC_UNIT_MS);
	define_background_int("qml.cleanup_interval",
						  "Sets how often the scheduler removes expired jobs and locks.", NULL,
						  &qml_cleanup_interval, 1, 86400, GUC_UNIT_S);
	define_background_int("qml.audit_ttl", "Sets how long the record of acts of control is kept.",
						  "It is dropped by whole months; -1 keeps it for ever.", &qml_audit_ttl,
						  -1, (int) QML_MAX_SECONDS, GUC_UNIT_S);
	define_background_int("qml.heartbeat_interval",
						  "Sets how often a background process sends a heartbeat.", NULL,
						  &qml_heartbeat_interval, 1, 3600, GUC_UNIT_S);
	define_background_int(
		"qml.dead_server_timeout",
		"Sets how long a server may go without a heartbeat before its jobs are reclaimed.", NULL,
		&qml_dead_server_timeout, 1, 86400, GUC_UNIT_S);
	/* A library that is loaded later cannot have a setting of the server's start. */
	DefineCustomIntVariable(
		"qml.stats_series",
		"Sets for how many pairs of a queue and a method statistics are kept, in all databases.",
		"All others are counted together; 0 keeps no statistics.", &qml_stats_series,
		qml_stats_series, 0, 100000,
		process_shared_preload_libraries_in_progress ? PGC_POSTMASTER : PGC_SIGHUP, 0, NULL, NULL,
		NULL);
	define_background_int(
		"qml.alert_interval",
		"Sets how often the scheduler compares queues and methods with their bounds.",
		"0 never begins or ends an alert.", &qml_alert_interval, 0, 3600, GUC_UNIT_S);
	define_background_int("qml.alert_max_age",
						  "Sets the default bound of the age of the oldest ready job of a queue.",
						  "Used if the queue does not set max_age; 0 is no bound.",
						  &qml_alert_max_age, 0, (int) QML_MAX_SECONDS, GUC_UNIT_S);
	DefineCustomRealVariable("qml.alert_max_failure_rate",
							 "Sets the default bound of the failure rate of a queue.",
							 "Used if the queue does not set max_failure_rate; 1 is no bound.",
							 &qml_alert_max_failure_rate, qml_alert_max_failure_rate, 0, 1,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	define_background_int("qml.alert_limit",
						  "Sets how many queues and methods have alerts of one kind of their own.",
						  "All others over their bounds are one alert.", &qml_alert_limit, 1, 1000,
						  0);
	define_background_int(
		"qml.workers",
		"Sets the maximum number of background workers that run jobs in each database.",
		"0 runs no jobs in databases.", &qml_workers, 0, 1000, 0);
	DefineCustomIntVariable("qml.max_workers",
							"Sets the maximum number of background processes of qml in the server.",
							"Schedulers and workers of all databases count; -1 is half of "
							"max_worker_processes, but at least 2.",
							&qml_max_workers, qml_max_workers, -1, 262143, PGC_SIGHUP, 0,
							check_max_workers, NULL, NULL);
	define_background_int("qml.worker_idle_timeout",
						  "Sets how long a background worker waits for work before it exits.", NULL,
						  &qml_worker_idle_timeout, 1, 86400, GUC_UNIT_S);
	define_background_int("qml.shutdown_timeout",
						  "Sets how long running jobs may continue when the server shuts down.",
						  NULL, &qml_shutdown_timeout, 1, 3600, GUC_UNIT_S);
	DefineCustomStringVariable("qml.databases",
							   "Sets the databases that are processed in the background.",
							   "* stands for all databases.", &qml_databases, "*", PGC_SIGHUP,
							   GUC_LIST_INPUT, check_databases, NULL, NULL);
	DefineCustomStringVariable("qml.server_name",
							   "Sets the server name of the background processes.",
							   "If empty, the host name is used.", &qml_server_name, "", PGC_SIGHUP,
							   0, check_server_name, NULL, NULL);
	MarkGUCPrefixReserved("qml");
}

/* Whether a setting has a value; false also if the server does not know the setting. */
bool
qml_guc_has(const char *name, const char *value)
{
	const char *present = GetConfigOption(name, true, false);

	return present && strcmp(present, value) == 0;
}

/*
 * Gives a setting a value in the current nest level of settings, which the caller has begun
 * and ends.  Most have the value already, and to look is cheaper than to set.
 */
void
qml_guc_set(const char *name, const char *value)
{
	if (!qml_guc_has(name, value))
		(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0,
								 false);
}
