/*
 * log.c
 *		Limits how often a process repeats itself in the server's log: to one message
 *		of a kind in a minute.
 *
 * The times are on the clock that all processes of a machine share, so that a scheduler whose
 * turn is over can leave them to the next one.
 */
#include "postgres.h"

#include "common/clock.h"
#include "common/log.h"

#define MS_BETWEEN_MESSAGES (60 * 1000)

static QmlLogTimes given; /* when each kind was; 0: never */

/* Whether a message of this kind is due; the caller logs it then. */
bool
qml_log_is_due(QmlLogKind kind)
{
	return qml_log_is_due_after(kind, MS_BETWEEN_MESSAGES);
}

/* The same, if so many milliseconds have passed since the last one. */
bool
qml_log_is_due_after(QmlLogKind kind, int64 interval)
{
	int64 now = qml_clock_monotonic_ms();

	Assert(kind >= 0 && kind < QML_LOG_KINDS);
	if (given.at[kind] != 0 && now - given.at[kind] < interval)
		return false;
	given.at[kind] = Max(now, 1);
	return true;
}

/* What this process has told, for the one that follows it. */
void
qml_log_copy(QmlLogTimes *times)
{
	*times = given;
}

/* What the process before this one has told. */
void
qml_log_resume(const QmlLogTimes *times)
{
	given = *times;
}
