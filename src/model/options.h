/*
 * options.h
 *		Options in jsonb: of queues, of handlers, and the data of a new state.
 */
#ifndef QML_OPTIONS_H
#define QML_OPTIONS_H

#include "nodes/pg_list.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "core/retry.h"
#include "qml.h"

/* The options of a queue; -1: not given. */
typedef struct QmlQueueOptions
{
	int max_retries;
	int timeout_ms;
	int64 lease;		 /* microseconds */
	int64 succeeded_ttl; /* microseconds */
	int64 failed_ttl;	 /* microseconds */
	bool notify;		 /* notify listeners of ready jobs */
	bool has_retry;		 /* retry was given */
	QmlRetryPolicy retry;
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

/* Reads all options into the structure that they are for. */
typedef void (*QmlOptionParser)(Jsonb *options, void *into);

extern void qml_options_default_queue(QmlQueueOptions *into);
extern void qml_options_parse_queue(Jsonb *options, void *into);
extern void qml_options_parse_callback(Jsonb *options);
extern void qml_options_parse_handler(Jsonb *options, void *into);
extern void qml_options_parse_state(QmlState state, Jsonb *data, QmlStateData *into);
extern bool qml_options_parse_stored(QmlOptionParser parse, Jsonb *options, void *into,
									 char **error);

#endif
