/*
 * process.h
 *		What the background processes have in common.
 */
#ifndef QML_PROCESS_H
#define QML_PROCESS_H

#include "nodes/pg_list.h"

#include "common/log.h"

/* A setting that a process fixes for itself. */
typedef struct QmlSetting
{
	const char *name;
	const char *value;
} QmlSetting;

extern void qml_process_start(void (*install_handlers)(void));
extern void qml_process_pin(const QmlSetting *settings, int count);
extern void qml_process_pin_settings(void);
extern void qml_process_begin(const char *activity);
extern void qml_process_begin_long(const char *activity);
extern void qml_process_end_transaction(void);
extern void qml_process_commit(void);
extern void qml_process_stop_waiting(void);
extern ErrorData *qml_process_undo(void);
extern bool qml_process_is_late(void);
extern void qml_process_log_error(const char *what, QmlLogKind kind, ErrorData *error);
extern void qml_process_handle_signals(void);
extern void qml_process_sleep(int64 milliseconds, uint32 wait_event);
extern List *qml_process_listed_databases(void);
extern bool qml_process_works_all_databases(void);
extern bool qml_process_works_database(const char *name);

#endif
