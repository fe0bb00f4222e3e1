/*
 * cases.c
 *		Runs the table of cases of queries.
 *
 * A line of the table, whose parts are separated by " => ", is one of
 *
 *		query => what was understood
 *		query => error => part @ position: reason
 *
 * as show_query() writes it; the position is in bytes.  In a query \xHH is a byte, and \xNN stands
 * for itself where it is no such number.  Blank lines and lines that begin with # are skipped.
 */
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "show.h"

#define MAX_LINE  2000
#define SEPARATOR " => "

static const char *file_name;
static int line_number;
static int passed;
static int failed;

static void
check(const char *query, const char *wanted, const char *found)
{
	if (strcmp(wanted, found) == 0)
	{
		passed++;
		return;
	}
	failed++;
	printf("%s:%d: %s\n   wanted %s\n   found  %s\n", file_name, line_number, query, wanted, found);
}

/* Cuts a line at the separator; returns what follows it. */
static char *
cut(char *line)
{
	char *separator = strstr(line, SEPARATOR);

	if (separator == NULL)
		return NULL;
	*separator = '\0';
	return separator + strlen(SEPARATOR);
}

/* Replaces \xHH. */
static void
unescape(char *text)
{
	char *out = text;
	unsigned byte;

	for (; *text; text++)
	{
		if (text[0] == '\\' && text[1] == 'x' && sscanf(text + 2, "%2x", &byte) == 1)
		{
			*out++ = (char) byte;
			text += 3;
		}
		else
			*out++ = *text;
	}
	*out = '\0';
}

static void
run(char *line)
{
	static QmlSearchQuery query;
	static char found[SHOWN_LENGTH];
	QmlSearchError error;
	char *wanted = cut(line);
	char *reason;

	if (wanted == NULL)
		errx(1, "%s:%d: no %s", file_name, line_number, SEPARATOR);
	reason = cut(wanted);
	unescape(line);
	if (qml_search_parse(line, &test_clock, &query, &error))
		show_query(&query, found);
	else
		show_error(line, &error, found);
	if (reason && strcmp(wanted, "error") != 0)
		errx(1, "%s:%d: \"%s\" is not \"error\"", file_name, line_number, wanted);
	check(line, reason ? reason : wanted, found);
}

int
main(int argc, char **argv)
{
	char line[MAX_LINE];
	FILE *file;

	if (argc != 2)
		errx(2, "usage: cases FILE");
	file_name = argv[1];
	file = fopen(file_name, "r");
	if (file == NULL)
		err(1, "%s", file_name);
	while (fgets(line, sizeof(line), file))
	{
		line_number++;
		line[strcspn(line, "\n")] = '\0';
		if (line[0] != '\0' && line[0] != '#')
			run(line);
	}
	fclose(file);
	printf("%d passed, %d failed\n", passed, failed);
	return failed > 0;
}
