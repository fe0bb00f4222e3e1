/*
 * fuzz.c
 *		Fuzz target for cron expressions and intervals: any bytes, and a zone made of them.
 *
 * An input is an expression, which is read as both, and, after a NUL byte, numbers (the least significant
 * byte first; missing bytes are 0):
 *
 *		flags (1)		bit 0: `after` may be any time of PostgreSQL
 *		after (8)
 *		offset (2)		from UTC, in units of 30 seconds, to 15 hours
 *		distance (2), offset (2)
 *						for each change of the zone: minutes since the change
 *						before it and four days, the new offset; the first is
 *						counted from ten days before the minute of `after`
 *
 * No zone ever had two changes within four days, and what would happen then is not
 * defined.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/interval.h"
#include "reference.h"

#define DAY			INT64_C(86400)
#define MAX_CHANGES 12
#define LONGEST		(QML_CRON_MAX_LENGTH + 20)
#define CLOSE_BY	(3 * DAY)

/* Where answers are checked against the reference; answers may lie 400 years off. */
#define FIRST_CHECKED (REFERENCE_FIRST + 400 * DAY)
#define LAST_CHECKED  INT64_C(12000000000) /* 2350 */

/* Where `after` may be otherwise: the times of PostgreSQL. */
#define FIRST_TIME INT64_C(-211813488000)
#define LAST_TIME  INT64_C(9224318015999)

/* Reads numbers from the input. */
typedef struct Source
{
	const uint8_t *data;
	size_t size;
} Source;

extern int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(condition) ((condition) ? (void) 0 : give_up(#condition, __LINE__))

static __attribute__((noreturn)) void
give_up(const char *condition, int line)
{
	fprintf(stderr, "fuzz.c:%d: does not hold: %s\n", line, condition);
	abort();
}

static uint64_t
take(Source *source, int bytes)
{
	uint64_t value = 0;

	for (int i = 0; i < bytes && source->size > 0; i++)
	{
		value |= (uint64_t) *source->data++ << 8 * i;
		source->size--;
	}
	return value;
}

static int32_t
take_offset(Source *source)
{
	return 30 * (int32_t) ((int16_t) take(source, 2) % 1801);
}

static int64_t
take_after(Source *source)
{
	bool any_time = take(source, 1) & 1;
	int64_t value = (int64_t) take(source, 8);
	int64_t first = any_time ? FIRST_TIME : FIRST_CHECKED;
	int64_t last = any_time ? LAST_TIME : LAST_CHECKED;

	if (value >= first && value <= last)
		return value;
	return first + (int64_t) ((uint64_t) value % (uint64_t) (last - first + 1));
}

static void
take_zone(Source *source, int64_t after, Zone *zone)
{
	int64_t since = after - 10 * DAY - (after % 60 + 60) % 60;

	zone_init(zone, "made of the input");
	zone_add(zone, INT64_MIN, take_offset(source));
	for (int i = 0; i < MAX_CHANGES && source->size > 0; i++)
	{
		since += 4 * DAY + 60 * (int64_t) take(source, 2);
		zone_add(zone, since, take_offset(source));
	}
}

static bool
is_field(const char *name)
{
	static const char *const names[] = {"second", "minute",		 "hour", "day of month",
										"month",  "day of week", "year"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
	{
		if (strcmp(name, names[i]) == 0)
			return true;
	}
	return false;
}

static void
check_error(const char *expression, const QmlCronError *error)
{
	REQUIRE(error->field == NULL || is_field(error->field));
	REQUIRE(memchr(error->text, '\0', sizeof(error->text)) != NULL);
	REQUIRE(error->position >= 0 && error->position <= (int) strlen(expression));
	REQUIRE(strncmp(expression + error->position, error->text, strlen(error->text)) == 0);
	REQUIRE(memchr(error->reason, '\0', sizeof(error->reason)) != NULL);
	REQUIRE(error->field == NULL || error->reason[0] != '\0');
	REQUIRE(error->field == NULL || error->text[0] != '\0');
	REQUIRE(error->allowed != NULL && error->allowed[0] != '\0');
}

/* Sets flags for the bits of a mask, and requires that there are no others. */
static void
spread(bool *flags, uint64_t mask, int first, int last)
{
	for (int i = 0; i < 64; i++)
	{
		if (mask >> i & 1)
		{
			REQUIRE(i >= first && i <= last);
			flags[i] = true;
		}
	}
}

static void
spread_years(bool *flags, const QmlCron *cron)
{
	for (int year = QML_CRON_MIN_YEAR; year < QML_CRON_MIN_YEAR + 256; year++)
	{
		int i = year - QML_CRON_MIN_YEAR;

		if (cron->years[i / 64] >> i % 64 & 1)
		{
			REQUIRE(year <= QML_CRON_MAX_YEAR);
			flags[year] = true;
		}
	}
}

static void
want_from(const QmlCron *cron, Want *want)
{
	memset(want, 0, sizeof(*want));
	spread(want->second, cron->seconds, 0, 59);
	spread(want->minute, cron->minutes, 0, 59);
	spread(want->hour, cron->hours, 0, 23);
	spread(want->day, cron->days, 1, 31);
	spread(want->nearest, cron->nearest_days, 1, 31);
	want->last_day = cron->last_day;
	want->last_workday = cron->last_workday;
	spread(want->month, cron->months, 1, 12);
	spread(want->weekday, cron->weekdays, 0, 6);
	for (int nth = 0; nth <= 5; nth++)
	{
		bool weekdays[7] = {false};

		spread(weekdays, cron->nth_weekdays[nth], nth == 0 ? 7 : 0, 6);
		for (int weekday = 0; weekday < 7; weekday++)
			want->nth[weekday][nth] = weekdays[weekday];
	}
	spread(want->last_weekday, cron->last_weekdays, 0, 6);
	want->any_year = cron->any_year;
	spread_years(want->year, cron);
	want->both_days = cron->any_day || cron->any_weekday;
	want->fixed = !cron->elapsed;
}

/* Every field of an expression that was accepted asks for something. */
static void
check_not_empty(const QmlCron *cron)
{
	unsigned nth = 0;

	for (int i = 1; i <= 5; i++)
		nth |= cron->nth_weekdays[i];
	REQUIRE(cron->seconds != 0 && cron->minutes != 0 && cron->hours != 0 && cron->months != 0);
	REQUIRE(cron->days != 0 || cron->nearest_days != 0 || cron->last_day || cron->last_workday);
	REQUIRE(cron->weekdays != 0 || nth != 0 || cron->last_weekdays != 0);
	REQUIRE(cron->any_year || cron->years[0] != 0 || cron->years[1] != 0 || cron->years[2] != 0 ||
			cron->years[3] != 0);
}

static char
other_case(char c)
{
	bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');

	return letter ? (char) (c ^ 0x20) : c;
}

/* The same expression in the other case must give the same. */
static void
check_other_case(const char *expression, bool valid, const Want *want)
{
	char other[LONGEST + 1];
	QmlCron cron;
	QmlCronError error;
	Want other_want;
	size_t length = strlen(expression);

	for (size_t i = 0; i <= length; i++)
		other[i] = other_case(expression[i]);
	REQUIRE(qml_cron_parse(other, &cron, &error) == valid);
	if (!valid)
		return;
	want_from(&cron, &other_want);
	REQUIRE(memcmp(want, &other_want, sizeof(other_want)) == 0);
}

/* Whether the text is an interval must not depend on case; the ticks of one are even. */
static void
check_interval(const char *expression, int64_t after)
{
	char other[LONGEST + 1];
	QmlCronError error;
	int64_t seconds;
	int64_t other_seconds;
	int64_t next;
	size_t length = strlen(expression);
	bool valid;

	memset(&error, 0x55, sizeof(error));
	valid = qml_interval_parse(expression, &seconds, &error);
	for (size_t i = 0; i <= length; i++)
		other[i] = other_case(expression[i]);
	if (!valid)
		check_error(expression, &error);
	REQUIRE(!valid || qml_interval_is_meant(expression));
	REQUIRE(qml_interval_is_meant(other) == qml_interval_is_meant(expression));
	REQUIRE(qml_interval_parse(other, &other_seconds, &error) == valid);
	if (!valid)
		return;
	REQUIRE(other_seconds == seconds && seconds >= 1 && seconds <= QML_INTERVAL_MAX);
	REQUIRE(qml_interval_next(after, seconds, after) == after + seconds);
	next = qml_interval_next(0, seconds, after);
	REQUIRE(next > after && next % seconds == 0 && next >= seconds);
	REQUIRE(after < 0 || next - seconds <= after);
	REQUIRE(qml_interval_next(0, seconds, next - 1) == next);
}

/* The answer must fire, and nothing between it and `after`, near either of them. */
static void
check_answer(const Want *want, const Zone *zone, int64_t after, int64_t next)
{
	int64_t end = after + CLOSE_BY;
	Reason reason;

	if (next == QML_CRON_NEVER)
	{
		REQUIRE(reference_next(want, zone, after, end) == QML_CRON_NEVER);
		return;
	}
	reason = reference_fires(want, zone, next);
	REQUIRE(reason == REASON_MATCH || reason == REASON_GAP);
	if (next <= end)
		REQUIRE(reference_next(want, zone, after, next) == next);
	else
	{
		REQUIRE(reference_next(want, zone, after, end) == QML_CRON_NEVER);
		if (next - CLOSE_BY > end)
			end = next - CLOSE_BY;
		REQUIRE(reference_next(want, zone, end, next) == next);
	}
}

/*
 * So often in so many days, and some hours: clocks may change.  If they pass over the ticks of a
 * day, those of the next one are needed, which is no farther away than all days together.
 */
static void
check_days(const QmlCron *cron, const QmlCronZone *zone, int64_t after)
{
	int days = qml_cron_days_for(cron, 10);
	int64_t instant = after;

	REQUIRE(days >= 1 && days <= QML_CRON_MANY_DAYS);
	/* Not where the fuzzer's clocks change by more than the longest day has. */
	if (days == QML_CRON_MANY_DAYS || cron->elapsed)
		return;
	for (int i = 0; i < 10; i++)
	{
		instant = qml_cron_next_after(cron, zone, instant);
		REQUIRE(instant != QML_CRON_NEVER);
	}
	REQUIRE(instant - after <= (2 * days + 4) * DAY);
}

static void
check_times(const QmlCron *cron, const Want *want, const Zone *zone, int64_t after)
{
	bool checked = after >= FIRST_CHECKED && after <= LAST_CHECKED;

	for (int i = 0; i < 3; i++)
	{
		int64_t next = qml_cron_next_after(cron, &zone->base, after);

		if (checked)
			check_answer(want, zone, after, next);
		if (next == QML_CRON_NEVER)
			return;
		REQUIRE(next > after);
		REQUIRE(qml_cron_next_after(cron, &zone->base, next - 1) == next);
		REQUIRE(qml_cron_next_after(cron, &zone->base, after + (next - after) / 2) >= next);
		checked = checked && next <= LAST_CHECKED;
		after = next;
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool ready;
	char expression[LONGEST + 1];
	Source source = {data, size};
	size_t length = 0;
	QmlCron cron;
	QmlCronError error;
	Want want;
	Zone zone;
	int64_t after;
	bool valid;

	if (!ready)
		reference_init();
	ready = true;
	while (length < LONGEST && (expression[length] = (char) take(&source, 1)) != '\0')
		length++;
	expression[length] = '\0';
	memset(&error, 0x55, sizeof(error));
	check_interval(expression, (int64_t) length * 12345678 - 7);
	valid = qml_cron_parse(expression, &cron, &error);
	if (!valid)
	{
		check_error(expression, &error);
		check_other_case(expression, false, NULL);
		return 0;
	}
	REQUIRE(length <= QML_CRON_MAX_LENGTH);
	want_from(&cron, &want);
	check_not_empty(&cron);
	check_other_case(expression, true, &want);
	after = take_after(&source);
	take_zone(&source, after, &zone);
	check_times(&cron, &want, &zone, after);
	if (after >= FIRST_CHECKED && after <= LAST_CHECKED)
		check_days(&cron, &zone.base, after);
	zone_free(&zone);
	return 0;
}
