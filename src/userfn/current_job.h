/*
 * current_job.h
 *		The job that this session runs, and what its handler asks for.
 */
#ifndef QML_CURRENT_JOB_H
#define QML_CURRENT_JOB_H

#include "ipc/shmem.h"
#include "model/job.h"

/* What a handler wants its job to become instead of succeeded. */
typedef enum QmlWish
{
	QML_WISH_NONE = 0,
	QML_WISH_LATER,
	QML_WISH_DISCARD
} QmlWish;

typedef struct QmlCurrent
{
	const QmlJob *job; /* NULL: none is running */
	QmlWish wish;
	int64 delay; /* microseconds */
	Datum reason;
	Datum progress; /* the latest; 0: none */
} QmlCurrent;

extern void qml_current_job_init(QmlSlot *slot);
extern void qml_current_job_begin(const QmlJob *job, MemoryContext context);
extern const QmlCurrent *qml_current_job_end(void);
extern const QmlJob *qml_current_job_or_null(void);
extern const QmlJob *qml_current_job_require(const char *function);
extern void qml_current_job_later(int64 delay, Datum reason);
extern void qml_current_job_discard(Datum reason);
extern bool qml_current_job_is(const pg_uuid_t *id, int attempt);
extern void qml_current_job_set_progress(Datum progress);

#endif
