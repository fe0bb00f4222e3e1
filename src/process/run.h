/*
 * run.h
 *		Running jobs in a background worker.
 */
#ifndef QML_RUN_H
#define QML_RUN_H

#include "ipc/shmem.h"

extern void qml_run_init(QmlSlot *slot);
extern bool qml_run_next(void);
extern void qml_run_shut_down(void);
extern bool qml_run_is_stopped(void);
extern bool qml_run_owes(void);
extern void qml_run_pay(void);
extern void qml_run_end(void);

#endif
