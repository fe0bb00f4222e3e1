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
	QML_LOG_LAST_STEP = QML_LOG_STEP + 11,
	QML_LOG_SLOTS,
	QML_LOG_CLOCK,
	QML_LOG_SERVERS,
	QML_LOG_HOOKS,
	QML_LOG_KINDS
} QmlLogKind;

extern bool qml_log_is_due(QmlLogKind kind);

#endif
