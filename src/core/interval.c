/*
 * interval.c
 *		Intervals of schedules: parsing, and the next time at which one fires.
 *
 * An interval is the word "every" and one or more times: a whole number and a unit each, as
 * in "every 90 seconds" or "every 1 hour 30 minutes".  The first may leave out the number 1:
 * "every minute".  Blanks separate words, as in cron expressions, and may be left
 * out between a number and its unit; upper and lower case are the same.
 *
 *	unit		also
 *	second		seconds, secs, sec, s
 *	minute		minutes, mins, min
 *	hour		hours, h
 *	day			days, d		24 hours, also when the clocks change
 *	week		weeks, w
 *
 * Months and years are no units, because their length differs.  The sum is from 1 second to
 * ten years.
 *
 * An interval is counted from an instant, its anchor: it fires at the anchor plus a
 * multiple, which is at least 1, of the interval.  So ticks do not drift, however late each
 * of them fires, and neither time zone nor daylight saving move them.
 */
#include "core/interval.h"

#include <stdio.h>
#include <string.h>

#include "core/ascii.h"

/* Larger numbers are read as this one: too large in any unit. */
#define TOO_LARGE (QML_INTERVAL_MAX + 1)

#define ALLOWED                                                                            \
	"an interval is every and numbers with units (seconds, minutes, hours, days, weeks), " \
	"such as every 90 seconds or every 1 hour 30 minutes"

static const struct
{
	const char *name;
	int seconds; /* 0: no unit, but often taken for one */
} units[] = {
	{"s", 1},		{"sec", 1},		  {"secs", 1},		 {"second", 1},	  {"seconds", 1},
	{"min", 60},	{"mins", 60},	  {"minute", 60},	 {"minutes", 60}, {"h", 3600},
	{"hour", 3600}, {"hours", 3600},  {"d", 86400},		 {"day", 86400},  {"days", 86400},
	{"w", 604800},	{"week", 604800}, {"weeks", 604800}, {"m", 0},		  {"month", 0},
	{"months", 0},	{"year", 0},	  {"years", 0},
};

static const char *
skip_blanks(const char *p)
{
	while (qml_ascii_is_blank(*p))
		p++;
	return p;
}

/* The end of the word that begins there: it is of digits, or of anything else but blanks. */
static const char *
end_of_word(const char *p)
{
	bool digits = qml_ascii_is_digit(*p);

	while (*p != '\0' && !qml_ascii_is_blank(*p) && qml_ascii_is_digit(*p) == digits)
		p++;
	return p;
}

/* Whether an expression is an interval, valid or not, rather than a cron expression. */
bool
qml_interval_is_meant(const char *expression)
{
	const char *start = skip_blanks(expression);

	return qml_ascii_is_word(start, (size_t) (end_of_word(start) - start), "every");
}

static bool
refuse(QmlCronError *error, const char *expression, const char *start, const char *end,
	   const char *reason)
{
	(void) snprintf(error->reason, sizeof(error->reason), "%s", reason);
	qml_cron_set_error(error, expression, start, (size_t) (end - start), ALLOWED);
	return false;
}

/* Seconds of a unit; 0: that is none, and the reason is in *reason. */
static int
find_unit(const char *start, const char *end, const char **reason)
{
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
	{
		if (!qml_ascii_is_word(start, (size_t) (end - start), units[i].name))
			continue;
		*reason = units[i].name[1] == '\0' ?
					  "it could be minutes or months" :
					  "its length differs; a cron expression can name days and months";
		return units[i].seconds;
	}
	*reason = "it is no unit";
	return 0;
}

/* Reads a number, which may be far too large but does not overflow. */
static int64_t
read_number(const char *start, const char *end)
{
	int64_t value = 0;

	for (const char *p = start; p < end; p++)
	{
		value = value * 10 + (*p - '0');
		if (value > QML_INTERVAL_MAX)
			value = TOO_LARGE;
	}
	return value;
}

/* Parses an interval; false, with the reason, when it is none. */
bool
qml_interval_parse(const char *expression, int64_t *seconds, QmlCronError *error)
{
	const char *p = skip_blanks(expression);
	const char *first;
	int64_t sum = 0;

	memset(error, 0, sizeof(*error));
	if (strlen(expression) > QML_CRON_MAX_LENGTH)
	{
		qml_cron_set_error(error, expression, expression, 0, "it has at most 255 bytes");
		return false;
	}
	if (!qml_interval_is_meant(expression))
		return refuse(error, expression, p, end_of_word(p), "it is not every");
	first = p = skip_blanks(end_of_word(p));
	do
	{
		const char *start = p;
		const char *end = end_of_word(p);
		int64_t number = 1;
		const char *reason;
		int unit;

		if (qml_ascii_is_digit(*p))
		{
			number = read_number(start, end);
			if (number == 0)
				return refuse(error, expression, start, end, "the least is 1");
			p = skip_blanks(end);
		}
		else if (*p != '\0' && p != first)
			return refuse(error, expression, start, end, "a number is missing before it");
		if (*p == '\0')
			return refuse(error, expression, start, end, "a unit is missing at the end");
		end = end_of_word(p);
		unit = find_unit(p, end, &reason);
		if (unit == 0)
			return refuse(error, expression, p, end, reason);
		if (number > QML_INTERVAL_MAX / unit || sum + number * unit > QML_INTERVAL_MAX)
			return refuse(error, expression, start, end, "the longest interval is 3650 days");
		sum += number * unit;
		p = skip_blanks(end);
	} while (*p != '\0');
	*seconds = sum;
	return true;
}

/* The least instant after `after` that is the anchor and a multiple of the interval. */
int64_t
qml_interval_next(int64_t anchor, int64_t seconds, int64_t after)
{
	if (after < anchor)
		return anchor + seconds;
	return anchor + ((after - anchor) / seconds + 1) * seconds;
}
