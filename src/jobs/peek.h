/*
 * peek.h
 *		Looking at the jobs that would be given out next.
 */
#ifndef QML_PEEK_H
#define QML_PEEK_H

#include "model/job.h"

/* Gets each job; its values hold until it returns. */
typedef void (*QmlPeekTake)(const QmlJob *job, void *arg);

extern void qml_peek_jobs(char **queues, int nqueues, int limit, QmlPeekTake take, void *arg);

#endif
