/*
 * subxact.h
 *		Work that may meet data which cannot be worked with.
 */
#ifndef QML_SUBXACT_H
#define QML_SUBXACT_H

/* What went wrong. */
typedef struct QmlFailure
{
	int sqlerrcode;
	char *message;
	char *hint; /* or NULL */
} QmlFailure;

/* Kinds of messages that come at most once a minute each from a process. */
typedef enum QmlLogKind
{
	QML_LOG_JOBS = 0,
	QML_LOG_RECURRING,
	QML_LOG_RIGHTS,
	QML_LOG_PROCESS,
	QML_LOG_STEP, /* and some more, one for each step of the scheduler */
	QML_LOG_LAST_STEP = QML_LOG_STEP + 11,
	QML_LOG_SLOTS,
	QML_LOG_CLOCK,
	QML_LOG_SERVERS,
	QML_LOG_HOOKS,
	QML_LOG_KINDS
} QmlLogKind;

extern bool qml_careful_try(void (*work)(void *arg), void *arg, bool (*passes)(int sqlerrcode),
							QmlFailure *failure);
extern bool qml_careful_run(void (*work)(void *arg), void *arg, QmlFailure *failure);
extern bool qml_careful_may_log(QmlLogKind kind);

#endif
