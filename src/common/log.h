/*
 * log.h
 *		Limits how often a process repeats itself in the server's log.
 */
#ifndef QML_LOG_H
#define QML_LOG_H

/* Kinds of messages that come at most once a minute each from a process. */
typedef enum QmlLogKind
{
	QML_LOG_JOBS = 0,
	QML_LOG_RECURRING,
	QML_LOG_PROCESS,
	QML_LOG_STEP, /* and some more, one for each step of the scheduler */
	QML_LOG_LAST_STEP = QML_LOG_STEP + 20,
	QML_LOG_SLOTS,
	QML_LOG_DATABASES,
	QML_LOG_CLOCK,
	QML_LOG_HOOKS,
	QML_LOG_PARTITIONS,
	QML_LOG_KEPT_PARTITION,
	QML_LOG_OVERFLOW,
	QML_LOG_CLEANUP,
	QML_LOG_ESCAPED,
	QML_LOG_TRIGGER,
	QML_LOG_COUNT,
	QML_LOG_AUDIT,
	QML_LOG_KINDS
} QmlLogKind;

/* When the last message of each kind was given, on the monotonic clock in milliseconds. */
typedef struct QmlLogTimes
{
	int64 at[QML_LOG_KINDS];
} QmlLogTimes;

extern bool qml_log_is_due(QmlLogKind kind);
extern bool qml_log_is_due_after(QmlLogKind kind, int64 interval);
extern void qml_log_copy(QmlLogTimes *times);
extern void qml_log_resume(const QmlLogTimes *times);

#endif
