/*
 * scheduler.h
 *		The process that does in a database what is due.
 */
#ifndef QML_SCHEDULER_H
#define QML_SCHEDULER_H

#include "postmaster/bgworker.h"

/* Front of the name that a process shows; the database follows. */
#define QML_SCHEDULER_NAME "qml scheduler: "

extern void qml_scheduler_describe(BackgroundWorker *worker, int slot, uint32 generation,
								   const char *database, bool look);

#endif
