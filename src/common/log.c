/*
 * log.c
 *		How often a process repeats itself in the server's log: one message of each
 *		kind a minute.
 */
#include "postgres.h"

#include <time.h>

#include "common/log.h"

#define SECONDS_BETWEEN_MESSAGES 60

/* Whether a message of this kind may be given again; counts it as given. */
bool
qml_log_is_due(QmlLogKind kind)
{
	static time_t given[QML_LOG_KINDS]; /* 0: never */
	struct timespec now;

	(void) clock_gettime(CLOCK_MONOTONIC, &now);
	if (given[kind] != 0 && now.tv_sec - given[kind] < SECONDS_BETWEEN_MESSAGES)
		return false;
	given[kind] = Max(now.tv_sec, 1);
	return true;
}
