/*
 * capacity.h
 *		How many background processes there can be, and how they are shared.
 */
#ifndef QML_CAPACITY_H
#define QML_CAPACITY_H

#include "ipc/shmem.h"

extern void qml_capacity_update(int databases, int64 now);
extern void qml_capacity_note_started(void);
extern void qml_capacity_note_refused(int64 now);
extern bool qml_capacity_by_server(void);
extern int qml_capacity_processes(void);
extern int qml_capacity_schedulers(void);
extern int qml_capacity_workers(void);

#endif
