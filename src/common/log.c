/*
 * log.c
 *		Limits how often a process repeats itself in the server's log: to one message
 *		of a kind in a minute.
 */
#include "postgres.h"

#include "common/clock.h"
#include "common/log.h"

#define MS_BETWEEN_MESSAGES (60 * 1000)

/* Whether a message of this kind is due; the caller logs it then. */
bool
qml_log_is_due(QmlLogKind kind)
{
	static int64 given[QML_LOG_KINDS]; /* 0: never */
	int64 now = qml_clock_monotonic_ms();

	Assert(kind >= 0 && kind < QML_LOG_KINDS);
	if (given[kind] != 0 && now - given[kind] < MS_BETWEEN_MESSAGES)
		return false;
	given[kind] = Max(now, 1);
	return true;
}
