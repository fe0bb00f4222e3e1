/*
 * takeover.h
 *		Whose schedule is a job of pg_cron, and the end of that job.
 */
#ifndef QML_TAKEOVER_H
#define QML_TAKEOVER_H

#include "utils/timestamp.h"

/* What pg_cron does for a job: columns of cron.job. */
typedef struct QmlCronJob
{
	char *schedule;
	char *command;
	char *username;
} QmlCronJob;

extern void qml_takeover_init(void);
extern char *qml_takeover_name(int64 jobid, const char *jobname);
extern Datum qml_takeover_keep(const QmlCronJob *job);
extern char *qml_takeover_difference(Datum imported, const QmlCronJob *job);
extern bool qml_takeover_job(const char *id, Oid created_by, Datum imported);
extern void qml_takeover_watch(const char *id, TimestampTz next);

#endif
