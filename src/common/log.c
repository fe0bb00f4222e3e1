/*
 * log.c
 *		Limits how often a process repeats itself in the server's log: to one message
 *		of a kind in a minute.
 */
#include "postgres.h"

#include <time.h>

#include "common/log.h"

#define SECONDS_BETWEEN_MESSAGES 60

/* Whether a message of this kind is due; the caller logs it then. */
bool
qml_log_is_due(QmlLogKind kind)
{
	static time_t given[QML_LOG_KINDS]; /* 0: never */
	struct timespec now;

	Assert(kind >= 0 && kind < QML_LOG_KINDS);
	(void) clock_gettime(CLOCK_MONOTONIC, &now);
	if (given[kind] != 0 && now.tv_sec - given[kind] < SECONDS_BETWEEN_MESSAGES)
		return false;
	given[kind] = Max(now.tv_sec, 1);
	return true;
}
