/*
 * options.h
 *		Options given in jsonb: of queues, and by whoever else has some.
 */
#ifndef QML_OPTIONS_H
#define QML_OPTIONS_H

#include "nodes/pg_list.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "core/retry.h"

/* What a queue says; -1 where it says nothing and the setting holds. */
typedef struct QmlQueueOptions
{
	int max_retries;
	int timeout_ms;
	int64 lease;		 /* microseconds */
	int64 succeeded_ttl; /* microseconds */
	int64 failed_ttl;	 /* microseconds */
	bool notify;		 /* tell listeners of ready jobs */
	bool retries;		 /* retry was given */
	QmlRetryPolicy retry;
} QmlQueueOptions;

/* What a handler says; the members in common are those that a job has, too. */
typedef struct QmlHandlerOptions
{
	QmlQueueOptions common;
	char *queue;	 /* NULL: none */
	char *run_as;	 /* NULL: whoever registers it */
	List *no_retry;	 /* of strings: error types and SQLSTATEs */
	int concurrency; /* jobs at the same time; 0: any number */
	bool bare;		 /* called without middleware */
} QmlHandlerOptions;

/* Reads one value into the structure that its table of options is for. */
typedef struct QmlOption
{
	const char *name;
	void (*read)(const char *path, JsonbValue *value, void *into);
} QmlOption;

/* Reads all options into the structure that they are for. */
typedef void (*QmlOptionParser)(Jsonb *options, void *into);

extern void qml_options_read_object(const char *prefix, JsonbContainer *object,
									const QmlOption *known, void *into);
extern int64 qml_options_lease(const char *path, JsonbValue *value);
extern TimestampTz qml_options_time(const char *path, JsonbValue *value);
extern text *qml_options_name(const char *path, JsonbValue *value);
extern text *qml_options_text(const char *path, JsonbValue *value, int maxlen);
extern void qml_options_default_queue(QmlQueueOptions *into);
extern void qml_options_parse_queue(Jsonb *options, void *into);
extern void qml_options_parse_handler(Jsonb *options, void *into);
extern bool qml_options_parse_stored(QmlOptionParser parse, Jsonb *options, void *into,
									 char **error);

#endif
