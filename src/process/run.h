/*
 * run.h
 *		The loop's step of a worker: claim, run, record.
 */
#ifndef QML_RUN_H
#define QML_RUN_H

#include "ipc/shmem.h"

extern void qml_run_init(QmlSlot *slot);
extern bool qml_run_next(void);
extern bool qml_run_is_searching(void);
extern void qml_run_flush(void);
extern void qml_run_end(void);

#endif
