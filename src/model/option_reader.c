/*
 * option_reader.c
 *		Reads documents of options in jsonb, by a table of names and readers; and single values.
 *
 * An unknown name and a value that is not allowed are error QM005, which names the option and says
 * what is allowed.  No other error is caught here.  Durations are intervals ("5 minutes") or numbers of
 * seconds.  Which options there are: options.c.
 */
#include "postgres.h"

#include <math.h>

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

#include "common/args.h"
#include "common/conversion.h"
#include "common/report.h"
#include "common/suggest.h"
#include "compat.h"
#include "errcodes.h"
#include "model/option_reader.h"

/* ----- values ----- */

void
qml_option_refuse(const char *path, const char *allowed)
{
	ereport(ERROR,
			(errcode(ERRCODE_QML_INVALID_OPTION),
			 errmsg("invalid value for option \"%s\"", path),
			 errdetail("It must be %s.", allowed)));
}

double
qml_option_number(const char *path, JsonbValue *value, double min, double max, const char *allowed)
{
	double number;

	if (value->type != jbvNumeric)
		qml_option_refuse(path, allowed);
	number = DatumGetFloat8(
		DirectFunctionCall1(numeric_float8_no_overflow, NumericGetDatum(value->val.numeric)));
	if (!(number >= min && number <= max))
		qml_option_refuse(path, allowed);
	return number;
}

int
qml_option_int(const char *path, JsonbValue *value, int min, int max, const char *allowed)
{
	double number = qml_option_number(path, value, min, max, allowed);

	if (number != floor(number))
		qml_option_refuse(path, allowed);
	return (int) number;
}

bool
qml_option_boolean(const char *path, JsonbValue *value)
{
	if (value->type != jbvBool)
		qml_option_refuse(path, "true or false");
	return value->val.boolean;
}

/*
 * A string as a value of a type, by the type's input function.  Intervals are read under
 * fixed settings, as options are stored as they are given, and read again in other sessions.
 */
static Datum
read_typed(const char *path, JsonbValue *value, PGFunction input, const char *allowed)
{
	char *string = pnstrdup(value->val.string.val, value->val.string.len);
	int level = qml_conversion_begin(QML_NEEDS_INTERVALS);
	Datum typed;
	bool valid;

	Assert(value->type == jbvString);
	valid = qml_input_text(input, string, &typed);
	qml_conversion_end(level);
	if (!valid)
		qml_option_refuse(path, allowed);
	return typed;
}

/* Microseconds. */
int64
qml_option_duration(const char *path, JsonbValue *value, int64 min, int64 max, const char *allowed)
{
	int64 usecs;

	if (value->type == jbvString)
		usecs = qml_args_interval_usecs(
			DatumGetIntervalP(read_typed(path, value, interval_in, allowed)));
	else
		usecs = (int64) (qml_option_number(path, value, 0, QML_MAX_SECONDS, allowed) *
						 USECS_PER_SEC);
	if (usecs < min || usecs > max)
		qml_option_refuse(path, allowed);
	return usecs;
}

double
qml_option_seconds(const char *path, JsonbValue *value)
{
	return qml_option_duration(path, value, 0, QML_OPTION_MAX_USECS, QML_OPTION_DELAY) /
		   (double) USECS_PER_SEC;
}

/* A finite time, with a zone or in the session's. */
TimestampTz
qml_option_time(const char *path, JsonbValue *value)
{
	const char *allowed = "a finite timestamp with time zone";
	TimestampTz time;

	if (value->type != jbvString)
		qml_option_refuse(path, allowed);
	time = DatumGetTimestampTz(read_typed(path, value, timestamptz_in, allowed));
	if (TIMESTAMP_NOT_FINITE(time))
		qml_option_refuse(path, allowed);
	return time;
}

/* A name, as the arguments of functions are: see common/args.c. */
char *
qml_option_name(const char *path, JsonbValue *value, int maxlen)
{
	char *name = NULL;

	if (value->type == jbvString)
		name = pnstrdup(value->val.string.val, value->val.string.len);
	if (name == NULL || !qml_args_is_name(name, maxlen))
		qml_option_refuse(
			path, psprintf("a string of 1 to %d characters without control characters, and without "
						   "blanks at either end",
						   maxlen));
	return name;
}

/* A string, cut if it has more than maxbytes: see common/report.c. */
Datum
qml_option_text(const char *path, JsonbValue *value, int maxbytes)
{
	if (value->type != jbvString)
		qml_option_refuse(path, "a string");
	return qml_report_cut(value->val.string.val, value->val.string.len, maxbytes);
}

/* The number of a string among some; -1 if it is none of them. */
int
qml_option_choice(JsonbValue *value, const char *const *names, int count)
{
	for (int i = 0; i < count; i++)
	{
		if (value->type == jbvString && value->val.string.len == (int) strlen(names[i]) &&
			memcmp(value->val.string.val, names[i], strlen(names[i])) == 0)
			return i;
	}
	return -1;
}

/* ----- documents ----- */

/* Their names, for a hint: "a, b (c, d), e". */
char *
qml_option_list(const QmlOption *known)
{
	StringInfoData list;

	initStringInfo(&list);
	for (; known->name; known++)
	{
		appendStringInfo(&list, "%s%s", list.len ? ", " : "", known->name);
		if (known->members)
			appendStringInfo(&list, " (%s)", qml_option_list(known->members));
	}
	return list.data;
}

/* What the name of an option may have been meant to be, also a member of another one. */
static const char *
guess_option(const char *prefix, const char *name, const QmlOption *known)
{
	QmlSuggestion suggestion;

	qml_suggest_begin(&suggestion, name);
	for (; known->name; known++)
	{
		qml_suggest_consider_as(&suggestion, known->name, psprintf("%s%s", prefix, known->name));
		for (const QmlOption *member = known->members; member && member->name; member++)
			qml_suggest_consider_as(&suggestion, member->name,
									psprintf("%s.%s", known->name, member->name));
	}
	return qml_suggest_question(&suggestion);
}

static void
unknown_option(const char *prefix, const char *name, const QmlOption *known)
{
	char *path = psprintf("%s%s", prefix, name);

	ereport(ERROR,
			(errcode(ERRCODE_QML_INVALID_OPTION),
			 errmsg("unrecognized option \"%s\"",
					pnstrdup(path, pg_mbcliplen(path, strlen(path), QML_MAX_NAME))),
			 known->name ? errhint("%sOptions are: %s.", guess_option(prefix, name, known),
								   qml_option_list(known)) :
						   errhint("There are no options here.")));
}

/* Reads an object by a table.  nulls: what is null is read, too, and says something. */
void
qml_option_members(const char *prefix, JsonbContainer *object, const QmlOption *known, bool nulls,
				   void *into)
{
	JsonbIterator *it = JsonbIteratorInit(object);
	JsonbValue value;

	(void) JsonbIteratorNext(&it, &value, true);
	while (JsonbIteratorNext(&it, &value, true) == WJB_KEY)
	{
		char *key = pnstrdup(value.val.string.val, value.val.string.len);
		char *path = psprintf("%s%s", prefix, key);
		const QmlOption *option = known;

		while (option->name && strcmp(option->name, key) != 0)
			option++;
		if (option->name == NULL)
			unknown_option(prefix, key, known);
		(void) JsonbIteratorNext(&it, &value, true);
		if (nulls || value.type != jbvNull)
			option->read(path, &value, into);
	}
}

/* The same; an option that is null says nothing. */
void
qml_option_object(const char *prefix, JsonbContainer *object, const QmlOption *known, void *into)
{
	qml_option_members(prefix, object, known, false, into);
}

/* Reads a whole document. */
void
qml_option_document(Jsonb *options, const QmlOption *known, void *into)
{
	if (!JB_ROOT_IS_OBJECT(options))
		ereport(ERROR,
				(errcode(ERRCODE_QML_INVALID_OPTION),
				 errmsg("options must be a JSON object"),
				 known->name ? errhint("Options are: %s.", qml_option_list(known)) :
							   errhint("There are no options here: {} is the only object.")));
	qml_option_object("", &options->root, known, into);
}
