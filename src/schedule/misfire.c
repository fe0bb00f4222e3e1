/*
 * misfire.c
 *		Which ticks of a schedule fire: those on time, and those that were missed.
 *
 * A tick that is a little late fires nevertheless.  The grace is the time to the tick
 * after it, but at least 5 and at most 70 seconds: polling by pg_cron, once a minute, is
 * no misfire for a schedule by the minute, nor is a restart of the server.
 *
 * When the first tick that is due is later than its grace, ticks were missed.  The
 * schedule's misfire policy decides about all that are due: one job (fire_once), none
 * (skip), or one for each, up to 1,000 (fire_all).  The schedule then goes on after now.
 *
 * These functions only compute; nothing is read or written.
 */
#include "postgres.h"

#include "qml.h"
#include "schedule/misfire.h"

/* 5 s for a busy machine; 70 s: the minute of those who poll by pg_cron, and some more. */
#define MIN_GRACE (INT64CONST(5) * USECS_PER_SEC)
#define MAX_GRACE (INT64CONST(70) * USECS_PER_SEC)

/* Most ticks of a schedule that fire at once. */
#define MAX_TICKS 1000

#define FIRE_ONCE "fire_once"
#define SKIP	  "skip"
#define FIRE_ALL  "fire_all"

/* Whether there is a misfire policy of this name. */
bool
qml_misfire_is_policy(const char *name)
{
	return strcmp(name, FIRE_ONCE) == 0 || strcmp(name, SKIP) == 0 || strcmp(name, FIRE_ALL) == 0;
}

/* Whether the first tick that is due is later than its grace. */
static bool
is_missed(const QmlCron *cron, const QmlZone *zone, TimestampTz tick, TimestampTz now)
{
	TimestampTz following;

	/* Before any arithmetic: a time that was set by hand may be -infinity. */
	if (tick < now - MAX_GRACE)
		return true;
	if (tick >= now - MIN_GRACE)
		return false;
	following = qml_timezone_next(cron, zone, tick);
	return following != QML_NO_TIME && now > following;
}

/*
 * Chooses what a schedule fires whose first tick, next_run_at, is due now.  A policy that
 * is not known (edited by hand) means fire_once.
 */
void
qml_misfire_choose(const char *policy, const QmlCron *cron, const QmlZone *zone,
				   TimestampTz next_run_at, TimestampTz now, QmlDueTicks *due)
{
	TimestampTz tick = next_run_at;

	Assert(next_run_at <= now);
	due->ticks = NULL;
	due->count = 0;
	if (is_missed(cron, zone, tick, now) &&
		(strcmp(policy, FIRE_ALL) != 0 || TIMESTAMP_NOT_FINITE(tick)))
	{
		if (strcmp(policy, SKIP) != 0)
		{
			due->ticks = palloc(sizeof(TimestampTz));
			due->ticks[due->count++] = tick;
		}
		due->next = qml_timezone_next(cron, zone, now);
	}
	else
	{
		due->ticks = palloc(sizeof(TimestampTz) * MAX_TICKS);
		while (tick != QML_NO_TIME && tick <= now && due->count < MAX_TICKS)
		{
			Assert(due->count == 0 || tick > due->ticks[due->count - 1]);
			due->ticks[due->count++] = tick;
			tick = qml_timezone_next(cron, zone, tick);
		}
		/* Beyond the limit, the rest of what is due is skipped. */
		due->next = tick != QML_NO_TIME && tick <= now ? qml_timezone_next(cron, zone, now) : tick;
	}
	Assert(due->next == QML_NO_TIME || due->next > now);
}
