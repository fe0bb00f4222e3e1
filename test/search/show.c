/*
 * show.c
 *		Queries of the tests: a clock, and a query as text.
 *
 * show_query() shows what was understood, for comparisons.  write_query() writes a query that means
 * the same, in the simplest form: what it makes must be understood in the same way.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/state.h"
#include "show.h"

#define SECOND		  INT64_C(1000000)
#define SUMMER_BEGINS INT64_C(1774746000)
#define SUMMER_ENDS	  INT64_C(1792890000)
#define LARGEST		  INT64_C(999999999999999999)

/* Days since 1970-01-01, counted year by year. */
static int64_t
count_days(int year, int month, int day)
{
	static const int before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
	int64_t years = year - 1;
	int64_t leap_days = years / 4 - years / 100 + years / 400;
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

	/* 719162 days came before 1970. */
	return years * 365 + leap_days + before[month - 1] + (leap && month > 2) + day - 1 - 719162;
}

static int64_t
local_seconds(const QmlSearchCivil *civil)
{
	return count_days(civil->year, civil->month, civil->day) * 86400 + civil->hour * 3600 +
		   civil->minute * 60 + civil->second;
}

static bool
test_instant(const QmlSearchClock *clock, const QmlSearchCivil *civil, int64_t *at)
{
	int64_t local = local_seconds(civil);
	int64_t seconds = local - 3600;

	(void) clock;
	if (civil->year > 9999)
		return false;
	if (civil->has_zone)
		seconds = local - civil->offset;
	else if (local - 7200 >= SUMMER_BEGINS && local - 7200 < SUMMER_ENDS)
		seconds = local - 7200;
	*at = seconds * SECOND + civil->microsecond;
	return true;
}

static bool
utc_instant(const QmlSearchClock *clock, const QmlSearchCivil *civil, int64_t *at)
{
	(void) clock;
	if (civil->year > 9999)
		return false;
	*at = (local_seconds(civil) - (civil->has_zone ? civil->offset : 0)) * SECOND +
		  civil->microsecond;
	return true;
}

const QmlSearchClock test_clock = {.now = TEST_NOW, .instant = test_instant, .zone = NULL};
const QmlSearchClock utc_clock = {.now = TEST_NOW, .instant = utc_instant, .zone = NULL};

/* A time of years 1 to 9999, in UTC. */
void
show_time(int64_t at, char *out)
{
	int64_t fraction = at % SECOND;
	time_t seconds = (time_t) (at / SECOND);
	struct tm tm;

	if (fraction < 0)
	{
		fraction += SECOND;
		seconds--;
	}
	if (gmtime_r(&seconds, &tm) == NULL)
		abort();
	sprintf(out, "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ", tm.tm_year + 1900, tm.tm_mon + 1,
			tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, (int) fraction);
}

static char *
add(char *out, const char *text)
{
	size_t length = strlen(text);

	memcpy(out, text, length + 1);
	return out + length;
}

static char *
add_bound(char *out, QmlSearchKind kind, int64_t bound)
{
	if (kind == QML_SEARCH_IS_TIME)
		show_time(bound, out);
	else if (kind == QML_SEARCH_IS_DURATION)
		sprintf(out, "%" PRId64 ".%06" PRId64 "s", bound / SECOND, bound % SECOND);
	else
		sprintf(out, "%" PRId64, bound);
	return out + strlen(out);
}

static char *
add_range(char *out, QmlSearchKind kind, const QmlSearchValue *value)
{
	if (value->low != INT64_MIN)
		out = add_bound(out, kind, value->low);
	if (value->low == value->high)
		return out;
	out = add(out, "..");
	if (value->high != INT64_MAX)
		out = add_bound(out, kind, value->high);
	return out;
}

static char *
add_id(char *out, const unsigned char *id)
{
	for (int i = 0; i < 16; i++, out += 2)
		sprintf(out, "%02x", id[i]);
	return out;
}

static char *
show_value(char *out, QmlSearchKind kind, const QmlSearchValue *value)
{
	switch (kind)
	{
		case QML_SEARCH_IS_TEXT:
			return add(out, value->text);
		case QML_SEARCH_IS_STATE:
			return add(out, qml_state_label(value->state));
		case QML_SEARCH_IS_ID:
			return add_id(out, value->id);
		case QML_SEARCH_IS_JSON:
			if (!value->is_range)
				return add(value->is_number ? add(out, "#") : out, value->text);
			out = add(out, value->low_open ? "(" : "[");
			out = add(out, value->text ? value->text : "");
			out = add(out, "..");
			out = add(out, value->until ? value->until : "");
			return add(out, value->high_open ? ")" : "]");
		default:
			return add_range(out, kind, value);
	}
}

/* What was understood: -field{step}{step}=value|value; ... */
void
show_query(const QmlSearchQuery *query, char *out)
{
	*out = '\0';
	for (int i = 0; i < query->nterms; i++)
	{
		const QmlSearchTerm *term = &query->terms[i];
		const char *name = qml_search_field_name(term->field);

		out = add(out, i > 0 ? "; " : "");
		out = add(out, term->negated ? "-" : "");
		out = add(out, *name ? name : "word");
		for (int j = 0; j < term->nsteps; j++)
			out = add(add(add(out, "{"), query->steps[term->first_step + j]), "}");
		for (int j = 0; j < term->nvalues; j++)
			out = show_value(add(out, j > 0 ? "|" : "="), qml_search_field_kind(term->field),
							 &query->values[term->first_value + j]);
	}
}

static char *
add_quoted(char *out, const char *text)
{
	*out++ = '"';
	for (; *text; text++)
	{
		if (*text == '"' || *text == '\\')
			*out++ = '\\';
		*out++ = *text;
	}
	return add(out, "\"");
}

/* Whether a bound can be written: it may be beside the first or last that can. */
static bool
can_write_bound(QmlSearchKind kind, int64_t bound)
{
	int64_t first = kind == QML_SEARCH_IS_DURATION ? 0 :
					kind == QML_SEARCH_IS_TIME	   ? count_days(1, 1, 1) * 86400 * SECOND :
													 -LARGEST;
	int64_t last = kind == QML_SEARCH_IS_DURATION ? INT64_C(36525) * 86400 * SECOND :
				   kind == QML_SEARCH_IS_TIME	  ? count_days(9999, 12, 31) * 86400 * SECOND :
													LARGEST;

	return bound == INT64_MIN || bound == INT64_MAX || (bound >= first && bound <= last);
}

static char *
write_json(char *out, const QmlSearchValue *value)
{
	if (!value->is_range)
		return add_quoted(out, value->text);
	if (value->low_open)
		return add(add(out, ">"), value->text);
	if (value->high_open)
		return add(add(out, "<"), value->until);
	out = add(out, value->text ? value->text : "");
	out = add(out, "..");
	return add(out, value->until ? value->until : "");
}

/* False: one of its values cannot be written. */
bool
write_query(const QmlSearchQuery *query, char *out)
{
	*out = '\0';
	for (int i = 0; i < query->nterms; i++)
	{
		const QmlSearchTerm *term = &query->terms[i];
		QmlSearchKind kind = qml_search_field_kind(term->field);

		out = add(out, term->negated ? " -" : " ");
		out = add(out, qml_search_field_name(term->field));
		for (int j = 0; j < term->nsteps; j++)
			out = add_quoted(add(out, "."), query->steps[term->first_step + j]);
		out = add(out, term->field == QML_SEARCH_WORD ? "" : ":");
		for (int j = 0; j < term->nvalues; j++)
		{
			const QmlSearchValue *value = &query->values[term->first_value + j];

			out = add(out, j > 0 ? "|" : "");
			if (!can_write_bound(kind, value->low) || !can_write_bound(kind, value->high))
				return false;
			if (kind == QML_SEARCH_IS_TEXT)
				out = add_quoted(out, value->text);
			else if (kind == QML_SEARCH_IS_JSON)
				out = write_json(out, value);
			else
				out = show_value(out, kind, value);
		}
	}
	return true;
}

/* Why a query was refused. */
void
show_error(const char *query, const QmlSearchError *error, char *out)
{
	sprintf(out, "%.*s @ %d: %s", error->length, query + error->position, error->position,
			error->reason);
}
