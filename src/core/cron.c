/*
 * cron.c
 *		Cron expressions: what they mean, and parsing.
 *
 * An expression has five fields (minute hour day-of-month month day-of-week), six
 * (second before them) or seven (year after them), separated by blanks (tabs and line
 * ends are blanks, also before the first and after the last), or is one of @yearly @annually
 * @monthly @weekly @daily @midnight @hourly.  Upper and lower case are the same.
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
 */
#include "core/cron.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/ascii.h"

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
	QmlCronError *error;
	bool has_value[QML_CRON_MAX_YEAR + 1]; /* values, by themselves */
} Reader;

/* Notes why an element is refused.  Returns false, so that it can end a function. */
static bool __attribute__((format(printf, 2, 3))) refuse(Reader *reader, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	(void) vsnprintf(reader->error->reason, sizeof(reader->error->reason), format, args);
	va_end(args);
	return false;
}

/* The same for what follows a part that is complete. */
static bool
refuse_rest(Reader *reader, const char *rest)
{
	return refuse(reader, "\"%.20s\" cannot stand there", rest);
}

/* Skips the letter if it is there, in either case. */
static bool
skip(const char **p, char letter)
{
	if (qml_ascii_lower(**p) != letter)
		return false;
	(*p)++;
	return true;
}

/* A number, which may be far too large but does not overflow. */
static bool
read_number(const char **p, int *value)
{
	if (!qml_ascii_is_digit(**p))
		return false;
	for (*value = 0; qml_ascii_is_digit(**p); (*p)++)
	{
		if (*value < 100000)
			*value = *value * 10 + (**p - '0');
	}
	return true;
}

/* A value of the field, by number or name; named tells which. */
static bool
read_value(Reader *reader, const char **p, int *value, bool *named)
{
	const Field *field = reader->field;

	*named = false;
	if (read_number(p, value))
	{
		if (*value < field->min)
			return refuse(reader, "the lowest value is %d", field->min);
		if (*value > field->max)
			return refuse(reader, "the highest value is %d", field->max);
		return true;
	}
	*named = true;
	for (int i = 0; field->names && field->names[i]; i++)
	{
		const char *name = field->names[i];

		if (qml_ascii_lower((*p)[0]) == name[0] && qml_ascii_lower((*p)[1]) == name[1] &&
			qml_ascii_lower((*p)[2]) == name[2])
		{
			*p += 3;
			*value = field->first_name + i;
			return true;
		}
	}
	if (**p == '\0')
		return refuse(reader, "a value is missing at its end");
	return refuse(reader, "\"%.20s\" is no value", *p);
}

/* A step, if there is one; step is 1 otherwise. */
static bool
read_step(Reader *reader, const char **p, int *step, bool *has_step)
{
	int max = reader->field->max;

	*step = 1;
	*has_step = skip(p, '/');
	if (*has_step && (!read_number(p, step) || *step < 1 || *step > max))
		return refuse(reader, "a step is a number from 1 to %d", max);
	return true;
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

	if (!read_step(reader, &p, &step, &has_step))
		return false;
	if (*p != '\0')
		return refuse_rest(reader, p);
	add_values(reader, reader->field->min, last_value(reader->field), step);
	return true;
}

/* What may follow a day of the month: W. */
static bool
read_day_suffix(Reader *reader, const char *p, int value)
{
	if (!skip(&p, 'w') || *p != '\0')
		return refuse_rest(reader, p);
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
			return refuse_rest(reader, p);
		reader->cron->last_weekdays |= bit;
		return true;
	}
	if (!skip(&p, '#') || !read_number(&p, &nth) || nth < 1 || nth > 5)
		return refuse(reader, "a number from 1 to 5 follows #");
	if (*p != '\0')
		return refuse_rest(reader, p);
	reader->cron->nth_weekdays[nth] |= bit;
	return true;
}

/* A range that ends below where it begins, perhaps because it is meant to wrap around. */
static bool
refuse_backward(Reader *reader, int from, int to)
{
	const Field *field = reader->field;
	char high[24];
	char low[24];

	/* With a single value, not as a range. */
	(void) snprintf(high, sizeof(high), from < field->max ? "%d-%d" : "%d", from, field->max);
	(void) snprintf(low, sizeof(low), to > field->min ? "%d-%d" : "%d", field->min, to);
	return refuse(reader, "ranges do not run backwards; %s,%s is from %d over the end to %d", high,
				  low, from, to);
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

	if (!read_value(reader, &p, &from, &named))
		return false;
	if (field == &fields[DAY] && qml_ascii_lower(*p) == 'w')
		return read_day_suffix(reader, p, from);
	if (field == &fields[WEEKDAY] && (*p == '#' || qml_ascii_lower(*p) == 'l'))
		return read_weekday_suffix(reader, p, from);

	to = from;
	if (skip(&p, '-'))
	{
		if (!read_value(reader, &p, &to, &named))
			return false;
		/* FRI-SUN: Sunday at the end of a range is the 7th day. */
		if (field == &fields[WEEKDAY] && named && to == 0 && from > 0)
			to = 7;
		if (to < from)
			return refuse_backward(reader, from, to);
		if (!read_step(reader, &p, &step, &has_step))
			return false;
	}
	else
	{
		if (!read_step(reader, &p, &step, &has_step))
			return false;
		if (has_step && from < last_value(field))
			to = last_value(field);
	}
	if (*p != '\0')
		return refuse_rest(reader, p);
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
	if (*p == '?' && (reader->field == &fields[DAY] || reader->field == &fields[WEEKDAY]))
		return refuse(reader, "? stands alone in its field");
	if (reader->field == &fields[DAY] && skip(&p, 'l'))
	{
		bool workday = skip(&p, 'w');

		if (*p != '\0')
			return refuse_rest(reader, p);
		if (workday)
			reader->cron->last_workday = true;
		else
			reader->cron->last_day = true;
		return true;
	}
	return read_range(reader, p);
}

/*
 * Sets which part of the expression is wrong, length 0 for none, and what is allowed.  A
 * reason that is given already is kept.
 */
void
qml_cron_set_error(QmlCronError *error, const char *expression, const char *text, size_t length,
				   const char *allowed)
{
	error->field = NULL;
	error->position = (int) (text - expression);
	if (length >= sizeof(error->text))
		length = sizeof(error->text) - 1;
	memcpy(error->text, text, length);
	error->text[length] = '\0';
	error->allowed = allowed;
}

/* Reads the elements of a field from start to end into reader. */
static bool
read_list(Reader *reader, const char *expression, const char *start, const char *end)
{
	const Field *field = reader->field;
	const char *p = start;

	for (;;)
	{
		const char *comma = memchr(p, ',', (size_t) (end - p));
		size_t length = (size_t) ((comma ? comma : end) - p);
		char element[MAX_WORD * 2];
		bool valid;

		if (length == 0)
			valid = refuse(reader, "an element of the list is missing");
		else if (length >= sizeof(element))
			valid = refuse(reader, "it is too long");
		else
		{
			memcpy(element, p, length);
			element[length] = '\0';
			valid = read_element(reader, element);
		}
		if (!valid)
		{
			/* An empty element cannot be shown alone. */
			if (length == 0)
				qml_cron_set_error(reader->error, expression, start, (size_t) (end - start),
								   field->allowed);
			else
				qml_cron_set_error(reader->error, expression, p, length, field->allowed);
			reader->error->field = field->name;
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
read_field(QmlCron *cron, int number, const char *expression, const char *start, const char *end,
		   QmlCronError *error)
{
	Reader reader = {.field = &fields[number], .cron = cron, .error = error};
	bool any = *start == '*' || *start == '?';

	/* All years, not only those that can be named. */
	if (number == YEAR && *start == '*' && end == start + 1)
		return true;

	if (*start == '?' && end == start + 1 && (number == DAY || number == WEEKDAY))
		add_values(&reader, fields[number].min, last_value(&fields[number]), 1);
	else if (!read_list(&reader, expression, start, end))
		return false;
	store_values(&reader, number, any);
	if ((number == MINUTE || number == HOUR) && any)
		cron->elapsed = true;
	return true;
}

/* The next word from *p on; false at the end. */
static bool
next_word(const char **p, const char **start, const char **end)
{
	while (qml_ascii_is_blank(**p))
		(*p)++;
	*start = *p;
	while (**p != '\0' && !qml_ascii_is_blank(**p))
		(*p)++;
	*end = *p;
	return *end > *start;
}

/* The expression behind a macro; NULL when there is none of that name. */
static const char *
find_macro(const char *word, size_t length)
{
	for (size_t i = 0; i < sizeof(macros) / sizeof(macros[0]); i++)
	{
		if (qml_ascii_is_word(word, length, macros[i].name))
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
	while (qml_ascii_is_blank(*p))
		p++;
	if (count < 5 || *p != '\0')
	{
		if (count < 5)
			(void) snprintf(error->reason, sizeof(error->reason), "it has %d field%s", count,
							count == 1 ? "" : "s");
		else
			(void) snprintf(error->reason, sizeof(error->reason), "it has more than seven fields");
		qml_cron_set_error(
			error, expression, expression, 0,
			"it has five fields (minute, hour, day of month, month, day of week), six with the "
			"second before them, seven with the year after them, or is one of @yearly, @annually, "
			"@monthly, @weekly, @daily, @midnight and @hourly, or an interval such as every 90 "
			"seconds");
		return false;
	}
	first = count == 5 ? MINUTE : SECOND;
	for (int i = 0; i < count; i++)
	{
		if (!read_field(cron, first + i, expression, starts[i], ends[i], error))
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
	memset(error, 0, sizeof(*error));
	if (strlen(expression) > QML_CRON_MAX_LENGTH)
	{
		qml_cron_set_error(error, expression, expression, 0, "it has at most 255 bytes");
		return false;
	}
	if (next_word(&p, &start, &end) && *start == '@')
	{
		const char *macro = find_macro(start, (size_t) (end - start));
		const char *rest = p;

		while (qml_ascii_is_blank(*rest))
			rest++;
		if (macro == NULL || *rest != '\0')
		{
			qml_cron_set_error(
				error, expression, start, strlen(start),
				"allowed are @yearly, @annually, @monthly, @weekly, @daily, @midnight and "
				"@hourly, alone");
			return false;
		}
		expression = macro;
	}
	return read_fields(expression, cron, error);
}
