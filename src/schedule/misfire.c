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
 * Ticks that are due and do not fire are missed.  Of many in a row, the first hundred are
 * named, and the last of these stands for the others: so a schedule of every second that was
 * off for a month costs a hundred rows, and not 2.6 million.
 *
 * These functions only compute; nothing is read or written.
 */
#include "postgres.h"

#include "qml.h"
#include "schedule/misfire.h"

/* 5 s for a busy machine; 70 s: the minute of those who poll by pg_cron, and some more. */
#define MIN_GRACE (INT64CONST(5) * USECS_PER_SEC)
#define MAX_GRACE (INT64CONST(70) * USECS_PER_SEC)

/* Most ticks of a schedule that fire at once, and that are named as missed. */
#define MAX_FIRED  1000
#define MAX_MISSED 100

#define FIRE_ONCE "fire_once"
#define SKIP	  "skip"
#define FIRE_ALL  "fire_all"

/* Whether there is a misfire policy of this name. */
bool
qml_misfire_is_policy(const char *name)
{
	return strcmp(name, FIRE_ONCE) == 0 || strcmp(name, SKIP) == 0 || strcmp(name, FIRE_ALL) == 0;
}

/* Whether a tick is later than its grace; following: the tick after it. */
static bool
is_late(TimestampTz tick, TimestampTz following, TimestampTz now)
{
	/* Before any arithmetic: a time that was set by hand may be -infinity. */
	if (tick < now - MAX_GRACE)
		return true;
	if (tick >= now - MIN_GRACE)
		return false;
	return following != QML_NO_TIME && now > following;
}

/* How many of the ticks that are due fire, the first of which was missed. */
static int
count_missed_firing(const char *policy)
{
	if (strcmp(policy, FIRE_ALL) == 0)
		return MAX_FIRED;
	return strcmp(policy, SKIP) == 0 ? 0 : 1;
}

/*
 * Chooses what a schedule fires whose first tick, next_run_at, is due now.  A policy that
 * is not known (edited by hand) means fire_once.
 */
void
qml_misfire_choose(const char *policy, const QmlTimes *times, TimestampTz next_run_at,
				   TimestampTz now, QmlDueTicks *due)
{
	TimestampTz tick = next_run_at;
	int to_fire = MAX_FIRED;
	int missed = 0;
	int room = 16;

	Assert(next_run_at <= now);
	due->ticks = palloc(sizeof(QmlTick) * room);
	due->count = 0;
	do
	{
		TimestampTz following = TIMESTAMP_NOT_FINITE(tick) ? qml_times_next(times, now) :
															 qml_times_next(times, tick);
		bool late = is_late(tick, following, now);
		QmlTick *entry;

		if (due->count == 0 && late)
			to_fire = count_missed_firing(policy);
		if (to_fire == 0 && missed == MAX_MISSED)
		{
			due->ticks[due->count - 1].through = now;
			tick = qml_times_next(times, now);
			break;
		}
		if (due->count == room)
			due->ticks = repalloc(due->ticks, sizeof(QmlTick) * (room *= 2));
		entry = &due->ticks[due->count++];
		memset(entry, 0, sizeof(*entry));
		entry->at = tick;
		entry->through = QML_NO_TIME;
		if (to_fire > 0)
		{
			entry->outcome = late ? QML_TICK_LATE : QML_TICK_ON_TIME;
			to_fire--;
		}
		else
		{
			entry->outcome = QML_TICK_MISSED;
			missed++;
		}
		tick = following;
	} while (tick != QML_NO_TIME && tick <= now);
	due->next = tick;
	Assert(due->next == QML_NO_TIME || due->next > now);
}
