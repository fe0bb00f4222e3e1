/*
 * retention.c
 *		How long finished jobs are kept: the times at which they expire.
 *
 * Finished jobs are counted by the time of their expiry, so that a count falls when jobs expire
 * although nobody reads their rows (ipc/counters.c).  Therefore jobs expire together, at times
 * that are as far apart as the time to live allows: a sixtieth of it, or a second.  A job is
 * kept for its time to live, and to the next such time.
 *
 * Pure: it compiles without a server and keeps nothing.
 */
#include "core/retention.h"

#define SECOND INT64_C(1000000)
#define MINUTE (60 * SECOND)
#define HOUR   (60 * MINUTE)
#define DAY	   (24 * HOUR)

/* The longest of them that is at most a sixtieth is taken. */
static const int64_t steps[] = {DAY,	6 * HOUR,	 HOUR,		 15 * MINUTE, 5 * MINUTE,
								MINUTE, 15 * SECOND, 5 * SECOND, SECOND};

#define STEPS ((int) (sizeof(steps) / sizeof(steps[0])))

static int64_t
step_of(int64_t ttl)
{
	int i = 0;

	while (i < STEPS - 1 && steps[i] > ttl / 60)
		i++;
	return steps[i];
}

/*
 * When a job expires that finished then, in microseconds since any midnight of UTC.  With a time
 * to live of 0 it is not kept.
 */
int64_t
qml_retention_end(int64_t finished_at, int64_t ttl)
{
	int64_t step = step_of(ttl);
	int64_t end = finished_at + ttl;
	int64_t behind = end % step;

	if (ttl == 0 || behind == 0)
		return end;
	return end - behind + (behind > 0 ? step : 0);
}
