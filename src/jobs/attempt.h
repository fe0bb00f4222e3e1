/*
 * attempt.h
 *		An attempt of a job that runs in the database, and how it ends.
 */
#ifndef QML_ATTEMPT_H
#define QML_ATTEMPT_H

#include "model/job.h"
#include "userfn/trace.h"

/* Why the running job has to stop. */
typedef enum QmlStop
{
	QML_STOP_NOT = 0,
	QML_STOP_GROUP,	  /* the other jobs of its group have waited long enough */
	QML_STOP_TIMEOUT, /* its own timeout is over */
	QML_STOP_SHUTDOWN /* the server is shutting down */
} QmlStop;

/* How an attempt ends, as far as it is decided. */
typedef enum QmlAttemptState
{
	QML_ATTEMPT_PENDING = 0,
	QML_ATTEMPT_SUCCEEDED,
	QML_ATTEMPT_FAILED,
	QML_ATTEMPT_RELEASED,	 /* goes back to its queue; not counted */
	QML_ATTEMPT_RETRY_LATER, /* by the handler's own request; not counted */
	QML_ATTEMPT_DISCARDED,	 /* by the handler's own request */
	QML_ATTEMPT_RUN_ALONE,	 /* its group is undone, or cannot have it: it runs again, alone */
	QML_ATTEMPT_LOST		 /* somebody else ended it: nothing is written */
} QmlAttemptState;

typedef struct QmlAttempt
{
	MemoryContext context; /* of what it refers to */
	QmlJob job;
	QmlAttemptState state;
	bool begun;		/* run.c notes it if the process ends now; false again when it is undone */
	bool ended;		/* the job has run, and only its end is to be recorded */
	bool committed; /* what it did is committed already: it was a command */
	Datum result;
	QmlJobError error; /* when failed; with the next two */
	bool retry;
	TimestampTz retry_at;
	int64 delay; /* microseconds, when to be retried later */
	Datum reason;
	Datum progress; /* 0: as it is */
	QmlTrace trace;
} QmlAttempt;

extern void qml_attempt_copy(const QmlAttempt *attempt, QmlAttempt *copy);
extern void qml_attempt_fail(QmlAttempt *attempt, const char *message, const char *type,
							 Datum stack_trace, bool retry);
extern bool qml_attempt_has_effects(const QmlAttempt *attempt);
extern void qml_attempt_judge(QmlAttempt *attempt, const ErrorData *error, QmlStop reason,
							  bool deleted);
extern bool qml_attempt_finish(QmlJob *job, void *arg);
extern bool qml_attempt_check_held(QmlJob *job, void *arg);
extern void qml_attempt_log(const QmlAttempt *attempt);

#endif
