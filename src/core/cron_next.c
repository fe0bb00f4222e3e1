/*
 * cron_next.c
 *		Cron expressions: the next time at which one fires.
 *
 * The rules are at the head of core/cron.c.
 *
 * Nothing here can loop for long: the Gregorian calendar repeats every 400 years,
 * so that a day which is not found within them is never found.
 */
#include "core/cron.h"

#define SECS_PER_DAY INT64_C(86400)

/* Months after which the calendar repeats: 400 years. */
#define CALENDAR_MONTHS 4800

/*
 * Where the walk over offsets begins before `after`: no local time occurs again
 * later than that.
 */
#define LOOK_BACK (2 * SECS_PER_DAY)

/* The most days from one day of the week that is in the set to the next. */
static int
longest_gap(unsigned weekdays)
{
	int longest = 0;
	int gap = 0;

	/* Two weeks, so that the gap over the weekend is seen whole. */
	for (int day = 0; day < 14; day++)
	{
		gap++;
		if (weekdays >> day % 7 & 1)
		{
			if (gap > longest)
				longest = gap;
			gap = 0;
		}
	}
	return longest;
}

/* How often it fires on a day on which it fires, and no clock changes. */
int
qml_cron_ticks_a_day(const QmlCron *cron)
{
	return __builtin_popcountll(cron->seconds) * __builtin_popcountll(cron->minutes) *
		   __builtin_popcount(cron->hours);
}

/*
 * In how many days at most the expression fires so often: a few hours more or less where
 * clocks change, and up to the next day that it fires on if they pass over the ticks of one.  QML_CRON_MANY_DAYS if that depends on more than days of the week and times.
 */
int
qml_cron_days_for(const QmlCron *cron, int ticks)
{
	int a_day = qml_cron_ticks_a_day(cron);

	if (cron->weekdays == 0 || cron->months != 0x1ffe || !cron->any_year ||
		(cron->any_day && cron->days != ~UINT32_C(1)) ||
		(cron->any_weekday && cron->days != ~UINT32_C(1)))
		return QML_CRON_MANY_DAYS;
	return longest_gap(cron->weekdays) * ((ticks + a_day - 1) / a_day);
}

/* A day of the calendar; the month counts from year 0 on. */
typedef struct Day
{
	int64_t month; /* year * 12 + month - 1 */
	int day;
} Day;

static int64_t
floor_div(int64_t a, int64_t b)
{
	return a / b - (a % b < 0);
}

/* Days from 1970-01-01 to the first day of the month. */
static int64_t
month_start(int64_t month)
{
	/* Years from March on, so that the leap day is the last of a year. */
	int64_t year = floor_div(month - 2, 12);
	int64_t from_march = month - 2 - year * 12;
	int64_t cycle = floor_div(year, 400);
	int64_t of_cycle = year - cycle * 400;

	return cycle * 146097 + of_cycle * 365 + of_cycle / 4 - of_cycle / 100 +
		   (153 * from_march + 2) / 5 - 719468;
}

static Day
day_of(int64_t days)
{
	int64_t shifted = days + 719468; /* from 0000-03-01 */
	int64_t cycle = floor_div(shifted, 146097);
	int64_t of_cycle = shifted - cycle * 146097;
	int64_t year = (of_cycle - of_cycle / 1460 + of_cycle / 36524 - of_cycle / 146096) / 365;
	int64_t of_year = of_cycle - (365 * year + year / 4 - year / 100);
	int64_t from_march = (5 * of_year + 2) / 153;

	return (Day){.month = (cycle * 400 + year) * 12 + from_march + 2,
				 .day = (int) (of_year - (153 * from_march + 2) / 5 + 1)};
}

/* Days 1 to 31 whose day of the week is in the set: the week repeated five times. */
static uint32_t
days_on(unsigned weekdays, int first_weekday)
{
	uint64_t week = (weekdays >> first_weekday | weekdays << (7 - first_weekday)) & 0x7f;

	return (uint32_t) (week * UINT64_C(0x10204081) << 1);
}

/* Monday to Friday. */
#define WORKDAYS 0x3eu

/* The workday nearest to a day, in the same month. */
static int
nearest_workday(int day, int length, uint32_t workdays)
{
	static const int distances[] = {0, -1, 1, -2, 2};

	for (int i = 0; i < 5; i++)
	{
		int candidate = day + distances[i];

		if (candidate >= 1 && candidate <= length && (workdays & UINT32_C(1) << candidate))
			return candidate;
	}
	return 0; /* cannot happen: at most two days in a row are none */
}

/* Days that the field day of month names in a month. */
static uint32_t
days_by_month(const QmlCron *cron, int length, int first_weekday)
{
	uint32_t workdays = days_on(WORKDAYS, first_weekday);
	uint32_t days = cron->days;

	if (cron->last_day)
		days |= UINT32_C(1) << length;
	if (cron->last_workday)
	{
		int day = length;

		while (!(workdays & UINT32_C(1) << day))
			day--;
		days |= UINT32_C(1) << day;
	}
	for (int day = 1; day <= length && cron->nearest_days >> day; day++)
	{
		if (cron->nearest_days & UINT32_C(1) << day)
			days |= UINT32_C(1) << nearest_workday(day, length, workdays);
	}
	return days;
}

/* Days that the field day of week names in a month. */
static uint32_t
days_by_week(const QmlCron *cron, int length, int first_weekday)
{
	uint32_t days = days_on(cron->weekdays, first_weekday);

	for (int nth = 1; nth <= 5; nth++)
	{
		if (cron->nth_weekdays[nth])
			days |= days_on(cron->nth_weekdays[nth], first_weekday) & UINT32_C(0x7f)
																		  << (7 * nth - 6);
	}
	if (cron->last_weekdays)
		days |= days_on(cron->last_weekdays, first_weekday) & UINT32_C(0x7f) << (length - 6);
	return days;
}

static bool
has_year(const QmlCron *cron, int64_t year)
{
	if (cron->any_year)
		return true;
	return year >= QML_CRON_MIN_YEAR && year <= QML_CRON_MAX_YEAR &&
		   (cron->years[(year - QML_CRON_MIN_YEAR) / 64] >> (year - QML_CRON_MIN_YEAR) % 64 & 1);
}

/* The days of a month that match, as bits 1 to 31. */
static uint32_t
days_of(const QmlCron *cron, int64_t month)
{
	int64_t year = floor_div(month, 12);
	int64_t start;
	int length;
	int first_weekday;
	uint32_t by_month;
	uint32_t by_week;
	uint32_t days;

	if (!(cron->months & 1 << (month - year * 12 + 1)) || !has_year(cron, year))
		return 0;
	start = month_start(month);
	length = (int) (month_start(month + 1) - start);
	/* 1970-01-01 was a Thursday. */
	first_weekday = (int) (start + 4 - floor_div(start + 4, 7) * 7);
	by_month = days_by_month(cron, length, first_weekday);
	by_week = days_by_week(cron, length, first_weekday);
	days = cron->any_day || cron->any_weekday ? by_month & by_week : by_month | by_week;
	/* Bits 1 to length. */
	return days & (UINT32_C(0xffffffff) >> (31 - length)) & ~UINT32_C(1);
}

/* The lowest value of a set that is at least `from`; -1: none. */
static int
next_in(uint64_t set, int from)
{
	if (from > 63 || set >> from == 0)
		return -1;
	return from + __builtin_ctzll(set >> from);
}

/* The first second of a day, from `from` on, that matches; -1: none. */
static int
next_second(const QmlCron *cron, int from)
{
	int hour = from / 3600;
	int minute = from / 60 % 60;
	int second = next_in(cron->seconds, from % 60);

	if (hour < 24 && cron->hours >> hour & 1)
	{
		if (second >= 0 && cron->minutes >> minute & 1)
			return hour * 3600 + minute * 60 + second;
		minute = next_in(cron->minutes, minute + 1);
		if (minute >= 0)
			return hour * 3600 + minute * 60 + next_in(cron->seconds, 0);
	}
	hour = next_in(cron->hours, hour + 1);
	if (hour < 0)
		return -1;
	return hour * 3600 + next_in(cron->minutes, 0) * 60 + next_in(cron->seconds, 0);
}

/*
 * The least matching local time that is at least `from`, in seconds as if local
 * time were UTC.
 */
static int64_t
next_local(const QmlCron *cron, int64_t from)
{
	int64_t days = floor_div(from, SECS_PER_DAY);
	int second = next_second(cron, (int) (from - days * SECS_PER_DAY));
	Day first = second >= 0 ? day_of(days) : day_of(days + 1);
	int day = first.day;

	/* One month more than the calendar, because the first is not searched whole. */
	for (int64_t month = first.month; month <= first.month + CALENDAR_MONTHS; month++)
	{
		int64_t found;

		day = next_in(days_of(cron, month), day);
		if (day >= 0)
		{
			found = month_start(month) + day - 1;
			if (found != days || second < 0)
				second = next_second(cron, 0);
			return found * SECS_PER_DAY + second;
		}
		day = 1;
	}
	return QML_CRON_NEVER;
}

/* The same, remembering what it found: it is asked again from later times. */
typedef struct Search
{
	const QmlCron *cron;
	int64_t from;
	int64_t found;
} Search;

static int64_t
search_local(Search *search, int64_t from)
{
	if (from < search->from || (search->found != QML_CRON_NEVER && from > search->found))
	{
		search->from = from;
		search->found = next_local(search->cron, from);
	}
	return search->found;
}

/*
 * Walks over the spans of constant offset.  `seen` is the local time up to which
 * all have occurred: in a span that begins with a fold those below it come for
 * the second time, and one that begins above it follows a gap.
 */
int64_t
qml_cron_next_after(const QmlCron *cron, const QmlCronZone *zone, int64_t after)
{
	int64_t start = after - LOOK_BACK;
	int64_t seen = QML_CRON_NEVER;
	Search search;

	search.cron = cron;
	search.from = after - LOOK_BACK - 2 * SECS_PER_DAY;
	search.found = next_local(cron, search.from);
	if (search.found == QML_CRON_NEVER)
		return QML_CRON_NEVER;
	for (;;)
	{
		int32_t offset;
		int64_t until;
		int64_t from;
		int64_t found;

		zone->at(zone, start, &offset, &until);
		from = (start > after ? start : after + 1) + offset;
		if (!cron->elapsed && seen != QML_CRON_NEVER)
		{
			/* A gap: what it skipped fires at its end. */
			if (start > after && start + offset > seen)
			{
				found = search_local(&search, seen);
				if (found == QML_CRON_NEVER)
					return QML_CRON_NEVER;
				if (found < start + offset)
					return start;
			}
			/* A fold: what occurred before does not fire again. */
			if (from < seen)
				from = seen;
		}
		/* A span that ends before `after` only moves `seen`. */
		if (until > after)
		{
			found = search_local(&search, from);
			/* A fold soon after may bring back a local time. */
			if (found == QML_CRON_NEVER &&
				(!cron->elapsed || until == INT64_MAX || until > after + LOOK_BACK))
				return QML_CRON_NEVER;
			if (found != QML_CRON_NEVER && (until == INT64_MAX || found < until + offset))
				return found - offset;
		}
		if (until + offset > seen)
			seen = until + offset;
		start = until;
	}
}
