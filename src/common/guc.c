/*
 * guc.c
 *		Settings.
 *
 * Those that a call reads can be changed by a reload, and by a superuser for a session.
 * Those that the background processes read in their loops can be changed by a reload
 * only.  Ordinary users can change none, because settings limit what jobs may do.
 *
 * The initial values of the variables are the defaults.
 */
#include "postgres.h"

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
bool qml_enabled = true;
bool qml_scheduler_enabled = true;
bool qml_recurring_enabled = true;
bool qml_cleanup_enabled = true;
int qml_scheduler_poll_interval = 1000;
int qml_recurring_poll_interval = 1000;
int qml_cleanup_interval = 60;
int qml_heartbeat_interval = 10;
int qml_dead_server_timeout = 60;
int qml_workers = 5;
int qml_worker_idle_timeout = 60;
int qml_shutdown_timeout = 30;
char *qml_databases;
char *qml_server_name;

/* The helpers take the default of a setting from the variable's initial value. */

static void
define_switch(const char *name, const char *description, bool *value)
{
	DefineCustomBoolVariable(name, description, NULL, value, *value, PGC_SIGHUP, 0, NULL, NULL,
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

/* A server's name is the front of its id, and of the names of its workers. */
static bool
check_server_name(char **newval, void **extra, GucSource source)
{
	if (strlen(*newval) <= QML_MAX_SERVER_NAME && strchr(*newval, '/') == NULL)
		return true;
	GUC_check_errdetail("It has at most %d bytes, none of them a slash.", QML_MAX_SERVER_NAME);
	return false;
}

static bool
check_databases(char **newval, void **extra, GucSource source)
{
	char *copy = pstrdup(*newval);
	List *names;

	if (strcmp(*newval, "*") == 0 || SplitIdentifierString(copy, ',', &names))
		return true;
	GUC_check_errdetail("It is *, or a list of names of databases, separated by commas.");
	return false;
}

/* Called when the library is loaded. */
void
qml_guc_init(void)
{
	define_call_int("qml.max_retries",
					"Retries of a job whose caller and queue say nothing about them.", NULL,
					&qml_max_retries, 0, QML_MAX_RETRIES, 0);
	define_call_int("qml.job_timeout",
					"How long an attempt may run if its caller and queue say nothing about it.",
					NULL, &qml_job_timeout, 1, INT_MAX, GUC_UNIT_MS);
	define_call_int("qml.lease",
					"How long a claim holds if its worker and queue say nothing about it.", NULL,
					&qml_lease, 1, INT_MAX, GUC_UNIT_MS);
	define_call_int("qml.succeeded_ttl", "How long succeeded and deleted jobs are kept.",
					"0 keeps none.", &qml_succeeded_ttl, 0, (int) QML_MAX_SECONDS, GUC_UNIT_S);
	define_call_int("qml.failed_ttl", "How long failed jobs are kept.", "0 keeps none.",
					&qml_failed_ttl, 0, (int) QML_MAX_SECONDS, GUC_UNIT_S);
	define_call_int("qml.max_payload_size",
					"Largest payload, metadata, progress or result of a job.", NULL,
					&qml_max_payload_size, 1, 256 * 1024, GUC_UNIT_KB);

	define_switch("qml.enabled", "Whether there is any work in the background.", &qml_enabled);
	define_switch("qml.enable_scheduler",
				  "Whether the scheduler promotes due jobs and takes back lost ones.",
				  &qml_scheduler_enabled);
	define_switch("qml.enable_recurring", "Whether the scheduler fires recurring jobs.",
				  &qml_recurring_enabled);
	define_switch("qml.enable_cleanup", "Whether the scheduler lets expired jobs and locks go.",
				  &qml_cleanup_enabled);
	define_background_int("qml.scheduler_poll_interval",
						  "How often the scheduler looks for due jobs that it was not told of.",
						  NULL, &qml_scheduler_poll_interval, 1, 3600 * 1000, GUC_UNIT_MS);
	define_background_int("qml.recurring_poll_interval",
						  "How often the scheduler looks for recurring jobs that it was not told "
						  "of.",
						  NULL, &qml_recurring_poll_interval, 1, 3600 * 1000, GUC_UNIT_MS);
	define_background_int("qml.cleanup_interval",
						  "How often the scheduler lets expired jobs and locks go.", NULL,
						  &qml_cleanup_interval, 1, 86400, GUC_UNIT_S);
	define_background_int("qml.heartbeat_interval", "How often a server says that it is alive.",
						  NULL, &qml_heartbeat_interval, 1, 3600, GUC_UNIT_S);
	define_background_int("qml.dead_server_timeout",
						  "How long a server may be silent before its jobs are taken back.", NULL,
						  &qml_dead_server_timeout, 1, 86400, GUC_UNIT_S);
	define_background_int("qml.workers",
						  "Most background workers that run jobs in a database at the same time.",
						  "0: no jobs run in databases.", &qml_workers, 0, 1000, 0);
	define_background_int("qml.worker_idle_timeout",
						  "How long a background worker waits for work before it ends.", NULL,
						  &qml_worker_idle_timeout, 1, 86400, GUC_UNIT_S);
	define_background_int("qml.shutdown_timeout",
						  "How long running jobs may go on when the server shuts down.", NULL,
						  &qml_shutdown_timeout, 1, 3600, GUC_UNIT_S);
	DefineCustomStringVariable("qml.databases",
							   "Databases that are worked in the background, * for all.", NULL,
							   &qml_databases, "*", PGC_SIGHUP, GUC_LIST_INPUT, check_databases,
							   NULL, NULL);
	DefineCustomStringVariable("qml.server_name",
							   "Name under which the background processes register.",
							   "Empty: the name of the host.", &qml_server_name, "", PGC_SIGHUP, 0,
							   check_server_name, NULL, NULL);
	MarkGUCPrefixReserved("qml");
}
