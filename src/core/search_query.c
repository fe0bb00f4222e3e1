/*
 * search_query.c
 *		Queries of qml_search(): what they mean, and parsing.
 *
 * A query is a list of terms, separated by blanks (tabs and line ends are blanks), all of which a
 * job must match.  An empty query matches every job.
 *
 *	term	[-] [field:] value { | value }
 *
 * A term matches if one of its values does, and with a minus if none does.  A value is a word, or
 * anything in double quotes, in which \" and \\ stand for " and \.  What has no field is sought in
 * method and error; if it is a complete id, it is one.  Names of fields and states can be in upper
 * case, too.
 *
 *	field						value
 *	state						scheduled, enqueued, processing, ...
 *	queue method type worker	a name, which must be equal
 *	server by error_type fingerprint
 *	error						a text that the latest error contains, in upper or lower case
 *	id							a complete id
 *	priority attempt			integers: 5  >5  >=5  <5  <=5  1..5  5..  ..5
 *	payload.a.b metadata.a.b	a text that the member is equal to, or numbers as above; steps of the
 *								path are names, or numbers in arrays, and can be in quotes
 *	created finished			times, likewise, or ages: <1h is younger than an hour, >2d older than
 *								two days; in a range an age is the moment so long ago: 2h..1h
 *	run wait					durations: >10s  <=1h30m  1m..5m
 *
 * A time is 2026, 2026-11, 2026-11-01, 2026-11-01T12, ...T12:30, ...T12:30:15 or ...:15.5, and may
 * end with Z, +02 or +02:30 when it has an hour.  In quotes the T can be a blank.  It stands for
 * all that it leaves open: 2026-11-01 is the whole day, and 2026-11-01..2026-11-02 are two days.
 * Durations and ages are numbers with units: ms, s, m, h, d, w; 1.5h and 1h30m are the same.
 *
 * The values themselves are read in search_value.c.
 */
#include "core/search_query.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/ascii.h"

static const struct
{
	const char *name;
	QmlSearchKind kind;
} fields[QML_SEARCH_FIELDS] = {
	{"", QML_SEARCH_IS_TEXT},			{"state", QML_SEARCH_IS_STATE},
	{"queue", QML_SEARCH_IS_TEXT},		{"method", QML_SEARCH_IS_TEXT},
	{"type", QML_SEARCH_IS_TEXT},		{"worker", QML_SEARCH_IS_TEXT},
	{"server", QML_SEARCH_IS_TEXT},		{"by", QML_SEARCH_IS_TEXT},
	{"id", QML_SEARCH_IS_ID},			{"priority", QML_SEARCH_IS_NUMBER},
	{"attempt", QML_SEARCH_IS_NUMBER},	{"payload", QML_SEARCH_IS_JSON},
	{"metadata", QML_SEARCH_IS_JSON},	{"error", QML_SEARCH_IS_TEXT},
	{"error_type", QML_SEARCH_IS_TEXT}, {"fingerprint", QML_SEARCH_IS_TEXT},
	{"created", QML_SEARCH_IS_TIME},	{"finished", QML_SEARCH_IS_TIME},
	{"run", QML_SEARCH_IS_DURATION},	{"wait", QML_SEARCH_IS_DURATION},
};

/* The same for whoever looks for the one that was meant. */
static const char *const field_names[] = {
	"state",	   "queue",	   "method",   "type",	  "worker",	  "server",	  "by",
	"id",		   "priority", "attempt",  "payload", "metadata", "error",	  "error_type",
	"fingerprint", "created",  "finished", "run",	  "wait",	  (char *) 0,
};

#define FIELDS_ALLOWED                                                                         \
	"Fields are state, queue, method, type, worker, server, by, id, priority, attempt, "       \
	"payload.path, metadata.path, error, error_type, fingerprint, created, finished, run and " \
	"wait.  Text that contains a colon can be put in quotes."

/* The query that is being read. */
typedef struct Reader
{
	const char *text;
	const char *at; /* what comes next */
	const QmlSearchClock *clock;
	QmlSearchQuery *query;
	QmlSearchError *error;
} Reader;

const char *
qml_search_field_name(QmlSearchField field)
{
	return fields[field].name;
}

QmlSearchKind
qml_search_field_kind(QmlSearchField field)
{
	return fields[field].kind;
}

/*
 * Notes why a part of a query is refused.  Returns false, so that it can end a function.
 * allowed: what can stand there instead, or NULL.
 */
bool
qml_search_refuse(QmlSearchError *error, const char *query, const char *at, int length,
				  const char *allowed, const char *format, ...)
{
	va_list args;

	error->position = (int) (at - query);
	error->length = length;
	error->allowed = allowed;
	error->names = NULL;
	va_start(args, format);
	(void) vsnprintf(error->reason, sizeof(error->reason), format, args);
	va_end(args);
	return false;
}

#define REFUSE(reader, at, length, allowed, ...) \
	qml_search_refuse((reader)->error, (reader)->text, at, (int) (length), allowed, __VA_ARGS__)

static bool
is_end_of_term(char c)
{
	return c == '\0' || qml_ascii_is_blank(c);
}

static void
skip_blanks(Reader *reader)
{
	while (qml_ascii_is_blank(*reader->at))
		reader->at++;
}

/* Room for a text of at most so many bytes and its end; there is enough for the whole query. */
static char *
get_room(QmlSearchQuery *query)
{
	return query->texts + query->used;
}

static void
end_text(QmlSearchQuery *query, char *end)
{
	*end++ = '\0';
	query->used = (size_t) (end - query->texts);
}

/* Reads what stands in quotes; at: the first of them. */
static bool
read_quoted(Reader *reader, const char **text)
{
	const char *begin = reader->at;
	char *out = get_room(reader->query);

	*text = out;
	for (const char *p = begin + 1; *p; p++)
	{
		if (*p == '"')
		{
			end_text(reader->query, out);
			reader->at = p + 1;
			return true;
		}
		if (*p == '\\' && (p[1] == '"' || p[1] == '\\'))
			p++;
		*out++ = *p;
	}
	return REFUSE(reader, begin, strlen(begin), NULL, "a quote is not closed");
}

/* Reads bytes of the query as they are. */
static const char *
read_plain(Reader *reader, const char *end)
{
	char *out = get_room(reader->query);
	size_t length = (size_t) (end - reader->at);

	memcpy(out, reader->at, length);
	end_text(reader->query, out + length);
	reader->at = end;
	return out;
}

static bool
is_comparison(const char *at)
{
	return *at == '<' || *at == '>';
}

/*
 * Reads the text of a value: a word, or what stands in quotes.  Comparisons before quotes are a
 * part of it.
 */
static bool
read_value_text(Reader *reader, QmlSearchKind kind, QmlSearchSource *source)
{
	const char *p = reader->at;
	bool compares = kind == QML_SEARCH_IS_NUMBER || kind == QML_SEARCH_IS_TIME ||
					kind == QML_SEARCH_IS_DURATION || kind == QML_SEARCH_IS_JSON;

	source->at = p;
	source->quoted = false;
	if (compares && is_comparison(p))
	{
		const char *quote = p + (p[1] == '=' ? 2 : 1);

		if (*quote == '"')
		{
			const char *inner;
			size_t length = (size_t) (quote - p);
			char *out = get_room(reader->query);

			/* The comparison, and then the rest without its quotes. */
			memcpy(out, p, length);
			reader->query->used += length;
			reader->at = quote;
			if (!read_quoted(reader, &inner))
				return false;
			source->text = out;
			source->length = (int) (reader->at - source->at);
			return true;
		}
	}
	if (*p == '"')
	{
		source->quoted = true;
		if (!read_quoted(reader, &source->text))
			return false;
		source->length = (int) (reader->at - source->at);
		return true;
	}
	while (!is_end_of_term(*p) && *p != '|' && *p != '"')
		p++;
	if (*p == '"')
		return REFUSE(reader, reader->at, p - reader->at + 1,
					  "A value is a word, or all of it is in double quotes.",
					  "a quote stands within a word");
	if (p == reader->at)
		return REFUSE(reader, source->at, 0, NULL, "a value is missing");
	source->text = read_plain(reader, p);
	source->length = (int) (p - source->at);
	return true;
}

static bool
read_value(Reader *reader, QmlSearchTerm *term)
{
	QmlSearchQuery *query = reader->query;
	QmlSearchKind kind = fields[term->field].kind;
	QmlSearchSource source = {.query = reader->text,
							  .clock = reader->clock,
							  .error = reader->error};
	QmlSearchValue *value;

	if (query->nvalues == QML_SEARCH_MAX_VALUES)
		return REFUSE(reader, reader->at, 0, NULL, "there are more than %d values",
					  QML_SEARCH_MAX_VALUES);
	if (!read_value_text(reader, kind, &source))
		return false;
	if (!is_end_of_term(*reader->at) && *reader->at != '|')
		return REFUSE(reader, reader->at, 1,
					  "After a value there is a blank, or | and another value.",
					  "it cannot stand after a quote");
	if (term->field == QML_SEARCH_WORD && !source.quoted && strchr(source.text, ':'))
		return REFUSE(reader, source.at, source.length,
					  "A term has one field, before all its values.",
					  "a word with a colon needs quotes");
	value = &query->values[query->nvalues];
	memset(value, 0, sizeof(*value));
	value->low = INT64_MIN;
	value->high = INT64_MAX;
	if (!qml_search_read_value(&source, kind, query, value))
		return false;
	query->nvalues++;
	term->nvalues++;
	return true;
}

/* Reads the values of a term. */
static bool
read_values(Reader *reader, QmlSearchTerm *term)
{
	term->first_value = reader->query->nvalues;
	for (;;)
	{
		if (!read_value(reader, term))
			return false;
		if (*reader->at != '|')
			return true;
		reader->at++;
	}
}

/* The colon that ends the name of a field, with its path; NULL: the term has none. */
static const char *
find_colon(const char *p)
{
	const char *begin = p;

	for (; !is_end_of_term(*p) && *p != '|'; p++)
	{
		if (*p == ':')
			return p;
		if (*p != '"')
			continue;
		/* A step of a path in quotes. */
		if (p == begin || p[-1] != '.')
			return NULL;
		for (p++; *p != '"'; p++)
		{
			if (*p == '\0')
				return NULL;
			if (*p == '\\' && (p[1] == '"' || p[1] == '\\'))
				p++;
		}
	}
	return NULL;
}

/* Reads a step of a path; colon: its end. */
static bool
read_step(Reader *reader, const char *colon)
{
	QmlSearchQuery *query = reader->query;
	const char *begin = reader->at;
	const char *end;

	if (query->nsteps == QML_SEARCH_MAX_STEPS)
		return REFUSE(reader, begin, 0, NULL, "paths have more than %d steps",
					  QML_SEARCH_MAX_STEPS);
	if (*begin == '"')
	{
		if (!read_quoted(reader, &query->steps[query->nsteps]))
			return false;
	}
	else
	{
		for (end = begin; end < colon && *end != '.' && *end != '"'; end++)
			;
		if (end == begin)
			return REFUSE(reader, begin, 0, "A path is written as payload.name or payload.a.b.",
						  "a step of the path is missing");
		query->steps[query->nsteps] = read_plain(reader, end);
	}
	if (reader->at < colon && *reader->at != '.')
		return REFUSE(reader, reader->at, 1, "Steps of a path are separated by dots.",
					  "it cannot stand there");
	query->nsteps++;
	return true;
}

/* Reads the path of a field with documents, from its dot on. */
static bool
read_path(Reader *reader, QmlSearchTerm *term, const char *colon)
{
	term->first_step = reader->query->nsteps;
	while (reader->at < colon)
	{
		reader->at++;
		if (!read_step(reader, colon))
			return false;
		term->nsteps++;
	}
	return true;
}

/* Reads the name of a field, with its path, and the colon. */
static bool
read_field(Reader *reader, QmlSearchTerm *term, const char *colon)
{
	const char *begin = reader->at;
	const char *end = begin;

	while (end < colon && *end != '.')
		end++;
	if (begin == colon)
		return REFUSE(reader, begin, 1, FIELDS_ALLOWED, "no field stands before the colon");
	for (int i = 1; i < QML_SEARCH_FIELDS; i++)
	{
		bool has_path = fields[i].kind == QML_SEARCH_IS_JSON;

		if (!qml_ascii_is_word(begin, (size_t) (end - begin), fields[i].name))
			continue;
		term->field = (QmlSearchField) i;
		reader->at = end;
		if (has_path && end == colon)
			return REFUSE(reader, begin, colon - begin,
						  "A path is written as payload.name or payload.a.b.",
						  "the field \"%s\" needs a path to the member that is sought",
						  fields[i].name);
		if (!has_path && end < colon)
			return REFUSE(reader, begin, colon - begin, FIELDS_ALLOWED,
						  "the field \"%s\" has no members", fields[i].name);
		if (!read_path(reader, term, colon))
			return false;
		reader->at = colon + 1;
		return true;
	}
	(void) REFUSE(reader, begin, colon - begin, FIELDS_ALLOWED, "there is no such field");
	reader->error->names = field_names;
	return false;
}

/* A word that is an id is sought as one. */
static void
find_ids(QmlSearchQuery *query, QmlSearchTerm *term)
{
	for (int i = 0; i < term->nvalues; i++)
	{
		QmlSearchValue *value = &query->values[term->first_value + i];

		if (!qml_search_read_id(value->text, value->id))
			return;
	}
	term->field = QML_SEARCH_ID;
}

static bool
read_term(Reader *reader)
{
	QmlSearchQuery *query = reader->query;
	QmlSearchTerm *term = &query->terms[query->nterms];
	const char *colon;

	if (query->nterms == QML_SEARCH_MAX_TERMS)
		return REFUSE(reader, reader->at, 0, NULL, "there are more than %d terms",
					  QML_SEARCH_MAX_TERMS);
	memset(term, 0, sizeof(*term));
	term->position = (int) (reader->at - reader->text);
	if (*reader->at == '-')
	{
		term->negated = true;
		reader->at++;
		if (is_end_of_term(*reader->at) || *reader->at == '-')
			return REFUSE(reader, reader->at - 1, 1,
						  "Text that begins with a minus can be put in quotes.",
						  "no term stands after the minus");
	}
	colon = *reader->at == '"' ? NULL : find_colon(reader->at);
	if (colon && !read_field(reader, term, colon))
		return false;
	if (!read_values(reader, term))
		return false;
	if (term->field == QML_SEARCH_WORD)
		find_ids(query, term);
	query->nterms++;
	return true;
}

/*
 * Reads a query.  False: it was refused, and *error says why.  The texts of *query are within it, so
 * it must not be moved.
 */
bool
qml_search_parse(const char *text, const QmlSearchClock *clock, QmlSearchQuery *query,
				 QmlSearchError *error)
{
	Reader reader = {.text = text, .at = text, .clock = clock, .query = query, .error = error};

	query->nterms = query->nvalues = query->nsteps = 0;
	query->used = 0;
	if (strlen(text) > QML_SEARCH_MAX_LENGTH)
		return REFUSE(&reader, text, 0, NULL, "it is longer than %d bytes", QML_SEARCH_MAX_LENGTH);
	for (skip_blanks(&reader); *reader.at; skip_blanks(&reader))
	{
		if (!read_term(&reader))
			return false;
	}
	return true;
}
