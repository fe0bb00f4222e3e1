/*
 * search_query.h
 *		What is sought by qml_search(): the query as a text, and as it was understood.
 *
 * Pure C without anything of the server, so that it can be compiled into test
 * programs.
 */
#ifndef QML_SEARCH_QUERY_H
#define QML_SEARCH_QUERY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qml.h"

/* Of one query: bytes, terms, values of all terms, steps of all paths. */
#define QML_SEARCH_MAX_LENGTH 4000
#define QML_SEARCH_MAX_TERMS  50
#define QML_SEARCH_MAX_VALUES 200
#define QML_SEARCH_MAX_STEPS  100

/* What a term is about.  The order is that of the names in search_query.c. */
typedef enum QmlSearchField
{
	QML_SEARCH_WORD = 0, /* no field: method or error */
	QML_SEARCH_STATE,
	QML_SEARCH_QUEUE,
	QML_SEARCH_METHOD,
	QML_SEARCH_TYPE,
	QML_SEARCH_WORKER,
	QML_SEARCH_SERVER,
	QML_SEARCH_BY,
	QML_SEARCH_ID,
	QML_SEARCH_PRIORITY,
	QML_SEARCH_ATTEMPT,
	QML_SEARCH_PAYLOAD,
	QML_SEARCH_METADATA,
	QML_SEARCH_ERROR,
	QML_SEARCH_ERROR_TYPE,
	QML_SEARCH_FINGERPRINT,
	QML_SEARCH_CREATED,
	QML_SEARCH_FINISHED,
	QML_SEARCH_RUN,
	QML_SEARCH_WAIT,
	QML_SEARCH_FIELDS
} QmlSearchField;

/* What kind of values a field has. */
typedef enum QmlSearchKind
{
	QML_SEARCH_IS_TEXT = 0, /* a text that is equal, or for words and errors contained */
	QML_SEARCH_IS_STATE,
	QML_SEARCH_IS_ID,
	QML_SEARCH_IS_NUMBER,	/* integers: low and high */
	QML_SEARCH_IS_TIME,		/* microseconds: low and high */
	QML_SEARCH_IS_DURATION, /* the same */
	QML_SEARCH_IS_JSON		/* of a member of a document: a text, or a range of numbers */
} QmlSearchKind;

/* One of the values of a term. */
typedef struct QmlSearchValue
{
	const char *text;  /* ends with NUL; of a range of JSON numbers its lower bound; NULL: none */
	const char *until; /* its upper bound; NULL: none */
	bool is_range;	   /* of JSON numbers */
	bool is_number;	   /* the text is a JSON number, too */
	bool low_open;	   /* the bounds themselves do not belong to it */
	bool high_open;	   /* likewise */
	int64_t low;	   /* INT64_MIN: no bound; belongs to it */
	int64_t high;	   /* INT64_MAX: no bound; belongs to it */
	QmlState state;
	unsigned char id[16];
} QmlSearchValue;

/* All terms of a query must match, and of the values of a term one. */
typedef struct QmlSearchTerm
{
	QmlSearchField field;
	bool negated;
	int position;	 /* bytes of the query before it */
	int first_value; /* of the query's */
	int nvalues;
	int first_step; /* the path into a document */
	int nsteps;
} QmlSearchTerm;

typedef struct QmlSearchQuery
{
	int nterms;
	int nvalues;
	int nsteps;
	QmlSearchTerm terms[QML_SEARCH_MAX_TERMS];
	QmlSearchValue values[QML_SEARCH_MAX_VALUES];
	const char *steps[QML_SEARCH_MAX_STEPS];
	size_t used; /* of the room for texts */
	char texts[2 * QML_SEARCH_MAX_LENGTH + 2];
} QmlSearchQuery;

/* Why a query was refused. */
typedef struct QmlSearchError
{
	int position;		 /* of the part that is wrong: bytes of the query before it */
	int length;			 /* bytes of it, in which its last character may begin only; 0: no part */
	char reason[160];	 /* a clause without a full stop */
	const char *allowed; /* what is allowed instead, a sentence; NULL: the reason says it */
	const char *const *names; /* of which one may have been meant, NULL at the end; NULL: no name */
} QmlSearchError;

/* A date, and a time of day on it. */
typedef struct QmlSearchCivil
{
	int year;
	int month;
	int day;
	int hour;
	int minute;
	int second;
	int microsecond;
	bool has_zone;
	int offset; /* of the zone from UTC, seconds, positive to the east */
} QmlSearchCivil;

/*
 * What the time is, and when that is which somebody writes: microseconds since any moment.
 * `instant` is false if there is no such time.
 */
typedef struct QmlSearchClock
{
	int64_t now;
	bool (*instant)(const struct QmlSearchClock *clock, const QmlSearchCivil *civil, int64_t *at);
	void *zone; /* for `instant` */
} QmlSearchClock;

extern bool qml_search_parse(const char *text, const QmlSearchClock *clock, QmlSearchQuery *query,
							 QmlSearchError *error);
extern const char *qml_search_field_name(QmlSearchField field);
extern QmlSearchKind qml_search_field_kind(QmlSearchField field);

/* For search_value.c. */
extern bool qml_search_refuse(QmlSearchError *error, const char *query, const char *at, int length,
							  const char *allowed, const char *format, ...)
	__attribute__((format(printf, 6, 7)));

/* A value of a field as it stands in the query, without its quotes. */
typedef struct QmlSearchSource
{
	const char *query; /* of which it is a part, for errors */
	const char *at;
	int length; /* there */
	const char *text;
	bool quoted;
	const QmlSearchClock *clock;
	QmlSearchError *error;
} QmlSearchSource;

extern bool qml_search_read_value(const QmlSearchSource *source, QmlSearchKind kind,
								  QmlSearchQuery *query, QmlSearchValue *value);
extern bool qml_search_read_id(const char *text, unsigned char *id);

#endif
