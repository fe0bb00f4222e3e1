/*
 * compare.c
 *		Random queries, of which it is known what they mean.
 *
 * A query is made together with what must be understood: values first, and then one of the ways to
 * write them, with any blanks, quotes and upper case.  So this shares nothing with the parser but the
 * form of the answer.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/state.h"
#include "show.h"

#define SECOND INT64_C(1000000)
#define ROOM   20000

/* A query, and what must be understood. */
typedef struct Made
{
	char query[ROOM];
	char meaning[SHOWN_LENGTH];
} Made;

static uint64_t seed;

/* xorshift64* */
static uint32_t
draw(uint32_t below)
{
	seed ^= seed >> 12;
	seed ^= seed << 25;
	seed ^= seed >> 27;
	return (uint32_t) ((seed * UINT64_C(2685821657736338717)) >> 33) % below;
}

static void __attribute__((format(printf, 2, 3))) put(char *out, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsprintf(out + strlen(out), format, args);
	va_end(args);
}

static void
put_byte(char *out, char c)
{
	size_t length = strlen(out);

	out[length] = c;
	out[length + 1] = '\0';
}

/* ASCII letters, some of them in the other case. */
static void
put_any_case(char *out, const char *text)
{
	bool change = draw(4) == 0;

	for (; *text; text++)
		put_byte(out,
				 change && *text >= 'a' && *text <= 'z' && draw(2) ? (char) (*text - 32) : *text);
}

/* A text of a value, in both forms. */
static void
make_text(Made *made, bool is_word, bool in_path)
{
	static const char plain[] = "abcxyzABC0189_/.+*#\xc3\xa4";
	static const char special[] = " :|\"\\-<>\t";
	char text[20];
	int length = 1 + (int) draw(sizeof(text) - 1);
	bool quoted = draw(3) == 0;

	for (int i = 0; i < length; i++)
		text[i] = quoted && draw(3) == 0 ? special[draw(sizeof(special) - 1)] :
										   plain[draw(sizeof(plain) - 1)];
	text[length] = '\0';
	/* Not what would be something else without quotes: a step ends with a dot. */
	for (int i = 0; in_path && !quoted && i < length; i++)
	{
		if (text[i] == '.')
			text[i] = 'p';
	}
	if (is_word && !quoted && text[0] == '-')
		text[0] = 'm';
	put(made->meaning, "%s", text);
	if (!quoted)
	{
		put(made->query, "%s", text);
		return;
	}
	put_byte(made->query, '"');
	for (char *p = text; *p; p++)
	{
		if (*p == '"' || *p == '\\')
			put_byte(made->query, '\\');
		put_byte(made->query, *p);
	}
	put_byte(made->query, '"');
}

static void
make_state(Made *made)
{
	const char *label = qml_state_label((QmlState) draw(QML_STATES));

	put(made->meaning, "%s", label);
	put_any_case(made->query, label);
}

static void
make_id(Made *made)
{
	bool hyphens = draw(2);

	for (int i = 0; i < 16; i++)
	{
		char digits[3];

		sprintf(digits, "%02x", draw(256));
		put(made->meaning, "%s", digits);
		if (hyphens && (i == 4 || i == 6 || i == 8 || i == 10))
			put_byte(made->query, '-');
		put_any_case(made->query, digits);
	}
}

static int64_t
draw_number(void)
{
	int64_t number = draw(3) == 0 ? (int64_t) draw(10) : (int64_t) draw(1000000) * draw(1000);

	return draw(3) == 0 ? -number : number;
}

static void
make_number(Made *made)
{
	int64_t a = draw_number();
	int64_t b = a + draw(100);

	switch (draw(8))
	{
		case 0:
			put(made->query, "%" PRId64, a);
			put(made->meaning, "%" PRId64, a);
			break;
		case 1:
			put(made->query, ">%" PRId64, a);
			put(made->meaning, "%" PRId64 "..", a + 1);
			break;
		case 2:
			put(made->query, ">=%" PRId64, a);
			put(made->meaning, "%" PRId64 "..", a);
			break;
		case 3:
			put(made->query, "<%" PRId64, a);
			put(made->meaning, "..%" PRId64, a - 1);
			break;
		case 4:
			put(made->query, "<=\"%" PRId64 "\"", a);
			put(made->meaning, "..%" PRId64, a);
			break;
		case 5:
			put(made->query, "%" PRId64 "..", a);
			put(made->meaning, "%" PRId64 "..", a);
			break;
		case 6:
			put(made->query, "..%" PRId64, a);
			put(made->meaning, "..%" PRId64, a);
			break;
		default:
			put(made->query, "%" PRId64 "..%" PRId64, a, b);
			put(made->meaning, a == b ? "%" PRId64 : "%" PRId64 "..%" PRId64, a, b);
	}
}

/* A duration in one of the ways to write it. */
static int64_t
make_duration_text(char *out)
{
	static const char *const units[] = {"ms", "s", "m", "h", "d", "w"};
	static const int64_t lengths[] = {1000,			 SECOND,		 60 * SECOND,
									  3600 * SECOND, 86400 * SECOND, 604800 * SECOND};
	int64_t sum = 0;
	int parts = 1 + (int) draw(3);

	*out = '\0';
	for (int i = 0; i < parts; i++)
	{
		int unit = (int) draw(6);
		int number = (int) draw(100);

		if (draw(4) == 0)
		{
			int tenths = (int) draw(10);

			put(out, "%d.%d", number, tenths);
			sum += number * lengths[unit] + tenths * lengths[unit] / 10;
		}
		else
		{
			put(out, "%d", number);
			sum += number * lengths[unit];
		}
		put_any_case(out, units[unit]);
	}
	return sum;
}

static void
put_duration(char *out, int64_t duration)
{
	put(out, "%" PRId64 ".%06" PRId64 "s", duration / SECOND, duration % SECOND);
}

static void
make_duration(Made *made)
{
	char text[200];
	int64_t duration = make_duration_text(text);
	int way = (int) draw(5);

	if (way == 1 && duration == 0)
		way = 0;
	switch (way)
	{
		case 0:
			put(made->query, ">%s", text);
			put_duration(made->meaning, duration + 1);
			put(made->meaning, "..");
			break;
		case 1:
			put(made->query, "<%s", text);
			put(made->meaning, "..");
			put_duration(made->meaning, duration - 1);
			break;
		case 2:
			put(made->query, "%s..", text);
			put_duration(made->meaning, duration);
			put(made->meaning, "..");
			break;
		case 3:
			put(made->query, "<=%s", text);
			put(made->meaning, "..");
			put_duration(made->meaning, duration);
			break;
		default:
			put(made->query, "%s", text);
			put_duration(made->meaning, duration);
	}
}

static int64_t
seconds_of(int year, int month, int day, int hour, int minute, int second)
{
	struct tm tm = {.tm_year = year - 1900,
					.tm_mon = month - 1,
					.tm_mday = day,
					.tm_hour = hour,
					.tm_min = minute,
					.tm_sec = second};

	return (int64_t) timegm(&tm);
}

/* A time in one of the ways to write it; UTC, unless it has a zone. */
static void
make_time_text(char *out, int64_t *first, int64_t *last)
{
	int precision = (int) draw(6);
	int year = 1970 + (int) draw(200);
	int month = precision >= 1 ? 1 + (int) draw(12) : 1;
	int day = precision >= 2 ? 1 + (int) draw(28) : 1;
	int hour = precision >= 3 ? (int) draw(24) : 0;
	int minute = precision >= 4 ? (int) draw(60) : 0;
	int second = precision >= 5 ? (int) draw(60) : 0;
	int64_t begin = seconds_of(year, month, day, hour, minute, second);
	int64_t end = precision == 0 ? seconds_of(year + 1, 1, 1, 0, 0, 0) :
				  precision == 1 ? seconds_of(year, month + 1, 1, 0, 0, 0) :
				  precision == 2 ? begin + 86400 :
				  precision == 3 ? begin + 3600 :
				  precision == 4 ? begin + 60 :
								   begin + 1;
	int64_t east = 0;

	sprintf(out, "%04d", year);
	if (precision >= 1)
		put(out, "-%02d", month);
	if (precision >= 2)
		put(out, "-%02d", day);
	if (precision >= 3)
		put(out, "T%02d", hour);
	if (precision >= 4)
		put(out, ":%02d", minute);
	if (precision >= 5)
		put(out, ":%02d", second);
	if (precision >= 3 && draw(2))
	{
		int hours = (int) draw(16);
		int minutes = (int) draw(60);
		bool west = draw(2);

		east = (west ? -1 : 1) * (hours * 3600 + minutes * 60);
		put(out, draw(2) ? "%c%02d:%02d" : "%c%02d%02d", west ? '-' : '+', hours, minutes);
	}
	*first = (begin - east) * SECOND;
	*last = (end - east) * SECOND - 1;
}

static void
put_time(char *out, int64_t at)
{
	show_time(at, out + strlen(out));
}

static void
make_time(Made *made)
{
	char text[100];
	char other[100];
	int64_t first;
	int64_t last;
	int64_t other_first;
	int64_t other_last;
	int64_t age;

	make_time_text(text, &first, &last);
	make_time_text(other, &other_first, &other_last);
	switch (draw(7))
	{
		case 0:
			put(made->query, "%s", text);
			put_time(made->meaning, first);
			put(made->meaning, "..");
			put_time(made->meaning, last);
			break;
		case 1:
			put(made->query, ">%s", text);
			put_time(made->meaning, last + 1);
			put(made->meaning, "..");
			break;
		case 2:
			put(made->query, "<%s", text);
			put(made->meaning, "..");
			put_time(made->meaning, first - 1);
			break;
		case 3:
			put(made->query, "..%s", text);
			put(made->meaning, "..");
			put_time(made->meaning, last);
			break;
		case 4:
			if (first > other_last)
			{
				put(made->query, "%s..%s", other, text);
				put_time(made->meaning, other_first);
				put(made->meaning, "..");
				put_time(made->meaning, last);
				break;
			}
			put(made->query, "%s..%s", text, text);
			put_time(made->meaning, first);
			put(made->meaning, "..");
			put_time(made->meaning, last);
			break;
		case 5:
			put(made->query, "<=");
			age = TEST_NOW - make_duration_text(made->query + strlen(made->query));
			put_time(made->meaning, age);
			put(made->meaning, "..");
			break;
		default:
			put(made->query, ">");
			age = TEST_NOW - make_duration_text(made->query + strlen(made->query));
			put(made->meaning, "..");
			put_time(made->meaning, age - 1);
	}
}

static void
make_json(Made *made)
{
	int64_t a = draw_number();

	switch (draw(4))
	{
		case 0:
			put(made->query, ">%" PRId64 ".5", a);
			put(made->meaning, "(%" PRId64 ".5..]", a);
			break;
		case 1:
			put(made->query, "%" PRId64 "..%" PRId64, a, a + 1);
			put(made->meaning, "[%" PRId64 "..%" PRId64 "]", a, a + 1);
			break;
		case 2:
			put(made->query, "%" PRId64, a);
			put(made->meaning, "#%" PRId64, a);
			break;
		default:
			/* A letter first: it is no number. */
			put(made->query, "t");
			put(made->meaning, "t");
			put(made->query, "%d", draw(1000));
			put(made->meaning, "%s", strrchr(made->query, 't') + 1);
	}
}

static void
make_value(Made *made, QmlSearchField field)
{
	switch (qml_search_field_kind(field))
	{
		case QML_SEARCH_IS_TEXT:
			make_text(made, field == QML_SEARCH_WORD, false);
			break;
		case QML_SEARCH_IS_STATE:
			make_state(made);
			break;
		case QML_SEARCH_IS_ID:
			make_id(made);
			break;
		case QML_SEARCH_IS_NUMBER:
			make_number(made);
			break;
		case QML_SEARCH_IS_TIME:
			make_time(made);
			break;
		case QML_SEARCH_IS_DURATION:
			make_duration(made);
			break;
		case QML_SEARCH_IS_JSON:
			make_json(made);
			break;
	}
}

static void
make_term(Made *made)
{
	QmlSearchField field = (QmlSearchField) draw(QML_SEARCH_FIELDS);
	const char *name = qml_search_field_name(field);
	int nvalues = 1 + (int) draw(3);

	if (draw(4) == 0)
	{
		put(made->query, "-");
		put(made->meaning, "-");
	}
	put_any_case(made->query, name);
	put(made->meaning, "%s", *name ? name : "word");
	if (qml_search_field_kind(field) == QML_SEARCH_IS_JSON)
	{
		for (int steps = 1 + (int) draw(3); steps > 0; steps--)
		{
			put(made->query, ".");
			put(made->meaning, "{");
			make_text(made, false, true);
			put(made->meaning, "}");
		}
	}
	if (*name)
		put(made->query, ":");
	for (int i = 0; i < nvalues; i++)
	{
		put(made->query, i > 0 ? "|" : "");
		put(made->meaning, i > 0 ? "|" : "=");
		make_value(made, field);
	}
}

int
main(int argc, char **argv)
{
	static Made made;
	static QmlSearchQuery query;
	static char shown[SHOWN_LENGTH];
	QmlSearchError error;
	int passed = 0;
	int failed = 0;
	int count;

	if (argc != 3)
		return 2;
	seed = strtoull(argv[1], NULL, 10) * 2 + 1;
	count = atoi(argv[2]);
	for (int i = 0; i < count; i++)
	{
		int terms = (int) draw(6);

		made.query[0] = made.meaning[0] = '\0';
		for (int j = 0; j < terms; j++)
		{
			put(made.query, j > 0 || draw(2) ? (draw(2) ? " " : "\t\n") : "");
			put(made.meaning, j > 0 ? "; " : "");
			make_term(&made);
		}
		if (qml_search_parse(made.query, &utc_clock, &query, &error))
			show_query(&query, shown);
		else
			show_error(made.query, &error, shown);
		if (strcmp(shown, made.meaning) == 0)
			passed++;
		else if (++failed <= 10)
			printf("%s\n   wanted %s\n   found  %s\n", made.query, made.meaning, shown);
	}
	printf("%d passed, %d failed\n", passed, failed);
	return failed > 0;
}
