/*
 * times.c
 *		The times of a schedule: a cron expression in a time zone, or an interval.
 *
 * Both stand in the column "cron" of a schedule.  An interval is counted from the anchor,
 * the second in which the schedule was defined or last got other times.  It is stored with
 * the schedule, so that the ticks do not depend on when one of them fired.
 *
 * These functions only compute.
 */
#include "postgres.h"

#include "core/interval.h"
#include "qml.h"
#include "schedule/times.h"

/* Parses an expression or an interval; false, with the reason, when it is neither. */
bool
qml_times_parse(const char *expression, QmlTimes *times, QmlCronError *error)
{
	int64_t seconds;

	times->interval = 0;
	times->anchor = QML_NO_TIME;
	if (!qml_interval_is_meant(expression))
		return qml_cron_parse(expression, &times->cron, error);
	if (!qml_interval_parse(expression, &seconds, error))
		return false;
	times->interval = seconds;
	return true;
}

/* The anchor of a schedule that gets these times now; QML_NO_TIME: they need none. */
TimestampTz
qml_times_anchor(const char *expression)
{
	TimestampTz now = GetCurrentTimestamp();

	/* Whole seconds, as the ticks of cron expressions are. */
	return qml_interval_is_meant(expression) ? now - now % USECS_PER_SEC : QML_NO_TIME;
}

/* The next time after `after` at which it fires; QML_NO_TIME: never again. */
TimestampTz
qml_times_next(const QmlTimes *times, TimestampTz after)
{
	int64 step = times->interval * USECS_PER_SEC;
	TimestampTz last = END_TIMESTAMP - 2 * step;
	TimestampTz anchor = times->anchor;
	TimestampTz next;

	if (times->interval == 0)
		return qml_timezone_next(&times->cron, &times->zone, after);
	/* Beyond the range of timestamps there is no next time. */
	if (after >= last)
		return QML_NO_TIME;
	after = Max(after, MIN_TIMESTAMP);
	/* In a row that was edited by hand it may be any time: then it is that asked for. */
	if (anchor < 0 || anchor >= last)
		anchor = after;
	next = qml_interval_next(anchor, step, after);
	Assert(next > after);
	return next < END_TIMESTAMP ? next : QML_NO_TIME;
}

/*
 * In how many days one that fires so often on each of its days does so again: counted from a
 * time of such a day, or shortly after it.
 */
static int
days_to_next_day(const QmlTimes *times, TimestampTz from)
{
	/* The tick of tomorrow at this time, if there is one: whoever fires may be a little late. */
	TimestampTz next = qml_times_next(times, from + USECS_PER_DAY - USECS_PER_MINUTE);
	int64 days;

	if (next == QML_NO_TIME)
		return 1;
	days = next / USECS_PER_DAY - from / USECS_PER_DAY;
	/* After a pause, to the end of that day: its zone may be behind UTC. */
	return (int) Min(days <= 1 ? 1 : days + 1, QML_CRON_MANY_DAYS);
}

/* In how many days after a time it fires so often, about, or at most; see core/cron_next.c. */
int
qml_times_days_for(const QmlTimes *times, int ticks, TimestampTz from)
{
	int64 days;

	if (times->interval == 0)
	{
		days = qml_cron_days_for(&times->cron, ticks);
		if (days > 1 && qml_cron_ticks_a_day(&times->cron) >= ticks)
			days = Min(days, days_to_next_day(times, from));
		return (int) days;
	}
	days = (times->interval * ticks + SECS_PER_DAY - 1) / SECS_PER_DAY;
	return (int) Min(days, QML_CRON_MANY_DAYS);
}
