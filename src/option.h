/*
 * option.h
 *		Options given in jsonb: of queues, and by whoever else has some.
 */
#ifndef QML_OPTION_H
#define QML_OPTION_H

#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "retry.h"

/* What a queue says; -1 where it says nothing and the setting holds. */
typedef struct QmlQueueOptions
{
	int max_retries;
	int timeout_ms;
	int64 lease;		 /* microseconds */
	int64 succeeded_ttl; /* microseconds */
	int64 failed_ttl;	 /* microseconds */
	QmlRetryPolicy retry;
} QmlQueueOptions;

/* Reads one value into the structure that its table of options is for. */
typedef struct QmlOption
{
	const char *name;
	void (*read)(const char *path, JsonbValue *value, void *into);
} QmlOption;

extern void qml_option_read_object(const char *prefix, JsonbContainer *object,
								   const QmlOption *known, void *into);
extern int64 qml_option_lease(const char *path, JsonbValue *value);
extern TimestampTz qml_option_time(const char *path, JsonbValue *value);
extern text *qml_option_name(const char *path, JsonbValue *value);
extern text *qml_option_text(const char *path, JsonbValue *value, int maxlen);
extern void qml_option_default_queue(QmlQueueOptions *into);
extern void qml_option_parse_queue(Jsonb *options, QmlQueueOptions *into);

#endif
