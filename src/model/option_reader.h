/*
 * option_reader.h
 *		Reads documents of options in jsonb, by a table of names and readers; and single values.
 */
#ifndef QML_OPTION_READER_H
#define QML_OPTION_READER_H

#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "qml.h"

/* Reads one value into the structure that its table of options is for; a table ends with no name. */
typedef struct QmlOption
{
	const char *name;
	void (*read)(const char *path, JsonbValue *value, void *into);
	const struct QmlOption *members; /* of one that is an object; NULL: it is none */
} QmlOption;

#define QML_OPTION_MAX_USECS ((int64) (QML_MAX_SECONDS * USECS_PER_SEC))

/* What is allowed of durations. */
#define QML_OPTION_DELAY "an interval, or a number of seconds, from 0 to 3660 days"

extern void qml_option_refuse(const char *path, const char *allowed);
extern double qml_option_number(const char *path, JsonbValue *value, double min, double max,
								const char *allowed);
extern int qml_option_int(const char *path, JsonbValue *value, int min, int max,
						  const char *allowed);
extern bool qml_option_boolean(const char *path, JsonbValue *value);
extern int64 qml_option_duration(const char *path, JsonbValue *value, int64 min, int64 max,
								 const char *allowed);
extern double qml_option_seconds(const char *path, JsonbValue *value);
extern TimestampTz qml_option_time(const char *path, JsonbValue *value);
extern char *qml_option_name(const char *path, JsonbValue *value, int maxlen);
extern Datum qml_option_text(const char *path, JsonbValue *value, int maxbytes);
extern int qml_option_choice(JsonbValue *value, const char *const *names, int count);
extern char *qml_option_list(const QmlOption *known);
extern void qml_option_members(const char *prefix, JsonbContainer *object, const QmlOption *known,
							   bool nulls, void *into);
extern void qml_option_object(const char *prefix, JsonbContainer *object, const QmlOption *known,
							  void *into);
extern void qml_option_document(Jsonb *options, const QmlOption *known, void *into);

#endif
