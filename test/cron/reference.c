/*
 * reference.c
 *		When cron expressions fire, worked out the slow way.
 *
 * Follows the rules at the head of src/core/cron.c to the letter and shares nothing with
 * the code there: the calendar is a list of days made by counting, and the next
 * instant is found by trying one after the other.  Only what cannot fire is jumped
 * over: the rest of a day that does not match, and the rest of a minute that does
 * not.
 */
#include "reference.h"

#include <err.h>
#include <stdlib.h>

#define DAY			 86400
#define FIRST_YEAR	 1799
#define LAST_YEAR	 2800
#define LONGEST_FOLD (2 * DAY)

typedef struct Day
{
	int16_t year;
	int8_t month;
	int8_t day;
	int8_t last; /* of the month */
	int8_t weekday;
} Day;

static Day days[(LAST_YEAR - FIRST_YEAR + 1) * 366];
static int64_t first_day; /* of days[], counted from 1970-01-01 */
static int64_t day_count;

static int
month_length(int year, int month)
{
	static const int lengths[] = {0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

	return month == 2 && leap ? 29 : lengths[month];
}

/* Makes the calendar.  1970-01-01 was a Thursday. */
void
reference_init(void)
{
	int64_t epoch = 0;

	day_count = 0;
	for (int year = FIRST_YEAR; year <= LAST_YEAR; year++)
	{
		for (int month = 1; month <= 12; month++)
		{
			int last = month_length(year, month);

			for (int day = 1; day <= last; day++)
			{
				if (year == 1970 && month == 1 && day == 1)
					epoch = day_count;
				days[day_count++] = (Day){.year = (int16_t) year,
										  .month = (int8_t) month,
										  .day = (int8_t) day,
										  .last = (int8_t) last};
			}
		}
	}
	first_day = -epoch;
	for (int64_t i = 0; i < day_count; i++)
		days[i].weekday = (int8_t) ((4 + (i - epoch) % 7 + 7) % 7);
}

/* Second of the day of a local time. */
static int
second_of_day(int64_t local)
{
	return (int) ((local % DAY + DAY) % DAY);
}

static const Day *
day_of(int64_t local)
{
	int64_t index = (local - second_of_day(local)) / DAY - first_day;

	if (index < 0 || index >= day_count)
		errx(1, "the calendar of the reference does not reach %lld", (long long) local);
	return &days[index];
}

static bool
is_workday(const Day *day)
{
	return day->weekday >= 1 && day->weekday <= 5;
}

/* Is this the last day from Monday to Friday of its month? */
static bool
is_last_workday(const Day *day)
{
	if (!is_workday(day))
		return false;
	for (const Day *later = day + 1; later->month == day->month; later++)
	{
		if (is_workday(later))
			return false;
	}
	return true;
}

/* Is this the day from Monday to Friday of its month that is nearest to day n? */
static bool
is_nearest_workday(const Day *day, int n)
{
	const Day *middle = day + (n - day->day);

	if (n > day->last || !is_workday(day))
		return false;
	for (int distance = 0;; distance++)
	{
		const Day *before = middle - distance;
		const Day *behind = middle + distance;

		if (before->month == day->month && is_workday(before))
			return before == day;
		if (behind->month == day->month && is_workday(behind))
			return behind == day;
	}
}

static bool
day_of_month_matches(const Want *want, const Day *day)
{
	if (want->day[day->day] || (want->last_day && day->day == day->last) ||
		(want->last_workday && is_last_workday(day)))
		return true;
	for (int n = 1; n <= 31; n++)
	{
		if (want->nearest[n] && is_nearest_workday(day, n))
			return true;
	}
	return false;
}

static bool
weekday_is_wanted(const Want *want, const Day *day, int weekday)
{
	return want->weekday[weekday] || want->nth[weekday][(day->day - 1) / 7 + 1] ||
		   (want->last_weekday[weekday] && day->day + 7 > day->last);
}

static bool
day_of_week_matches(const Want *want, const Day *day)
{
	return weekday_is_wanted(want, day, day->weekday) ||
		   (day->weekday == 0 && weekday_is_wanted(want, day, 7));
}

static bool
year_matches(const Want *want, int year)
{
	if (want->any_year)
		return true;
	return year >= QML_CRON_MIN_YEAR && year <= QML_CRON_MAX_YEAR && want->year[year];
}

static bool
day_matches(const Want *want, int64_t local)
{
	const Day *day = day_of(local);
	bool of_month, of_week;

	if (!year_matches(want, day->year) || !want->month[day->month])
		return false;
	of_month = day_of_month_matches(want, day);
	of_week = day_of_week_matches(want, day);
	return want->both_days ? of_month && of_week : of_month || of_week;
}

static bool
minute_matches(const Want *want, int64_t local)
{
	int second = second_of_day(local);

	return want->hour[second / 3600] && want->minute[second / 60 % 60];
}

static bool
local_matches(const Want *want, int64_t local)
{
	return minute_matches(want, local) && want->second[second_of_day(local) % 60] &&
		   day_matches(want, local);
}

/* The next local time that may match. */
static int64_t
next_candidate(const Want *want, int64_t local)
{
	int second = second_of_day(local);

	if (!day_matches(want, local))
		return local - second + DAY;
	if (!minute_matches(want, local))
		return local - second % 60 + 60;
	return local + 1;
}

static bool
matches_within(const Want *want, int64_t first, int64_t end)
{
	for (int64_t local = first; local < end; local = next_candidate(want, local))
	{
		if (local_matches(want, local))
			return true;
	}
	return false;
}

/* Did this local time occur in an earlier part of the zone's time too? */
static bool
occurred_before(const Zone *zone, size_t part, int64_t local)
{
	while (part-- > 0)
	{
		int64_t instant = local - zone->offset[part];
		int64_t until = zone_until(zone, part);

		if (instant >= zone->since[part] && instant < until)
			return true;
		if (until < instant - LONGEST_FOLD)
			return false;
	}
	return false;
}

Reason
reference_fires(const Want *want, const Zone *zone, int64_t instant)
{
	size_t part = zone_part(zone, instant);
	int64_t local = instant + zone->offset[part];

	if (want->fixed && part > 0 && instant == zone->since[part] &&
		matches_within(want, instant + zone->offset[part - 1], local))
		return REASON_GAP;
	if (!local_matches(want, local))
		return REASON_NONE;
	if (want->fixed && occurred_before(zone, part, local))
		return REASON_REPEATED;
	return REASON_MATCH;
}

/*
 * The least instant after `after`, up to `last`, at which the expression fires, or
 * QML_CRON_NEVER.
 */
int64_t
reference_next(const Want *want, const Zone *zone, int64_t after, int64_t last)
{
	int64_t instant = after + 1;

	while (instant <= last)
	{
		Reason reason = reference_fires(want, zone, instant);
		size_t part = zone_part(zone, instant);
		int32_t offset = zone->offset[part];
		int64_t next;

		if (reason == REASON_MATCH || reason == REASON_GAP)
			return instant;
		next = next_candidate(want, instant + offset) - offset;
		instant = next < zone_until(zone, part) ? next : zone_until(zone, part);
	}
	return QML_CRON_NEVER;
}
