/*
 * cases.c
 *		Runs the table of cases of cron expressions and intervals.
 *
 * A line of the table, whose parts are separated by " | ", is one of
 *
 *		expression | zone | after | next, next, ...
 *		expression | error | field | text @ position: reason
 *		interval | anchor | after | next, next, ...
 *		interval | error | expression | text @ position: reason
 *
 * Times are in UTC, as 2026-03-29T01:00Z or with seconds.  Each "next" is worked
 * out from the one before it; "never" ends the list.  The field of an error is
 * "expression" when it is about the expression as a whole; what the part that is wrong is,
 * how many bytes come before it, and why it is wrong, may be left out.  In an expression \xHH
 * is a byte.  Blank lines and lines that begin with # are skipped.
 */
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/interval.h"
#include "zone.h"

#define MAX_LINE  2000
#define SEPARATOR " | "

static const char *file_name;
static int line_number;
static int passed;
static int failed;

static void
malformed(const char *what)
{
	errx(1, "%s:%d: %s", file_name, line_number, what);
}

static void
count(bool ok)
{
	if (ok)
		passed++;
	else
		failed++;
}

/* Reads a time, and moves on to what follows it. */
static int64_t
read_time(const char **text)
{
	struct tm tm = {.tm_sec = 0};
	int length = 0;
	int seconds_length = 0;

	if (strncmp(*text, "never", 5) == 0)
	{
		*text += 5;
		return QML_CRON_NEVER;
	}
	if (sscanf(*text, "%d-%2d-%2dT%2d:%2d%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour,
			   &tm.tm_min, &length) != 5 ||
		length == 0)
		malformed("this is no time");
	if (sscanf(*text + length, ":%2d%n", &tm.tm_sec, &seconds_length) == 1)
		length += seconds_length;
	if ((*text)[length] != 'Z')
		malformed("a time ends with Z");
	*text += length + 1;
	tm.tm_year -= 1900;
	tm.tm_mon--;
	return timegm(&tm);
}

static const char *
show_time(int64_t instant, char *buffer, size_t size)
{
	time_t seconds = instant;
	struct tm tm;

	if (instant == QML_CRON_NEVER)
		return "never";
	if (gmtime_r(&seconds, &tm) == NULL || strftime(buffer, size, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
		return "a time without a name";
	return buffer;
}

/* Replaces \xHH. */
static void
unescape(char *text)
{
	char *to = text;
	unsigned byte;

	for (char *from = text; *from != '\0'; to++)
	{
		if (from[0] != '\\')
			*to = *from++;
		else if (sscanf(from, "\\x%2x", &byte) == 1 && byte != 0)
		{
			*to = (char) byte;
			from += 4;
		}
		else
			malformed("only \\xHH may follow an expression's backslash");
	}
	*to = '\0';
}

/* Splits a line at its separators. */
static int
split(char *line, char **parts, int max)
{
	int found = 0;
	char *end;

	/* The first part may be empty, and then no blank follows it. */
	if (line[0] == '|')
	{
		line[0] = '\0';
		parts[found++] = line;
		line += 2;
	}
	for (; found < max - 1 && (end = strstr(line, SEPARATOR)) != NULL;
		 line = end + strlen(SEPARATOR))
	{
		*end = '\0';
		parts[found++] = line;
	}
	parts[found++] = line;
	return found;
}

static const char *
field_name(const QmlCronError *error)
{
	return error->field != NULL ? error->field : "expression";
}

/* The part that is wrong, and why. */
static void
check_reason(const char *expression, const QmlCronError *error, const char *expected)
{
	char found[sizeof(error->text) + sizeof(error->reason) + 20];

	snprintf(found, sizeof(found), "%s @ %d: %s", error->text, error->position, error->reason);
	if (strcmp(found, expected) != 0)
		printf("%s:%d: \"%s\": \"%s\", not \"%s\"\n", file_name, line_number, expression, found,
			   expected);
	count(strcmp(found, expected) == 0);
}

static bool
parse(const char *expression, QmlCronError *error)
{
	QmlCron cron;
	int64_t seconds;

	return qml_interval_is_meant(expression) ? qml_interval_parse(expression, &seconds, error) :
											   qml_cron_parse(expression, &cron, error);
}

static void
run_error(const char *expression, const char *field, const char *reason)
{
	QmlCronError error;

	if (parse(expression, &error))
	{
		printf("%s:%d: \"%s\" was accepted\n", file_name, line_number, expression);
		count(false);
		return;
	}
	if (strcmp(field_name(&error), field) != 0)
		printf("%s:%d: \"%s\": field is %s, not %s\n", file_name, line_number, expression,
			   field_name(&error), field);
	count(strcmp(field_name(&error), field) == 0);
	if (reason)
		check_reason(expression, &error, reason);
	if (error.allowed == NULL || error.allowed[0] == '\0')
	{
		printf("%s:%d: \"%s\": nothing says what is allowed\n", file_name, line_number, expression);
		count(false);
	}
}

/* What fires, for check_times(). */
typedef struct CronTimes
{
	const QmlCron *cron;
	const QmlCronZone *zone;
} CronTimes;

typedef struct IntervalTimes
{
	int64_t anchor;
	int64_t seconds;
} IntervalTimes;

static int64_t
next_of_cron(const void *what, int64_t after)
{
	const CronTimes *times = what;

	return qml_cron_next_after(times->cron, times->zone, after);
}

static int64_t
next_of_interval(const void *what, int64_t after)
{
	const IntervalTimes *times = what;

	return qml_interval_next(times->anchor, times->seconds, after);
}

/* Compares the times that follow an instant with a list of them. */
static void
check_times(const char *expression, const char *expected, int64_t instant,
			int64_t (*next_after)(const void *what, int64_t after), const void *what)
{
	for (;;)
	{
		char one[64], other[64];
		int64_t wanted = read_time(&expected);
		int64_t next = next_after(what, instant);

		if (next != wanted)
			printf("%s:%d: \"%s\": got %s, not %s\n", file_name, line_number, expression,
				   show_time(next, one, sizeof(one)), show_time(wanted, other, sizeof(other)));
		count(next == wanted);
		instant = wanted;
		if (*expected == '\0')
			break;
		if (wanted == QML_CRON_NEVER || strncmp(expected, ", ", 2) != 0)
			malformed("times are separated by a comma and a blank, and never is the last");
		expected += 2;
	}
}

static void
run_times(const char *expression, const Zone *zone, const char *after, const char *expected)
{
	QmlCron cron;
	QmlCronError error;
	int64_t instant = read_time(&after);

	if (*after != '\0')
		malformed("something follows the time");
	if (!qml_cron_parse(expression, &cron, &error))
	{
		printf("%s:%d: \"%s\" was refused: %s \"%s\", %s\n", file_name, line_number, expression,
			   field_name(&error), error.text, error.allowed);
		count(false);
		return;
	}
	check_times(expression, expected, instant, next_of_cron, &(CronTimes){&cron, &zone->base});
}

static void
run_interval(const char *expression, const char *anchor, const char *after, const char *expected)
{
	QmlCronError error;
	int64_t from = read_time(&anchor);
	int64_t instant = read_time(&after);
	int64_t seconds;

	if (*anchor != '\0' || *after != '\0')
		malformed("something follows the time");
	if (!qml_interval_parse(expression, &seconds, &error))
	{
		printf("%s:%d: \"%s\" was refused: \"%s\": %s\n", file_name, line_number, expression,
			   error.text, error.reason);
		count(false);
		return;
	}
	check_times(expression, expected, instant, next_of_interval, &(IntervalTimes){from, seconds});
}

static void
run_line(const ZoneList *zones, char *line)
{
	char *parts[4];
	int found = split(line, parts, 4);
	const Zone *zone;

	unescape(parts[0]);
	if (found >= 3 && strcmp(parts[1], "error") == 0)
	{
		run_error(parts[0], parts[2], found == 4 ? parts[3] : NULL);
		return;
	}
	if (found != 4)
		malformed("a case has three or four parts");
	if (qml_interval_is_meant(parts[0]))
	{
		run_interval(parts[0], parts[1], parts[2], parts[3]);
		return;
	}
	zone = zone_list_find(zones, parts[1]);
	if (zone == NULL)
		malformed("there is no such zone");
	run_times(parts[0], zone, parts[2], parts[3]);
}

int
main(int argc, char **argv)
{
	ZoneList zones;
	char line[MAX_LINE];
	FILE *file;

	if (argc != 2)
		errx(2, "usage: cases FILE");
	file_name = argv[1];
	file = fopen(file_name, "r");
	if (file == NULL)
		err(1, "%s", file_name);
	zone_list_load(&zones);
	while (fgets(line, sizeof(line), file) != NULL)
	{
		size_t length = strcspn(line, "\n");

		line_number++;
		if (line[length] == '\0')
			malformed("the line is too long");
		line[length] = '\0';
		if (length > 0 && line[0] != '#')
			run_line(&zones, line);
	}
	fclose(file);
	zone_list_free(&zones);
	printf("%d passed, %d failed\n", passed, failed);
	return failed == 0 && passed > 0 ? 0 : 1;
}
