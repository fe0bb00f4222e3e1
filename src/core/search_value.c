/*
 * search_value.c
 *		Values in queries of qml_search(): numbers, times, durations, states, ids.
 *
 * The head of search_query.c says what they mean.
 */
#include <string.h>

#include "core/ascii.h"
#include "core/search_query.h"
#include "core/state.h"

/* How a value is compared. */
typedef enum Comparison
{
	IS_EQUAL = 0,
	IS_LESS,
	IS_LESS_OR_EQUAL,
	IS_GREATER,
	IS_GREATER_OR_EQUAL,
	IS_RANGE
} Comparison;

/* What a value that can be a range consists of. */
typedef struct Parts
{
	Comparison comparison;
	const char *low; /* not ended by NUL; of all but ranges, the one value there is */
	int low_length;
	const char *high;
	int high_length;
} Parts;

/* A value, or one end of a range, from its first microsecond to its last. */
typedef struct Span
{
	int64_t first;
	int64_t last;
} Span;

#define MICROSECOND	 INT64_C(1)
#define SECOND		 INT64_C(1000000)
#define LONGEST_TIME (INT64_C(36525) * 86400 * SECOND) /* a hundred years */
#define MOST_DIGITS	 18
#define NUMBERS		 "Allowed are integers as 5, >5, >=5, <5, <=5, 1..5, 5.. and ..5."
#define DURATIONS \
	"Allowed are durations as >10s, <=1h30m, 1m..5m and ..5m; units are ms, s, m, h, d and w."
#define TIMES                                                                                   \
	"Allowed are times as 2026-11-01, 2026-11-01T12:30, >2026-11, 2026-11-01..2026-11-02, and " \
	"ages as <1h, >2d and 2h..1h; units are ms, s, m, h, d and w."

static const char *const state_names[] = {
	"scheduled", "enqueued", "processing",		 "awaiting_retry", "succeeded",
	"failed",	 "deleted",	 "awaiting_parents", (char *) 0,
};

static bool
refuse(const QmlSearchSource *source, const char *allowed, const char *reason)
{
	return qml_search_refuse(source->error, source->query, source->at, source->length, allowed,
							 "%s", reason);
}

/* ----- comparisons and ranges ----- */

/* Takes the comparison off, or the two ends of a range apart. */
static void
split(const char *text, Parts *parts)
{
	const char *dots = strstr(text, "..");

	memset(parts, 0, sizeof(*parts));
	if (*text == '<' || *text == '>')
	{
		bool or_equal = text[1] == '=';

		if (*text == '<')
			parts->comparison = or_equal ? IS_LESS_OR_EQUAL : IS_LESS;
		else
			parts->comparison = or_equal ? IS_GREATER_OR_EQUAL : IS_GREATER;
		parts->low = text + (or_equal ? 2 : 1);
		parts->low_length = (int) strlen(parts->low);
		return;
	}
	parts->low = text;
	if (dots == NULL)
	{
		parts->low_length = (int) strlen(text);
		return;
	}
	parts->comparison = IS_RANGE;
	parts->low_length = (int) (dots - text);
	parts->high = dots + 2;
	parts->high_length = (int) strlen(parts->high);
}

/* The bounds of a value that was compared, or of a range; false: there is nothing in it. */
static bool
set_bounds(Comparison comparison, const Span *low, const Span *high, QmlSearchValue *value)
{
	switch (comparison)
	{
		case IS_EQUAL:
			value->low = low->first;
			value->high = low->last;
			break;
		case IS_LESS:
			value->high = low->first - 1;
			break;
		case IS_LESS_OR_EQUAL:
			value->high = low->last;
			break;
		case IS_GREATER:
			value->low = low->last + 1;
			break;
		case IS_GREATER_OR_EQUAL:
			value->low = low->first;
			break;
		case IS_RANGE:
			value->low = low ? low->first : INT64_MIN;
			value->high = high ? high->last : INT64_MAX;
			break;
	}
	return value->low <= value->high;
}

/* ----- integers ----- */

/* Reads all of a text as an integer; false: it is none, or too large. */
static bool
read_integer(const char *text, int length, Span *span)
{
	bool negative = length > 0 && *text == '-';
	int64_t number = 0;

	if (negative)
	{
		text++;
		length--;
	}
	if (length < 1 || length > MOST_DIGITS)
		return false;
	for (int i = 0; i < length; i++)
	{
		if (!qml_ascii_is_digit(text[i]))
			return false;
		number = number * 10 + (text[i] - '0');
	}
	span->first = span->last = negative ? -number : number;
	return true;
}

/* ----- durations ----- */

/* The unit that a text begins with, in microseconds; 0: none. */
static int64_t
read_unit(const char **text, const char *end)
{
	static const struct
	{
		const char *name;
		int64_t length;
	} units[] = {
		{"ms", 1000},		  {"s", SECOND},		 {"m", 60 * SECOND},
		{"h", 3600 * SECOND}, {"d", 86400 * SECOND}, {"w", 7 * 86400 * SECOND},
	};
	const char *begin = *text;
	const char *p = begin;

	while (p < end && !qml_ascii_is_digit(*p) && *p != '.')
		p++;
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
	{
		if (!qml_ascii_is_word(begin, (size_t) (p - begin), units[i].name))
			continue;
		*text = p;
		return units[i].length;
	}
	return 0;
}

/* Reads a number with a unit, such as 1.5h; false: it is none, or too large. */
static bool
read_part(const char **text, const char *end, int64_t *sum)
{
	const char *p = *text;
	int64_t whole = 0;
	int64_t fraction = 0;
	int64_t scale = 1;
	int64_t unit;

	if (p >= end || !qml_ascii_is_digit(*p))
		return false;
	for (; p < end && qml_ascii_is_digit(*p); p++)
	{
		whole = whole * 10 + (*p - '0');
		if (whole > LONGEST_TIME)
			return false;
	}
	if (p < end && *p == '.')
	{
		p++;
		if (p >= end || !qml_ascii_is_digit(*p))
			return false;
		for (; p < end && qml_ascii_is_digit(*p); p++)
		{
			/* More digits than microseconds can have are left out. */
			if (scale < SECOND)
			{
				fraction = fraction * 10 + (*p - '0');
				scale *= 10;
			}
		}
	}
	unit = read_unit(&p, end);
	if (unit == 0 || whole > LONGEST_TIME / unit)
		return false;
	/* A fraction of a week is less than 6 * 10^17 before it is divided. */
	*sum += whole * unit + fraction * unit / scale;
	*text = p;
	return *sum <= LONGEST_TIME;
}

/* Reads all of a text as a duration. */
static bool
read_duration(const char *text, int length, int64_t *duration)
{
	const char *end = text + length;

	*duration = 0;
	do
	{
		if (!read_part(&text, end, duration))
			return false;
	} while (text < end);
	return true;
}

/* ----- times ----- */

/* Reads so many digits. */
static bool
read_digits(const char **text, const char *end, int count, int *number)
{
	const char *p = *text;

	*number = 0;
	for (int i = 0; i < count; i++, p++)
	{
		if (p >= end || !qml_ascii_is_digit(*p))
			return false;
		*number = *number * 10 + (*p - '0');
	}
	*text = p;
	return true;
}

/* Whether the next byte is this one; it is read then. */
static bool
read_byte(const char **text, const char *end, char byte)
{
	if (*text >= end || **text != byte)
		return false;
	(*text)++;
	return true;
}

static bool
read_fraction(const char **text, const char *end, int *microsecond, int64_t *step)
{
	const char *p = *text;

	*step = SECOND;
	*microsecond = 0;
	for (; p < end && qml_ascii_is_digit(*p); p++)
	{
		if (*step == MICROSECOND)
			return false;
		*step /= 10;
		*microsecond += (*p - '0') * (int) *step;
	}
	if (p == *text)
		return false;
	*text = p;
	return true;
}

/* Reads Z, +02, +0230 or +02:30. */
static bool
read_zone(const char **text, const char *end, QmlSearchCivil *civil)
{
	const char *p = *text;
	int hours;
	int minutes = 0;
	bool west = *p == '-';

	if (*p == 'Z' || *p == 'z')
	{
		*text = p + 1;
		civil->has_zone = true;
		return true;
	}
	if (*p != '+' && *p != '-')
		return false;
	p++;
	if (!read_digits(&p, end, 2, &hours) || hours > 15)
		return false;
	if ((read_byte(&p, end, ':') || p < end) &&
		(!read_digits(&p, end, 2, &minutes) || minutes > 59))
		return false;
	civil->has_zone = true;
	civil->offset = (west ? -1 : 1) * (hours * 3600 + minutes * 60);
	*text = p;
	return true;
}

static int
days_in_month(int year, int month)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

	return month == 2 && leap ? 29 : days[month - 1];
}

/* The units that a time can leave open: it lasts for one of them. */
typedef enum Precision
{
	YEAR,
	MONTH,
	DAY,
	HOUR,
	MINUTE,
	SUBSECOND /* a second, or a fraction of it */
} Precision;

/* Reads hour, minute, second and their zone, as far as they are there. */
static bool
read_time_of_day(const char **text, const char *end, QmlSearchCivil *civil, Precision *precision,
				 int64_t *step)
{
	if (!read_digits(text, end, 2, &civil->hour) || civil->hour > 23)
		return false;
	*precision = HOUR;
	if (read_byte(text, end, ':'))
	{
		if (!read_digits(text, end, 2, &civil->minute) || civil->minute > 59)
			return false;
		*precision = MINUTE;
		if (read_byte(text, end, ':'))
		{
			if (!read_digits(text, end, 2, &civil->second) || civil->second > 59)
				return false;
			*precision = SUBSECOND;
			if (read_byte(text, end, '.') && !read_fraction(text, end, &civil->microsecond, step))
				return false;
		}
	}
	return *text >= end || read_zone(text, end, civil);
}

/* Reads all of a text as a time. */
static bool
read_civil(const char *text, int length, QmlSearchCivil *civil, Precision *precision, int64_t *step)
{
	const char *end = text + length;

	memset(civil, 0, sizeof(*civil));
	civil->month = civil->day = 1;
	*precision = YEAR;
	*step = SECOND;
	if (!read_digits(&text, end, 4, &civil->year) || civil->year < 1)
		return false;
	if (read_byte(&text, end, '-'))
	{
		if (!read_digits(&text, end, 2, &civil->month) || civil->month < 1 || civil->month > 12)
			return false;
		*precision = MONTH;
		if (read_byte(&text, end, '-'))
		{
			if (!read_digits(&text, end, 2, &civil->day) || civil->day < 1 ||
				civil->day > days_in_month(civil->year, civil->month))
				return false;
			*precision = DAY;
			if ((read_byte(&text, end, 'T') || read_byte(&text, end, 't') ||
				 read_byte(&text, end, ' ')) &&
				!read_time_of_day(&text, end, civil, precision, step))
				return false;
		}
	}
	return text == end;
}

/* The beginning of what comes after a time that leaves something open. */
static void
move_on(QmlSearchCivil *civil, Precision precision)
{
	switch (precision)
	{
		case SUBSECOND:
		case MINUTE:
			if (++civil->minute < 60)
				return;
			civil->minute = 0;
			/* FALLTHROUGH */
		case HOUR:
			if (++civil->hour < 24)
				return;
			civil->hour = 0;
			/* FALLTHROUGH */
		case DAY:
			if (++civil->day <= days_in_month(civil->year, civil->month))
				return;
			civil->day = 1;
			/* FALLTHROUGH */
		case MONTH:
			if (++civil->month <= 12)
				return;
			civil->month = 1;
			/* FALLTHROUGH */
		case YEAR:
			civil->year++;
	}
}

/*
 * Reads a time, with all that it leaves open.  Where clocks are changed, hours of local time may be
 * longer or shorter: the end is the beginning of what comes next.
 */
static bool
read_time(const QmlSearchClock *clock, const char *text, int length, Span *span)
{
	QmlSearchCivil civil;
	Precision precision;
	int64_t step;

	if (!read_civil(text, length, &civil, &precision, &step) ||
		!clock->instant(clock, &civil, &span->first))
		return false;
	if (precision == SUBSECOND)
		span->last = span->first + step - 1;
	else
	{
		move_on(&civil, precision);
		if (!clock->instant(clock, &civil, &span->last))
			return false;
		span->last--;
	}
	/* An hour that is not there, because clocks were put forward, is no time. */
	return span->first <= span->last;
}

/* Reads a time, or an age as the moment so long ago. */
static bool
read_moment(const QmlSearchClock *clock, const char *text, int length, Span *span, bool *is_age)
{
	int64_t age;

	*is_age = read_duration(text, length, &age);
	if (*is_age)
	{
		span->first = span->last = clock->now - age;
		return true;
	}
	return read_time(clock, text, length, span);
}

/* ----- values ----- */

/* Reads one value, or one end of a range. */
static bool
read_span(const QmlSearchSource *source, QmlSearchKind kind, const char *text, int length,
		  Span *span, bool *is_age)
{
	int64_t duration;

	*is_age = false;
	switch (kind)
	{
		case QML_SEARCH_IS_NUMBER:
			return read_integer(text, length, span);
		case QML_SEARCH_IS_DURATION:
			if (!read_duration(text, length, &duration))
				return false;
			span->first = span->last = duration;
			return true;
		default:
			return read_moment(source->clock, text, length, span, is_age);
	}
}

/* An age is compared by its length, and times run the other way. */
static Comparison
turn_around(Comparison comparison)
{
	switch (comparison)
	{
		case IS_LESS:
			return IS_GREATER;
		case IS_LESS_OR_EQUAL:
			return IS_GREATER_OR_EQUAL;
		case IS_GREATER:
			return IS_LESS;
		case IS_GREATER_OR_EQUAL:
			return IS_LESS_OR_EQUAL;
		default:
			return comparison;
	}
}

/* Reads numbers, times or durations. */
static bool
read_range(const QmlSearchSource *source, QmlSearchKind kind, QmlSearchValue *value)
{
	const char *allowed = kind == QML_SEARCH_IS_NUMBER	 ? NUMBERS :
						  kind == QML_SEARCH_IS_DURATION ? DURATIONS :
														   TIMES;
	const char *what = kind == QML_SEARCH_IS_NUMBER	  ? "it is not a number" :
					   kind == QML_SEARCH_IS_DURATION ? "it is not a duration" :
														"it is not a time";
	Parts parts;
	Span low = {0, 0};
	Span high = {0, 0};
	bool is_age = false;
	bool ends_with_age;

	split(source->text, &parts);
	if (parts.comparison == IS_RANGE && parts.low_length == 0 && parts.high_length == 0)
		return refuse(source, allowed, "a range needs a beginning or an end");
	if ((parts.comparison != IS_RANGE || parts.low_length > 0) &&
		!read_span(source, kind, parts.low, parts.low_length, &low, &is_age))
		return refuse(source, allowed, what);
	if (parts.high_length > 0 &&
		!read_span(source, kind, parts.high, parts.high_length, &high, &ends_with_age))
		return refuse(source, allowed, what);
	if (is_age && parts.comparison == IS_EQUAL)
		return refuse(source, allowed, "an age needs < or >");
	if (is_age)
		parts.comparison = turn_around(parts.comparison);
	if (!set_bounds(parts.comparison,
					parts.comparison == IS_RANGE && parts.low_length == 0 ? NULL : &low,
					parts.high_length > 0 ? &high : NULL, value))
		return refuse(source, allowed, "the range ends before it begins");
	return true;
}

static bool
read_state(const QmlSearchSource *source, QmlSearchValue *value)
{
	for (int i = 0; i < QML_STATES; i++)
	{
		if (!qml_ascii_is_word(source->text, strlen(source->text), qml_state_label((QmlState) i)))
			continue;
		value->state = (QmlState) i;
		return true;
	}
	(void) refuse(source,
				  "States are scheduled, enqueued, processing, awaiting_retry, awaiting_parents, "
				  "succeeded, failed and deleted.",
				  "there is no such state");
	source->error->names = state_names;
	return false;
}

static int
read_hex(char c)
{
	if (qml_ascii_is_digit(c))
		return c - '0';
	c = qml_ascii_lower(c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Reads all of a text as an id: 32 digits, with all hyphens or none. */
bool
qml_search_read_id(const char *text, unsigned char *id)
{
	size_t length = strlen(text);
	int digits = 0;

	if (length != 32 && length != 36)
		return false;
	for (size_t i = 0; i < length; i++)
	{
		int digit = read_hex(text[i]);
		bool is_hyphen = length == 36 && (i == 8 || i == 13 || i == 18 || i == 23);

		if (is_hyphen && text[i] == '-')
			continue;
		if (is_hyphen || digit < 0)
			return false;
		if (digits % 2 == 0)
			id[digits / 2] = (unsigned char) (digit << 4);
		else
			id[digits / 2] |= (unsigned char) digit;
		digits++;
	}
	return true;
}

/* Whether all of a text is a number as JSON has them, though zeros can come first. */
static bool
is_json_number(const char *text, int length)
{
	const char *end = text + length;
	const char *digits;

	if (length > 0 && *text == '-')
		text++;
	digits = text;
	while (text < end && qml_ascii_is_digit(*text))
		text++;
	if (text == digits)
		return false;
	if (text < end && *text == '.')
	{
		digits = ++text;
		while (text < end && qml_ascii_is_digit(*text))
			text++;
		if (text == digits)
			return false;
	}
	if (text < end && (*text == 'e' || *text == 'E'))
	{
		text++;
		if (text < end && (*text == '+' || *text == '-'))
			text++;
		digits = text;
		while (text < end && qml_ascii_is_digit(*text))
			text++;
		/* More would not be a number of the server. */
		if (text == digits || text - digits > 3)
			return false;
	}
	return text == end;
}

/* Keeps a part of a text. */
static const char *
keep(QmlSearchQuery *query, const char *text, int length)
{
	char *kept = query->texts + query->used;

	memcpy(kept, text, (size_t) length);
	kept[length] = '\0';
	query->used += (size_t) length + 1;
	return kept;
}

/* Reads what a member of a document is compared with. */
static bool
read_json(const QmlSearchSource *source, QmlSearchQuery *query, QmlSearchValue *value)
{
	Parts parts;
	bool has_low;
	bool has_high;

	value->text = source->text;
	value->is_number = is_json_number(source->text, (int) strlen(source->text));
	if (source->quoted)
		return true;
	split(source->text, &parts);
	if (parts.comparison == IS_EQUAL)
		return true;
	has_low = parts.low_length > 0;
	has_high = parts.high_length > 0;
	if ((has_low && !is_json_number(parts.low, parts.low_length)) ||
		(has_high && !is_json_number(parts.high, parts.high_length)) || (!has_low && !has_high))
	{
		/* Dots are nothing special in a text. */
		if (parts.comparison == IS_RANGE)
			return true;
		return refuse(source, "Text that begins with < or > can be put in quotes.",
					  "no number stands after the comparison");
	}
	value->is_range = true;
	value->is_number = false;
	value->low_open = parts.comparison == IS_GREATER;
	value->high_open = parts.comparison == IS_LESS;
	if (parts.comparison == IS_LESS || parts.comparison == IS_LESS_OR_EQUAL)
	{
		parts.high = parts.low;
		parts.high_length = parts.low_length;
		has_high = true;
		has_low = false;
	}
	value->text = has_low ? keep(query, parts.low, parts.low_length) : NULL;
	value->until = has_high ? keep(query, parts.high, parts.high_length) : NULL;
	return true;
}

/* Reads a value of a field of this kind; *value has no bounds before. */
bool
qml_search_read_value(const QmlSearchSource *source, QmlSearchKind kind, QmlSearchQuery *query,
					  QmlSearchValue *value)
{
	switch (kind)
	{
		case QML_SEARCH_IS_TEXT:
			value->text = source->text;
			return true;
		case QML_SEARCH_IS_STATE:
			return read_state(source, value);
		case QML_SEARCH_IS_ID:
			if (qml_search_read_id(source->text, value->id))
				return true;
			return refuse(source, "An id is complete: 32 digits, with all hyphens or none.",
						  "it is not the id of a job");
		case QML_SEARCH_IS_JSON:
			return read_json(source, query, value);
		default:
			return read_range(source, kind, value);
	}
}
