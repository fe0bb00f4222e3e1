/*
 * fuzz.c
 *		Fuzz target for queries: any bytes.
 *
 * What is understood is within bounds, and a query that is written of it means the same.  What is
 * refused has a place and a reason.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/state.h"
#include "show.h"

#define LONGEST (QML_SEARCH_MAX_LENGTH + 20)

extern int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(condition) ((condition) ? (void) 0 : give_up(#condition, __LINE__))

static __attribute__((noreturn)) void
give_up(const char *condition, int line)
{
	fprintf(stderr, "fuzz.c:%d: does not hold: %s\n", line, condition);
	abort();
}

static void
check_error(const char *text, const QmlSearchError *error)
{
	REQUIRE(error->position >= 0 && error->position <= (int) strlen(text));
	REQUIRE(error->length >= 0 && error->length <= (int) strlen(text) - error->position);
	REQUIRE(memchr(error->reason, '\0', sizeof(error->reason)) != NULL && error->reason[0] != '\0');
	REQUIRE(error->allowed == NULL || error->allowed[0] != '\0');
	for (int i = 0; error->names && error->names[i]; i++)
		REQUIRE(error->names[i][0] != '\0');
}

/* A text lies within the query, and ends there. */
static void
check_text(const QmlSearchQuery *query, const char *text)
{
	REQUIRE(text >= query->texts && text < query->texts + query->used);
	REQUIRE(text + strlen(text) < query->texts + query->used);
}

static void
check_value(const QmlSearchQuery *query, QmlSearchKind kind, const QmlSearchValue *value)
{
	REQUIRE(value->low <= value->high);
	switch (kind)
	{
		case QML_SEARCH_IS_TEXT:
			check_text(query, value->text);
			break;
		case QML_SEARCH_IS_STATE:
			REQUIRE(value->state >= 0 && value->state < QML_STATES);
			break;
		case QML_SEARCH_IS_JSON:
			REQUIRE(value->text || value->is_range);
			REQUIRE(!value->is_range || value->text || value->until);
			REQUIRE(!value->low_open || value->text);
			REQUIRE(!value->high_open || value->until);
			if (value->text)
				check_text(query, value->text);
			if (value->until)
				check_text(query, value->until);
			break;
		case QML_SEARCH_IS_ID:
			break;
		default:
			REQUIRE(value->low != INT64_MIN || value->high != INT64_MAX);
	}
}

static void
check_query(const char *text, const QmlSearchQuery *query)
{
	int values = 0;
	int steps = 0;

	REQUIRE(query->nterms >= 0 && query->nterms <= QML_SEARCH_MAX_TERMS);
	REQUIRE(query->used <= sizeof(query->texts));
	for (int i = 0; i < query->nterms; i++)
	{
		const QmlSearchTerm *term = &query->terms[i];
		QmlSearchKind kind = qml_search_field_kind(term->field);

		REQUIRE(term->field >= 0 && term->field < QML_SEARCH_FIELDS);
		REQUIRE(term->position >= 0 && term->position < (int) strlen(text));
		REQUIRE(term->nvalues > 0 && term->first_value == values);
		REQUIRE((term->nsteps > 0) == (kind == QML_SEARCH_IS_JSON));
		REQUIRE(term->nsteps == 0 || term->first_step == steps);
		for (int j = 0; j < term->nsteps; j++)
			check_text(query, query->steps[steps++]);
		for (int j = 0; j < term->nvalues; j++)
			check_value(query, kind, &query->values[values++]);
	}
	REQUIRE(values == query->nvalues && steps == query->nsteps);
}

/* A query that is written anew means the same. */
static void
check_written(const QmlSearchQuery *query)
{
	static QmlSearchQuery again;
	static char written[SHOWN_LENGTH];
	static char meant[SHOWN_LENGTH];
	static char found[SHOWN_LENGTH];
	QmlSearchError error;

	if (!write_query(query, written) || strlen(written) > QML_SEARCH_MAX_LENGTH)
		return;
	show_query(query, meant);
	REQUIRE(qml_search_parse(written, &utc_clock, &again, &error));
	show_query(&again, found);
	REQUIRE(strcmp(meant, found) == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static QmlSearchQuery query;
	static QmlSearchQuery other;
	static char text[LONGEST + 1];
	QmlSearchError error;
	bool valid;

	if (size > LONGEST)
		size = LONGEST;
	memcpy(text, data, size);
	text[size] = '\0';
	memset(&query, 0x55, sizeof(query));
	memset(&error, 0x55, sizeof(error));
	valid = qml_search_parse(text, &test_clock, &query, &error);
	if (valid)
		check_query(text, &query);
	else
		check_error(text, &error);
	valid = qml_search_parse(text, &utc_clock, &other, &error);
	if (valid)
		check_written(&other);
	return 0;
}
