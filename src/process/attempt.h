/*
 * attempt.h
 *		An attempt of a job in a background worker, and what becomes of it.
 */
#ifndef QML_ATTEMPT_H
#define QML_ATTEMPT_H

#include "model/job.h"
#include "userfn/trace.h"

/* What becomes of an attempt. */
typedef enum QmlFate
{
	QML_FATE_PENDING = 0,
	QML_FATE_SUCCEEDED,
	QML_FATE_FAILED,
	QML_FATE_RELEASED,	/* given back, not counted */
	QML_FATE_LATER,		/* by its own wish; not counted */
	QML_FATE_DISCARDED, /* by its own wish */
	QML_FATE_ALONE,		/* to be run again, alone */
	QML_FATE_GONE		/* somebody else ended it */
} QmlFate;

typedef struct QmlAttempt
{
	MemoryContext context; /* of what it refers to */
	QmlJob job;
	QmlFate fate;
	bool ended; /* and only to be written down */
	Datum result;
	QmlJobError error;
	bool retry;
	TimestampTz retry_at;
	int64 delay; /* microseconds */
	Datum reason;
	Datum progress; /* 0: as it is */
	QmlTrace trace;
} QmlAttempt;

/* Why the running job shall stop. */
typedef enum QmlStop
{
	QML_STOP_NOT = 0,
	QML_STOP_DELAY,	   /* others of its group wait */
	QML_STOP_TIMEOUT,  /* of its own */
	QML_STOP_SHUTDOWN, /* of the server */
} QmlStop;

extern void qml_attempt_copy(const QmlAttempt *attempt, QmlAttempt *copy);
extern void qml_attempt_fail(QmlAttempt *attempt, const char *message, const char *type,
							 Datum stack_trace, bool retry);
extern void qml_attempt_judge(QmlAttempt *attempt, const ErrorData *error, QmlStop why,
							  bool deleted);
extern bool qml_attempt_finish(QmlJob *job, void *arg);
extern bool qml_attempt_look(QmlJob *job, void *arg);
extern void qml_attempt_log(const QmlAttempt *attempt);

#endif
