/*
 * options.h
 *		Options in jsonb: of queues, handlers and hooks, and the data of a new state.
 */
#ifndef QML_OPTIONS_H
#define QML_OPTIONS_H

#include "nodes/pg_list.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "core/redact_path.h"
#include "core/retry.h"
#include "qml.h"

/* What the jobs of a queue outlive. */
typedef enum QmlStorage
{
	QML_DURABLE = 0, /* what any row of the server outlives */
	QML_ASYNC,		 /* the same, but for the last moments before a crash of the server */
	QML_UNLOGGED	 /* no crash, and no promotion of a standby */
} QmlStorage;

/* What is hidden in documents of jobs; in one piece of memory without pointers. */
typedef struct QmlRedact
{
	Size size; /* of all of it */
	int npaths;
	QmlRedactPath paths[FLEXIBLE_ARRAY_MEMBER];
} QmlRedact;

/* Of one option. */
#define QML_MAX_REDACT_PATHS 50

/* What an alert tells of when it is exceeded; below 0: not given. */
typedef struct QmlBounds
{
	int64 max_wait; /* microseconds */
	int64 max_age;	/* microseconds */
	int64 max_run;	/* microseconds */
	double max_failure_rate;
} QmlBounds;

/* The options of a queue; -1: not given. */
typedef struct QmlQueueOptions
{
	int max_retries;
	int timeout_ms;
	int64 lease;		 /* microseconds */
	int64 succeeded_ttl; /* microseconds */
	int64 failed_ttl;	 /* microseconds */
	bool notify;		 /* notify listeners of ready jobs */
	QmlStorage storage;
	bool has_retry; /* retry was given */
	QmlRetryPolicy retry;
	const QmlRedact *redact; /* NULL: nothing */
	QmlBounds bounds;
} QmlQueueOptions;

/* What a handler says; the members in common are those that a job has, too. */
typedef struct QmlHandlerOptions
{
	QmlQueueOptions common;
	char *queue;		 /* NULL: none */
	char *run_as;		 /* NULL: the role that registers it */
	List *non_retryable; /* of strings: error types and SQLSTATEs */
	int concurrency;	 /* jobs at the same time; 0: any number */
	bool no_middleware;	 /* called without middleware */
} QmlHandlerOptions;

/* The options of a state hook. */
typedef struct QmlHookOptions
{
	bool after_commit; /* called by a job, after the commit of the transition */
	bool with_payload; /* and told the payload and the result */
	bool alerts;	   /* called for alerts, and not for transitions */
} QmlHookOptions;

/* What becomes of a job whose id is there already. */
typedef enum QmlOnDuplicateId
{
	QML_DUPLICATE_ID_ERROR = 0,
	QML_DUPLICATE_ID_RETURN /* the standing job is returned, if it is the same */
} QmlOnDuplicateId;

/* The options of an enqueue; all zero: none is given. */
typedef struct QmlEnqueueOptions
{
	QmlOnDuplicateId on_duplicate_id;
} QmlEnqueueOptions;

/* What qml_set_state() is given with a state.  Datums are 0 where nothing is given. */
typedef struct QmlStateData
{
	TimestampTz run_at; /* QML_NO_TIME: not given */
	int64 lease;		/* microseconds; -1: not given */
	Datum worker;
	Datum reason;
	Datum result;
	Datum error;
	Datum error_type;
	Datum stack_trace;
} QmlStateData;

/* What qml_update_job() changes; all zero: nothing. */
typedef struct QmlJobChanges
{
	char *queue; /* NULL: it stays where it is */
	bool has_priority;
	int priority;
	Datum payload; /* 0: it stays as it is */
	bool has_max_retries;
	int max_retries; /* -1: the default */
	bool has_timeout;
	int timeout_ms; /* -1: the default */
	bool has_run_at;
	TimestampTz run_at; /* QML_NO_TIME: now */
	bool has_metadata;
	Datum metadata; /* 0: none */
} QmlJobChanges;

/* Reads all options into the structure that they are for. */
typedef void (*QmlOptionParser)(Jsonb *options, void *into);

extern bool qml_options_give_storage(Jsonb *options);
extern const QmlRedact *qml_options_redact_all(Jsonb *options);
extern void qml_options_default_queue(QmlQueueOptions *into);
extern void qml_options_parse_queue(Jsonb *options, void *into);
extern void qml_options_parse_hook(Jsonb *options, void *into);
extern void qml_options_parse_middleware(Jsonb *options);
extern void qml_options_parse_handler(Jsonb *options, void *into);
extern void qml_options_parse_enqueue(Jsonb *options, bool own_id, QmlEnqueueOptions *into);
extern void qml_options_parse_changes(Jsonb *changes, QmlJobChanges *into);
extern void qml_options_parse_state(QmlState state, Jsonb *data, QmlStateData *into);
extern bool qml_options_parse_stored(QmlOptionParser parse, Jsonb *options, void *into,
									 char **error);

#endif
