/*
 * cron.c
 *		Cron expressions: parsing, and the next time at which one fires.
 *
 * An expression has five fields (minute hour day-of-month month day-of-week), six
 * (second before them) or seven (year after them), separated by blanks, or is one
 * of @yearly @annually @monthly @weekly @daily @midnight @hourly.  Upper and lower
 * case are the same.
 *
 *	field			values						besides
 *	second, minute	0-59
 *	hour			0-23
 *	day of month	1-31						?  L  LW  nW
 *	month			1-12, JAN-DEC
 *	day of week		0-7, SUN-SAT; 0 and 7		?  d#n (n 1-5)  dL
 *					are Sunday
 *	year			1970-2199
 *
 * A field is a list, separated by commas, of: * or a value or a range a-b, each
 * perhaps with a step /n (a/n is from a to the end; n is at least 1 and at most
 * the field's highest value; * in day of week is 0-6, and a/n ends with 6); L the
 * last day of the month; LW the last weekday (Monday to Friday) of the month; nW
 * the weekday nearest to day n within the same month, none in a month without day
 * n; d#n the nth day d of the month, d by number or name; dL the last one.  ?
 * stands alone and is the same as *.  * alone in the year is any year.  Ranges do
 * not wrap, but a range of days of the week may end with SUN.
 *
 * Days (the rule of Vixie cron): if the field day of month or the field day of
 * week begins with * or ?, a day must match both; otherwise it must match either.
 *
 * Time zones and daylight saving: if the field minute or hour begins with *, the
 * expression follows elapsed time: it fires at every instant whose local time
 * matches.  Otherwise it is a fixed time: a local time that occurs twice fires the
 * first time only; local times that are skipped (a gap) and would have matched
 * fire together once, at the first instant after the gap.
 *
 * Nothing here can loop for long: the Gregorian calendar repeats every 400 years,
 * so that a day which is not found within them is never found.
 */
#include "core/cron.h"

#include <stdio.h>
#include <string.h>

#define SECS_PER_DAY INT64_C(86400)

/* Months after which the calendar repeats: 400 years. */
#define CALENDAR_MONTHS 4800

/*
 * Where the walk over offsets begins before `after`: no local time occurs again
 * later than that.
 */
#define LOOK_BACK (2 * SECS_PER_DAY)

/* Longest part of an expression that is copied, with its end. */
#define MAX_WORD 12

/* What a field is made of. */
typedef struct Field
{
	const char *name;
	int min;
	int max;
	const char *const *names; /* from the first value on, NULL at the end */
	int first_name;
	const char *allowed;
} Field;

static const char *const month_names[] = {"jan", "feb", "mar", "apr", "may", "jun", "jul",
										  "aug", "sep", "oct", "nov", "dec", NULL};
static const char *const weekday_names[] = {"sun", "mon", "tue", "wed", "thu", "fri", "sat", NULL};

enum
{
	SECOND = 0,
	MINUTE,
	HOUR,
	DAY,
	MONTH,
	WEEKDAY,
	YEAR,
	NFIELDS
};

static const Field fields[NFIELDS] = {
	{"second", 0, 59, NULL, 0, "allowed are 0-59, with * , - /"},
	{"minute", 0, 59, NULL, 0, "allowed are 0-59, with * , - /"},
	{"hour", 0, 23, NULL, 0, "allowed are 0-23, with * , - /"},
	{"day of month", 1, 31, NULL, 0, "allowed are 1-31, L, LW and nW, with * ? , - /"},
	{"month", 1, 12, month_names, 1, "allowed are 1-12 and JAN-DEC, with * , - /"},
	{"day of week", 0, 7, weekday_names, 0,
	 "allowed are 0-7 and SUN-SAT (0 and 7 are Sunday), d#n (n from 1 to 5) and dL, with * ? , - /"},
	{"year", QML_CRON_MIN_YEAR, QML_CRON_MAX_YEAR, NULL, 0, "allowed are 1970-2199, with * , - /"},
};

static const struct
{
	const char *name;
	const char *expression;
} macros[] = {
	{"@yearly", "0 0 0 1 1 *"}, {"@annually", "0 0 0 1 1 *"}, {"@monthly", "0 0 0 1 * *"},
	{"@weekly", "0 0 0 * * 0"}, {"@daily", "0 0 0 * * *"},	  {"@midnight", "0 0 0 * * *"},
	{"@hourly", "0 0 * * * *"},
};

/* The field that is being read, and what has been read of it. */
typedef struct Reader
{
	const Field *field;
	QmlCron *cron;
	bool has_value[QML_CRON_MAX_YEAR + 1]; /* values, by themselves */
} Reader;

/* Like tolower in the C locale, whatever the locale is. */
static char
lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char) (c - 'A' + 'a') : c;
}

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Skips the letter if it is there, in either case. */
static bool
skip(const char **p, char letter)
{
	if (lower(**p) != letter)
		return false;
	(*p)++;
	return true;
}

/* A number, which may be far too large but does not overflow. */
static bool
read_number(const char **p, int *value)
{
	if (!is_digit(**p))
		return false;
	for (*value = 0; is_digit(**p); (*p)++)
	{
		if (*value < 100000)
			*value = *value * 10 + (**p - '0');
	}
	return true;
}

/* A value of the field, by number or name; named tells which. */
static bool
read_value(const char **p, const Field *field, int *value, bool *named)
{
	*named = false;
	if (read_number(p, value))
		return *value >= field->min && *value <= field->max;
	*named = true;
	for (int i = 0; field->names && field->names[i]; i++)
	{
		const char *name = field->names[i];

		if (lower((*p)[0]) == name[0] && lower((*p)[1]) == name[1] && lower((*p)[2]) == name[2])
		{
			*p += 3;
			*value = field->first_name + i;
			return true;
		}
	}
	return false;
}

/* A step, if there is one; step is 1 otherwise. */
static bool
read_step(const char **p, const Field *field, int *step, bool *has_step)
{
	*step = 1;
	*has_step = skip(p, '/');
	if (!*has_step)
		return true;
	return read_number(p, step) && *step >= 1 && *step <= field->max;
}

static void
add_values(Reader *reader, int from, int to, int step)
{
	bool is_weekday = reader->field == &fields[WEEKDAY];

	for (int value = from; value <= to; value += step)
		reader->has_value[is_weekday && value == 7 ? 0 : value] = true;
}

/* The last value of "*" and of "a/n": Sunday is not counted twice. */
static int
last_value(const Field *field)
{
	return field == &fields[WEEKDAY] ? 6 : field->max;
}

/* "*" or "*" with a step. */
static bool
read_star(Reader *reader, const char *p)
{
	int step;
	bool has_step;

	if (!read_step(&p, reader->field, &step, &has_step) || *p != '\0')
		return false;
	add_values(reader, reader->field->min, last_value(reader->field), step);
	return true;
}

/* What may follow a day of the month: W. */
static bool
read_day_suffix(Reader *reader, const char *p, int value)
{
	if (!skip(&p, 'w') || *p != '\0')
		return false;
	reader->cron->nearest_days |= UINT32_C(1) << value;
	return true;
}

/* What may follow a day of the week: #n or L. */
static bool
read_weekday_suffix(Reader *reader, const char *p, int value)
{
	uint8_t bit = (uint8_t) (1 << value % 7);
	int nth;

	if (skip(&p, 'l'))
	{
		if (*p != '\0')
			return false;
		reader->cron->last_weekdays |= bit;
		return true;
	}
	if (!skip(&p, '#') || !read_number(&p, &nth) || *p != '\0' || nth < 1 || nth > 5)
		return false;
	reader->cron->nth_weekdays[nth] |= bit;
	return true;
}

/* A value or a range, perhaps with a step, or a day with a suffix. */
static bool
read_range(Reader *reader, const char *p)
{
	const Field *field = reader->field;
	int from;
	int to;
	int step;
	bool named;
	bool has_step;

	if (!read_value(&p, field, &from, &named))
		return false;
	if (field == &fields[DAY] && lower(*p) == 'w')
		return read_day_suffix(reader, p, from);
	if (field == &fields[WEEKDAY] && (*p == '#' || lower(*p) == 'l'))
		return read_weekday_suffix(reader, p, from);

	to = from;
	if (skip(&p, '-'))
	{
		if (!read_value(&p, field, &to, &named))
			return false;
		/* FRI-SUN: Sunday at the end of a range is the 7th day. */
		if (field == &fields[WEEKDAY] && named && to == 0 && from > 0)
			to = 7;
		if (to < from || !read_step(&p, field, &step, &has_step))
			return false;
	}
	else
	{
		if (!read_step(&p, field, &step, &has_step))
			return false;
		if (has_step && from < last_value(field))
			to = last_value(field);
	}
	if (*p != '\0')
		return false;
	add_values(reader, from, to, step);
	return true;
}

/* One element of a list. */
static bool
read_element(Reader *reader, const char *element)
{
	const char *p = element;

	if (skip(&p, '*'))
		return read_star(reader, p);
	if (reader->field == &fields[DAY] && skip(&p, 'l'))
	{
		bool workday = skip(&p, 'w');

		if (*p != '\0')
			return false;
		if (workday)
			reader->cron->last_workday = true;
		else
			reader->cron->last_day = true;
		return true;
	}
	return read_range(reader, p);
}

static void
set_error(QmlCronError *error, const char *field, const char *text, size_t length,
		  const char *allowed)
{
	if (length >= sizeof(error->text))
		length = sizeof(error->text) - 1;
	error->field = field;
	memcpy(error->text, text, length);
	error->text[length] = '\0';
	error->allowed = allowed;
}

/* Reads the elements of a field from start to end into reader. */
static bool
read_list(Reader *reader, const char *start, const char *end, QmlCronError *error)
{
	const Field *field = reader->field;
	const char *p = start;

	for (;;)
	{
		const char *comma = memchr(p, ',', (size_t) (end - p));
		size_t length = (size_t) ((comma ? comma : end) - p);
		char element[MAX_WORD * 2];
		bool valid = length > 0 && length < sizeof(element);

		if (valid)
		{
			memcpy(element, p, length);
			element[length] = '\0';
			valid = read_element(reader, element);
		}
		if (!valid)
		{
			/* An empty element cannot be shown alone. */
			if (length == 0)
				set_error(error, field->name, start, (size_t) (end - start), field->allowed);
			else
				set_error(error, field->name, p, length, field->allowed);
			return false;
		}
		if (comma == NULL)
			return true;
		p = comma + 1;
	}
}

static uint64_t
value_mask(const Reader *reader, int from, int count)
{
	uint64_t mask = 0;

	for (int i = 0; i < count; i++)
	{
		if (reader->has_value[from + i])
			mask |= UINT64_C(1) << i;
	}
	return mask;
}

/* Puts the values of a field where they belong. */
static void
store_values(const Reader *reader, int number, bool any)
{
	QmlCron *cron = reader->cron;

	switch (number)
	{
		case SECOND:
			cron->seconds = value_mask(reader, 0, 60);
			break;
		case MINUTE:
			cron->minutes = value_mask(reader, 0, 60);
			break;
		case HOUR:
			cron->hours = (uint32_t) value_mask(reader, 0, 24);
			break;
		case DAY:
			cron->days = (uint32_t) value_mask(reader, 0, 32);
			cron->any_day = any;
			break;
		case MONTH:
			cron->months = (uint16_t) value_mask(reader, 0, 13);
			break;
		case WEEKDAY:
			cron->weekdays = (uint8_t) value_mask(reader, 0, 7);
			cron->any_weekday = any;
			break;
		case YEAR:
			cron->any_year = false;
			for (int i = 0; i < 4; i++)
			{
				int from = QML_CRON_MIN_YEAR + 64 * i;
				int left = QML_CRON_MAX_YEAR - from + 1;

				cron->years[i] = value_mask(reader, from, left < 64 ? left : 64);
			}
			break;
		default:
			break;
	}
}

static bool
read_field(QmlCron *cron, int number, const char *start, const char *end, QmlCronError *error)
{
	Reader reader = {.field = &fields[number], .cron = cron};
	bool any = *start == '*' || *start == '?';

	/* All years, not only those that can be named. */
	if (number == YEAR && *start == '*' && end == start + 1)
		return true;

	if (*start == '?' && end == start + 1 && (number == DAY || number == WEEKDAY))
		add_values(&reader, fields[number].min, last_value(&fields[number]), 1);
	else if (!read_list(&reader, start, end, error))
		return false;
	store_values(&reader, number, any);
	if ((number == MINUTE || number == HOUR) && any)
		cron->elapsed = true;
	return true;
}

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* The next word from *p on; false at the end. */
static bool
next_word(const char **p, const char **start, const char **end)
{
	while (is_blank(**p))
		(*p)++;
	*start = *p;
	while (**p != '\0' && !is_blank(**p))
		(*p)++;
	*end = *p;
	return *end > *start;
}

static bool
same_word(const char *word, size_t length, const char *name)
{
	if (strlen(name) != length)
		return false;
	for (size_t i = 0; i < length; i++)
	{
		if (lower(word[i]) != name[i])
			return false;
	}
	return true;
}

/* The expression behind a macro; NULL when there is none of that name. */
static const char *
find_macro(const char *word, size_t length)
{
	for (size_t i = 0; i < sizeof(macros) / sizeof(macros[0]); i++)
	{
		if (same_word(word, length, macros[i].name))
			return macros[i].expression;
	}
	return NULL;
}

static bool
read_fields(const char *expression, QmlCron *cron, QmlCronError *error)
{
	const char *starts[NFIELDS];
	const char *ends[NFIELDS];
	const char *p = expression;
	int count = 0;
	int first;

	while (count < NFIELDS && next_word(&p, &starts[count], &ends[count]))
		count++;
	while (is_blank(*p))
		p++;
	if (count < 5 || *p != '\0')
	{
		set_error(error, NULL, "", 0,
				  "it has five fields (minute, hour, day of month, month, day of week), six with "
				  "the second before them, seven with the year after them, or is one of @yearly, "
				  "@annually, @monthly, @weekly, @daily, @midnight and @hourly");
		return false;
	}
	first = count == 5 ? MINUTE : SECOND;
	for (int i = 0; i < count; i++)
	{
		if (!read_field(cron, first + i, starts[i], ends[i], error))
			return false;
	}
	return true;
}

/* Parses an expression; false, with the reason, when it is none. */
bool
qml_cron_parse(const char *expression, QmlCron *cron, QmlCronError *error)
{
	const char *p = expression;
	const char *start;
	const char *end;

	memset(cron, 0, sizeof(*cron));
	cron->seconds = 1;
	cron->any_year = true;
	if (strlen(expression) > QML_CRON_MAX_LENGTH)
	{
		set_error(error, NULL, "", 0, "it has at most 255 bytes");
		return false;
	}
	if (next_word(&p, &start, &end) && *start == '@')
	{
		const char *macro = find_macro(start, (size_t) (end - start));
		const char *rest = p;

		while (is_blank(*rest))
			rest++;
		if (macro == NULL || *rest != '\0')
		{
			set_error(error, NULL, start, strlen(start),
					  "allowed are @yearly, @annually, @monthly, @weekly, @daily, @midnight and "
					  "@hourly, alone");
			return false;
		}
		expression = macro;
	}
	return read_fields(expression, cron, error);
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
