/*
 * compare.c
 *		Compares qml_cron_next_after() with the reference, over random expressions.
 *
 * Expressions are made together with what they want, so that the parser is tested
 * too.  Most of them are asked about from shortly before or after a change of the
 * zone, and prefer the hours and days around it.  Everything follows from the
 * seed, which is printed; the zones are taken in turn.
 *
 * Checked besides: what the reference does not find within its horizon must lie
 * beyond it and fire; times only grow; and no call takes long.
 */
#include <err.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "reference.h"

#define DAY				86400
#define DEFAULT_SEED	1
#define DEFAULT_COUNT	400000
#define ASKS			3 /* of an expression, each from the answer before */
#define HORIZON_DAYS	800
#define FIRST_AFTER		INT64_C(0)
#define LAST_AFTER		INT64_C(2240524800) /* 2041-01-01 */
#define MAX_NANOSECONDS 1000000
#define REPEATS			5

/* The expression under test, and the wall clock that it is made for. */
typedef struct Trial
{
	const Zone *zone;
	int64_t after;
	struct tm near;
	bool focused; /* made to fire close by */
	char text[QML_CRON_MAX_LENGTH + 1];
	Want want;
	bool day_star;
	bool weekday_star;
} Trial;

/* A field with plain values. */
typedef struct Plain
{
	int low;
	int high;
	int last; /* of "*" and "a/n" */
	int near; /* preferred, in `focus` of 100 cases */
	int focus;
	const char *const *names;
	int first_name;
} Plain;

/* How often each kind of answer was compared. */
typedef struct Tally
{
	long matches;
	long gaps;
	long repeats;
	long beyond;
	long never;
} Tally;

/* The call that took longest. */
typedef struct Slowest
{
	Trial trial;
	int64_t after;
	long nanoseconds;
} Slowest;

static const char *const month_names[] = {"JAN", "FEB", "MAR", "APR", "MAY", "JUN",
										  "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"};
static const char *const weekday_names[] = {"SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"};

static uint64_t state;

/* splitmix64 */
static uint64_t
random_bits(void)
{
	uint64_t bits = state += UINT64_C(0x9e3779b97f4a7c15);

	bits = (bits ^ bits >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	bits = (bits ^ bits >> 27) * UINT64_C(0x94d049bb133111eb);
	return bits ^ bits >> 31;
}

static int64_t
random_between(int64_t low, int64_t high)
{
	return low + (int64_t) (random_bits() % (uint64_t) (high - low + 1));
}

static bool
chance(int percent)
{
	return random_between(1, 100) <= percent;
}

static __attribute__((format(printf, 2, 3))) void
append(char *text, const char *format, ...)
{
	size_t length = strlen(text);
	va_list args;

	va_start(args, format);
	length += (size_t) vsnprintf(text + length, QML_CRON_MAX_LENGTH + 1 - length, format, args);
	va_end(args);
	if (length > QML_CRON_MAX_LENGTH)
		errx(1, "the expression became too long: %s", text);
}

/* Writes a value by number or name. */
static void
append_value(char *text, const Plain *plain, int value)
{
	if (plain->names != NULL && chance(50))
		append(text, "%s", plain->names[value - plain->first_name]);
	else
		append(text, chance(10) ? "%02d" : "%d", value);
}

static int
pick_value(const Plain *plain)
{
	if (chance(plain->focus))
		return plain->near;
	return (int) random_between(plain->low, plain->high);
}

static void
add_stepped(bool *set, int from, int to, int step)
{
	for (int value = from; value <= to; value += step)
		set[value] = true;
}

/* Sunday ends a range by either of its numbers or by name, but begins one as 0. */
static void
add_range(char *text, bool *set, const Plain *plain)
{
	int from = (int) random_between(plain->low, plain->last);
	int to = (int) random_between(from, plain->high);
	int step = 1;

	if (chance(plain->focus))
	{
		from = plain->near > plain->low ? plain->near - 1 : plain->low;
		to = (int) random_between(from, plain->high);
	}
	append_value(text, plain, from);
	append(text, "-");
	if (plain->names == weekday_names && from == 0 && to == 7)
		append(text, "7");
	else
		append_value(text, plain, to);
	if (chance(30))
	{
		step = (int) random_between(1, chance(80) ? to - from + 1 : plain->high);
		if (step > plain->high)
			step = plain->high;
		append(text, "/%d", step);
	}
	add_stepped(set, from, to, step);
}

/* One element of a list. */
static void
add_plain_element(char *text, bool *set, const Plain *plain)
{
	int kind = (int) random_between(1, 100);
	int value = pick_value(plain);

	if (kind <= 60)
	{
		append_value(text, plain, value);
		set[value] = true;
	}
	else if (kind <= 85)
		add_range(text, set, plain);
	else
	{
		int step = (int) random_between(1, plain->high);

		if (value > plain->last)
			value = plain->last;
		append_value(text, plain, value);
		append(text, "/%d", step);
		add_stepped(set, value, plain->last, step);
	}
}

/* "*", perhaps with a step. */
static void
add_star(char *text, bool *set, const Plain *plain)
{
	int step = 1;

	append(text, "*");
	if (chance(50))
	{
		step = (int) random_between(1, chance(70) ? (plain->high + 3) / 4 : plain->high);
		append(text, "/%d", step);
	}
	add_stepped(set, plain->low, plain->last, step);
}

/* A field with plain values; true if it begins with a star. */
static bool
add_plain(char *text, bool *set, const Plain *plain, int star_percent)
{
	int elements = chance(60) ? 1 : (int) random_between(1, 4);
	bool star = chance(star_percent);

	for (int i = 0; i < elements; i++)
	{
		if (i > 0)
			append(text, ",");
		if (i == 0 ? star : chance(3))
			add_star(text, set, plain);
		else
			add_plain_element(text, set, plain);
	}
	return star;
}

static int
focus(const Trial *trial)
{
	return trial->focused ? 95 : 60;
}

static void
add_day(Trial *trial)
{
	const Plain plain = {1, 31, 31, trial->near.tm_mday, focus(trial), NULL, 0};
	Want *want = &trial->want;
	int n = pick_value(&plain);
	int kind = (int) random_between(1, 100);

	if (kind <= 15)
	{
		append(trial->text, "?");
		trial->day_star = true;
		add_stepped(want->day, 1, 31, 1);
		return;
	}
	if (kind <= 75)
	{
		trial->day_star = add_plain(trial->text, want->day, &plain, trial->focused ? 80 : 60);
		return;
	}
	if (kind <= 83)
	{
		append(trial->text, "L");
		want->last_day = true;
	}
	else if (kind <= 91)
	{
		append(trial->text, "LW");
		want->last_workday = true;
	}
	else
	{
		append(trial->text, "%dW", n);
		want->nearest[n] = true;
	}
	if (chance(30))
	{
		append(trial->text, ",");
		add_plain_element(trial->text, want->day, &plain);
	}
}

static void
add_weekday(Trial *trial)
{
	const Plain plain = {0, 7, 6, trial->near.tm_wday, focus(trial), weekday_names, 0};
	Want *want = &trial->want;
	int weekday = pick_value(&plain);
	int kind = (int) random_between(1, 100);

	if (kind <= 15)
	{
		append(trial->text, "?");
		trial->weekday_star = true;
		add_stepped(want->weekday, 0, 6, 1);
		return;
	}
	if (kind <= 80)
	{
		trial->weekday_star = add_plain(trial->text, want->weekday, &plain,
										trial->focused ? 80 : 60);
		return;
	}
	append_value(trial->text, &plain, weekday);
	if (kind <= 90)
	{
		int nth = chance(50) ? (trial->near.tm_mday - 1) / 7 + 1 : (int) random_between(1, 5);

		append(trial->text, "#%d", nth);
		want->nth[weekday][nth] = true;
	}
	else
	{
		append(trial->text, "L");
		want->last_weekday[weekday] = true;
	}
	if (chance(30))
	{
		append(trial->text, ",");
		add_plain_element(trial->text, want->weekday, &plain);
	}
}

static void
add_blanks(char *text)
{
	append(text, chance(90) ? " " : chance(50) ? "\t" : " \t  ");
}

static void
add_second(Trial *trial)
{
	const Plain plain = {0, 59, 59, 0, 50, NULL, 0};

	add_plain(trial->text, trial->want.second, &plain, 15);
	add_blanks(trial->text);
}

static void
add_year(Trial *trial)
{
	Want *want = &trial->want;
	const Plain plain = {.low = QML_CRON_MIN_YEAR,
						 .high = QML_CRON_MAX_YEAR,
						 .last = QML_CRON_MAX_YEAR,
						 .near = trial->near.tm_year + 1900,
						 .focus = focus(trial)};

	add_blanks(trial->text);
	want->any_year = false;
	add_plain(trial->text, want->year, &plain, 40);
}

/* Upper and lower case are the same. */
static void
mix_case(char *text)
{
	for (; *text != '\0'; text++)
	{
		if (*text >= 'A' && *text <= 'Z' && chance(40))
			*text = (char) (*text - 'A' + 'a');
	}
}

static void
make_expression(Trial *trial)
{
	const Plain minute = {0, 59, 59, trial->near.tm_min, focus(trial), NULL, 0};
	const Plain hour = {0, 23, 23, trial->near.tm_hour, focus(trial), NULL, 0};
	const Plain month = {1, 12, 12, trial->near.tm_mon + 1, focus(trial), month_names, 1};
	Want *want = &trial->want;
	bool with_year = chance(10);
	int star_percent = trial->focused ? 10 : 25;

	memset(want, 0, sizeof(*want));
	trial->text[0] = '\0';
	want->any_year = true;
	if (chance(5))
		add_blanks(trial->text);
	if (with_year || chance(30))
		add_second(trial);
	else
		want->second[0] = true;
	want->fixed = !add_plain(trial->text, want->minute, &minute, star_percent);
	add_blanks(trial->text);
	if (add_plain(trial->text, want->hour, &hour, star_percent))
		want->fixed = false;
	add_blanks(trial->text);
	trial->day_star = trial->weekday_star = false;
	add_day(trial);
	add_blanks(trial->text);
	add_plain(trial->text, want->month, &month, 70);
	add_blanks(trial->text);
	add_weekday(trial);
	if (with_year)
		add_year(trial);
	want->both_days = trial->day_star || trial->weekday_star;
	mix_case(trial->text);
}

/* A change of offset at which a trial may be; false: the zone has none. */
static bool
pick_change(const Zone *zone, size_t *part)
{
	size_t first = zone_part(zone, FIRST_AFTER) + 1;
	size_t last = zone_part(zone, LAST_AFTER);

	if (first > last)
		return false;
	*part = (size_t) random_between((int64_t) first, (int64_t) last);
	return true;
}

static void
make_trial(Trial *trial, const Zone *zone)
{
	size_t part;
	time_t local;

	trial->zone = zone;
	if (chance(75) && pick_change(zone, &part))
	{
		int64_t change = zone->since[part];

		trial->focused = chance(70);
		trial->after = change + random_between(-2 * DAY, trial->focused ? 0 : 2 * DAY);
		if (chance(20))
			trial->after = change + random_between(-2, 2);
		/* By the clock from before, so that gaps are met as well as folds. */
		local = change + zone->offset[part - 1] + random_between(-90 * 60, 90 * 60);
	}
	else
	{
		trial->focused = false;
		trial->after = random_between(FIRST_AFTER, LAST_AFTER);
		local = trial->after + zone->offset[zone_part(zone, trial->after)];
	}
	gmtime_r(&local, &trial->near);
	make_expression(trial);
}

static __attribute__((noreturn)) void
mismatch(const Trial *trial, int64_t after, int64_t got, int64_t wanted, const char *what)
{
	printf("%s\nexpression: \"%s\"\nzone: %s\nafter: %lld\n", what, trial->text, trial->zone->name,
		   (long long) after);
	printf("qml_cron_next_after: %lld\nreference: %lld\n(%lld is never)\n", (long long) got,
		   (long long) wanted, (long long) QML_CRON_NEVER);
	exit(1);
}

static long
timed_next(const Trial *trial, const QmlCron *cron, int64_t after, int64_t *next)
{
	struct timespec start, end;

	clock_gettime(CLOCK_MONOTONIC, &start);
	*next = qml_cron_next_after(cron, &trial->zone->base, after);
	clock_gettime(CLOCK_MONOTONIC, &end);
	return (long) (end.tv_sec - start.tv_sec) * 1000000000 + (end.tv_nsec - start.tv_nsec);
}

/* Compares one call, and returns what it found. */
static int64_t
compare(const Trial *trial, const QmlCron *cron, int64_t after, Tally *tally, Slowest *slowest)
{
	int64_t last = after + (int64_t) HORIZON_DAYS * DAY;
	int64_t wanted = reference_next(&trial->want, trial->zone, after, last);
	int64_t next;
	long nanoseconds = timed_next(trial, cron, after, &next);

	if (nanoseconds > slowest->nanoseconds)
		*slowest = (Slowest){.trial = *trial, .after = after, .nanoseconds = nanoseconds};
	if (wanted != QML_CRON_NEVER)
	{
		if (next != wanted)
			mismatch(trial, after, next, wanted, "not the same time");
		if (reference_fires(&trial->want, trial->zone, next) == REASON_GAP)
			tally->gaps++;
		else
			tally->matches++;
	}
	else if (next == QML_CRON_NEVER)
		tally->never++;
	else
	{
		if (next <= last)
			mismatch(trial, after, next, wanted, "the reference found nothing up to there");
		if (reference_fires(&trial->want, trial->zone, next) < REASON_MATCH ||
			reference_fires(&trial->want, trial->zone, next) > REASON_GAP)
			mismatch(trial, after, next, wanted, "it does not fire at that time");
		tally->beyond++;
	}
	return next;
}

/* Did a fixed time within two days after `after` occur for the second time? */
static bool
passes_repeat(const Trial *trial, int64_t after, int64_t next)
{
	size_t part = zone_part(trial->zone, after) + 1;
	int64_t back;

	if (part >= trial->zone->parts || trial->zone->since[part] >= next)
		return false;
	back = trial->zone->offset[part - 1] - trial->zone->offset[part];
	for (int64_t t = 0; t < back; t += 60)
	{
		if (trial->zone->since[part] + t > after && trial->zone->since[part] + t < next &&
			reference_fires(&trial->want, trial->zone, trial->zone->since[part] + t) ==
				REASON_REPEATED)
			return true;
	}
	return false;
}

static long
run_trial(const Trial *trial, Tally *tally, Slowest *slowest)
{
	QmlCron cron;
	QmlCronError error;
	int64_t after = trial->after;
	long asked = 0;

	if (!qml_cron_parse(trial->text, &cron, &error))
		errx(1, "\"%s\" was refused: %s: \"%s\", %s", trial->text,
			 error.field != NULL ? error.field : "expression", error.text, error.allowed);
	while (asked < ASKS && after != QML_CRON_NEVER && after < LAST_AFTER)
	{
		int64_t next = compare(trial, &cron, after, tally, slowest);

		asked++;
		if (next != QML_CRON_NEVER && next <= after)
			mismatch(trial, after, next, after + 1, "times do not grow");
		if (next != QML_CRON_NEVER && passes_repeat(trial, after, next))
			tally->repeats++;
		after = next;
	}
	return asked;
}

static int
compare_longs(const void *a, const void *b)
{
	long x = *(const long *) a;
	long y = *(const long *) b;

	return (x > y) - (x < y);
}

/* A single measurement may be slow because of something else on the machine. */
static bool
slowest_is_fast(const Slowest *slowest)
{
	long times[REPEATS];
	QmlCron cron;
	QmlCronError error;
	int64_t next;

	if (!qml_cron_parse(slowest->trial.text, &cron, &error))
		errx(1, "\"%s\" is refused now", slowest->trial.text);
	for (int i = 0; i < REPEATS; i++)
		times[i] = timed_next(&slowest->trial, &cron, slowest->after, &next);
	qsort(times, REPEATS, sizeof(times[0]), compare_longs);
	printf("slowest call: \"%s\" in %s after %lld: %ld us at first, %ld us as the median of %d\n",
		   slowest->trial.text, slowest->trial.zone->name, (long long) slowest->after,
		   slowest->nanoseconds / 1000, times[REPEATS / 2] / 1000, REPEATS);
	return times[REPEATS / 2] <= MAX_NANOSECONDS;
}

/* Expressions that make the search go on for as long as it can. */
static void
time_hard_cases(const ZoneList *zones, Slowest *slowest)
{
	static const char *const expressions[] = {"0 0 30 2 *",			 "0 0 31 2,4,6,9,11 *",
											  "59 23 31W 4 *",		 "0 0 */20 2 1#5",
											  "0 0 29 2 */7",		 "* * 29,30 2 */7",
											  "0 0 0 29 2 * 2100",	 "0 0 0 31 12 1#1 2199",
											  "0 0 0 ? 2 0#5 2199",	 "0 0 1W,2W,30W,31W,L 2 *",
											  "0 0 0 1 1 * 2199/229"};

	for (size_t i = 0; i < zones->count * (sizeof(expressions) / sizeof(expressions[0])); i++)
	{
		Trial trial = {.zone = &zones->zones[i % zones->count], .after = FIRST_AFTER};
		QmlCron cron;
		QmlCronError error;
		int64_t next;
		long nanoseconds;

		strcpy(trial.text, expressions[i / zones->count]);
		if (!qml_cron_parse(trial.text, &cron, &error))
			errx(1, "\"%s\" was refused", trial.text);
		nanoseconds = timed_next(&trial, &cron, trial.after, &next);
		if (nanoseconds > slowest->nanoseconds)
			*slowest = (Slowest){.trial = trial, .after = trial.after, .nanoseconds = nanoseconds};
	}
}

/* Counts a check of the whole run. */
static int
check(bool ok, const char *what)
{
	if (!ok)
		printf("%s\n", what);
	return ok ? 0 : 1;
}

int
main(int argc, char **argv)
{
	uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : DEFAULT_SEED;
	long count = argc > 2 ? strtol(argv[2], NULL, 10) : DEFAULT_COUNT;
	ZoneList zones;
	Tally tally = {0};
	Slowest slowest = {.nanoseconds = -1};
	long asked = 0;
	int failed = 0;

	printf("seed %llu, at least %ld comparisons\n", (unsigned long long) seed, count);
	fflush(stdout);
	state = seed;
	zone_list_load(&zones);
	reference_init();
	for (size_t i = 0; asked < count; i++)
	{
		Trial trial;

		make_trial(&trial, &zones.zones[i % zones.count]);
		asked += run_trial(&trial, &tally, &slowest);
	}
	time_hard_cases(&zones, &slowest);
	printf("%zu zones; answers: %ld by match, %ld after a gap, %ld beyond %d days, %ld never; "
		   "%ld passed over a repeated time\n",
		   zones.count, tally.matches, tally.gaps, tally.beyond, HORIZON_DAYS, tally.never,
		   tally.repeats);
	failed += check(slowest_is_fast(&slowest), "a call takes too long");
	failed += check(tally.gaps > 0 && tally.repeats > 0 && tally.beyond > 0 && tally.never > 0,
					"some kind of answer never came up: the trials are too few");
	zone_list_free(&zones);
	printf("%ld passed, %d failed\n", asked + 2 - failed, failed);
	return failed == 0 ? 0 : 1;
}
