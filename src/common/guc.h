/*
 * guc.h
 *		Settings.
 */
#ifndef QML_GUC_H
#define QML_GUC_H

extern int qml_max_retries;
extern int qml_job_timeout;		 /* milliseconds */
extern int qml_lease;			 /* milliseconds */
extern int qml_succeeded_ttl;	 /* seconds */
extern int qml_failed_ttl;		 /* seconds */
extern int qml_max_payload_size; /* kilobytes */

/* What happens when a queue comes into being by being named. */
typedef enum QmlNewQueues
{
	QML_NEW_QUEUES_NOTICE = 0, /* the caller is told */
	QML_NEW_QUEUES_QUIET,
	QML_NEW_QUEUES_ERROR /* it does not: only qml_create_queue() makes queues */
} QmlNewQueues;

extern int qml_new_queues; /* of QmlNewQueues */
extern bool qml_warn_idle;
extern bool qml_log_failures;
extern bool qml_ready_lists;
extern char *qml_actor;		 /* empty: not given */
extern int qml_search_limit; /* jobs */

/* Of the background processes. */
extern bool qml_enabled;
extern bool qml_scheduler_enabled;
extern bool qml_recurring_enabled;
extern bool qml_cleanup_enabled;
extern int qml_scheduler_poll_interval; /* milliseconds */
extern int qml_recurring_poll_interval; /* milliseconds */
extern int qml_cleanup_interval;		/* seconds */
extern int qml_audit_ttl;				/* seconds; -1: for ever */
extern int qml_heartbeat_interval;		/* seconds */
extern int qml_dead_server_timeout;		/* seconds */
extern int qml_stats_series;
extern int qml_alert_interval; /* seconds; 0: no alerts */
extern int qml_alert_max_age;  /* seconds; 0: no bound */
extern double qml_alert_max_failure_rate;
extern int qml_alert_limit;
extern int qml_workers;
extern int qml_max_workers;			/* -1: by max_worker_processes */
extern int qml_worker_idle_timeout; /* seconds */
extern int qml_shutdown_timeout;	/* seconds */
extern char *qml_databases;
extern char *qml_server_name;

extern void qml_guc_init(void);
extern bool qml_guc_has(const char *name, const char *value);
extern void qml_guc_set(const char *name, const char *value);

#endif
