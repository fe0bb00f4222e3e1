/*
 * options.c
 *		Options in jsonb: a table of what there is, one reader a kind of value.
 *
 * Whatever is not right is error QM005 that names the option and says what is
 * allowed.  Durations are intervals ("5 minutes") or numbers of seconds.
 */
#include "postgres.h"

#include <limits.h>
#include <math.h>

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

#include "common/args.h"
#include "errcodes.h"
#include "model/options.h"
#include "qml.h"

static void
bad_value(const char *path, const char *allowed)
{
	ereport(ERROR,
			(errcode(ERRCODE_QML_INVALID_OPTION),
			 errmsg("invalid value for option \"%s\"", path),
			 errdetail("It must be %s.", allowed)));
}

static double
read_number(const char *path, JsonbValue *value, double min, double max, const char *allowed)
{
	double number;

	if (value->type != jbvNumeric)
		bad_value(path, allowed);
	number = DatumGetFloat8(
		DirectFunctionCall1(numeric_float8_no_overflow, NumericGetDatum(value->val.numeric)));
	if (!(number >= min && number <= max))
		bad_value(path, allowed);
	return number;
}

/*
 * Calls a type's input function; turns its error about the text into one about
 * the option.
 */
static Datum
parse_text(PGFunction input, const char *path, const char *text, const char *allowed)
{
	MemoryContext context = CurrentMemoryContext;
	volatile Datum value = (Datum) 0;

	PG_TRY();
	{
		value = DirectFunctionCall3(input, CStringGetDatum(text), ObjectIdGetDatum(InvalidOid),
									Int32GetDatum(-1));
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		FlushErrorState();
		/* Raises again: nothing goes on after a caught error. */
		bad_value(path, allowed);
	}
	PG_END_TRY();
	return value;
}

static int64
read_duration(const char *path, JsonbValue *value, int64 min, int64 max, const char *allowed)
{
	int64 usecs;

	if (value->type == jbvString)
		usecs = qml_interval_usecs(DatumGetIntervalP(
			parse_text(interval_in, path, pnstrdup(value->val.string.val, value->val.string.len),
					   allowed)));
	else
		usecs = (int64) (read_number(path, value, 0, QML_MAX_SECONDS, allowed) * USECS_PER_SEC);
	if (usecs < min || usecs > max)
		bad_value(path, allowed);
	return usecs;
}

#define MAX_USECS		((int64) (QML_MAX_SECONDS * USECS_PER_SEC))
#define DELAY_ALLOWED	"an interval, or a number of seconds, from 0 to 3660 days"
#define LEASE_ALLOWED	"an interval, or a number of seconds, longer than 0 and at most 3660 days"
#define TIMEOUT_ALLOWED "an interval, or a number of seconds, from 1 ms to 24 days"

static double
read_seconds(const char *path, JsonbValue *value)
{
	return read_duration(path, value, 0, MAX_USECS, DELAY_ALLOWED) / (double) USECS_PER_SEC;
}

static void
read_strategy(const char *path, JsonbValue *value, void *into)
{
	static const char *const names[] = {"none", "fixed", "linear", "exponential"};

	for (int i = 0; i < (int) lengthof(names); i++)
	{
		if (value->type == jbvString && value->val.string.len == (int) strlen(names[i]) &&
			memcmp(value->val.string.val, names[i], strlen(names[i])) == 0)
		{
			((QmlRetryPolicy *) into)->strategy = (QmlRetryStrategy) i;
			return;
		}
	}
	bad_value(path, "\"none\", \"fixed\", \"linear\" or \"exponential\"");
}

static void
read_delay(const char *path, JsonbValue *value, void *into)
{
	((QmlRetryPolicy *) into)->delay = read_seconds(path, value);
}

static void
read_multiplier(const char *path, JsonbValue *value, void *into)
{
	((QmlRetryPolicy *) into)->multiplier = read_number(path, value, 1, 1000,
														"a number from 1 to 1000");
}

static void
read_increment(const char *path, JsonbValue *value, void *into)
{
	((QmlRetryPolicy *) into)->increment = read_seconds(path, value);
}

static void
read_max_delay(const char *path, JsonbValue *value, void *into)
{
	((QmlRetryPolicy *) into)->max_delay = read_seconds(path, value);
}

static void
read_jitter(const char *path, JsonbValue *value, void *into)
{
	((QmlRetryPolicy *) into)->jitter = read_number(path, value, 0, 1, "a number from 0 to 1");
}

static const QmlOption retry_options[] = {{"strategy", read_strategy},
										  {"delay", read_delay},
										  {"multiplier", read_multiplier},
										  {"increment", read_increment},
										  {"max_delay", read_max_delay},
										  {"jitter", read_jitter},
										  {NULL, NULL}};

static void
unknown_option(const char *path, const QmlOption *known)
{
	StringInfoData list;

	initStringInfo(&list);
	for (; known->name; known++)
		appendStringInfo(&list, "%s%s", list.len ? ", " : "", known->name);
	ereport(ERROR,
			(errcode(ERRCODE_QML_INVALID_OPTION),
			 errmsg("unrecognized option \"%s\"",
					pnstrdup(path, pg_mbcliplen(path, strlen(path), QML_MAX_NAME))),
			 errhint("Options are: %s.", list.data)));
}

/* Reads an object by a table; an option that is null says nothing. */
void
qml_options_read_object(const char *prefix, JsonbContainer *object, const QmlOption *known,
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
			unknown_option(path, known);
		(void) JsonbIteratorNext(&it, &value, true);
		if (value.type != jbvNull)
			option->read(path, &value, into);
	}
}

static int
read_int(const char *path, JsonbValue *value, int min, int max, const char *allowed)
{
	double number = read_number(path, value, min, max, allowed);

	if (number != floor(number))
		bad_value(path, allowed);
	return (int) number;
}

static void
read_max_retries(const char *path, JsonbValue *value, void *into)
{
	((QmlQueueOptions *) into)->max_retries = read_int(path, value, 0, QML_MAX_RETRIES,
													   "a whole number from 0 to 1000");
}

static void
read_timeout(const char *path, JsonbValue *value, void *into)
{
	((QmlQueueOptions *) into)->timeout_ms = (int) (read_duration(path, value, 1000,
																  (int64) INT_MAX * 1000,
																  TIMEOUT_ALLOWED) /
													1000);
}

/* Microseconds. */
int64
qml_options_lease(const char *path, JsonbValue *value)
{
	return read_duration(path, value, 1, MAX_USECS, LEASE_ALLOWED);
}

/* A finite time, with a zone or in the session's. */
TimestampTz
qml_options_time(const char *path, JsonbValue *value)
{
	const char *allowed = "a finite timestamp with time zone";
	TimestampTz time;

	if (value->type != jbvString)
		bad_value(path, allowed);
	time = DatumGetTimestampTz(parse_text(timestamptz_in, path,
										  pnstrdup(value->val.string.val, value->val.string.len),
										  allowed));
	if (TIMESTAMP_NOT_FINITE(time))
		bad_value(path, allowed);
	return time;
}

static char *
read_name(const char *path, JsonbValue *value, int maxlen)
{
	char *name = NULL;

	if (value->type == jbvString)
		name = pnstrdup(value->val.string.val, value->val.string.len);
	if (name == NULL || !qml_args_is_name(name, maxlen))
		bad_value(path, psprintf("a string of 1 to %d characters, none of them a control character",
								 maxlen));
	return name;
}

/* A name, as the arguments of functions are: see common/args.c. */
text *
qml_options_name(const char *path, JsonbValue *value)
{
	return cstring_to_text(read_name(path, value, QML_MAX_NAME));
}

/* A string of at most maxlen bytes. */
text *
qml_options_text(const char *path, JsonbValue *value, int maxlen)
{
	if (value->type != jbvString || value->val.string.len > maxlen)
		bad_value(path, psprintf("a string of at most %d bytes", maxlen));
	return cstring_to_text_with_len(value->val.string.val, value->val.string.len);
}

static void
read_lease(const char *path, JsonbValue *value, void *into)
{
	((QmlQueueOptions *) into)->lease = qml_options_lease(path, value);
}

static void
read_succeeded_ttl(const char *path, JsonbValue *value, void *into)
{
	((QmlQueueOptions *) into)->succeeded_ttl = read_duration(path, value, 0, MAX_USECS,
															  DELAY_ALLOWED);
}

static void
read_failed_ttl(const char *path, JsonbValue *value, void *into)
{
	((QmlQueueOptions *) into)->failed_ttl = read_duration(path, value, 0, MAX_USECS,
														   DELAY_ALLOWED);
}

static void
read_retry(const char *path, JsonbValue *value, void *into)
{
	if (value->type != jbvBinary || !JsonContainerIsObject(value->val.binary.data))
		bad_value(path, "an object");
	qml_options_read_object("retry.", value->val.binary.data, retry_options,
							&((QmlQueueOptions *) into)->retry);
	((QmlQueueOptions *) into)->retries = true;
}

static bool
read_boolean(const char *path, JsonbValue *value)
{
	if (value->type != jbvBool)
		bad_value(path, "true or false");
	return value->val.boolean;
}

static void
read_notify(const char *path, JsonbValue *value, void *into)
{
	((QmlQueueOptions *) into)->notify = read_boolean(path, value);
}

static const QmlOption queue_options[] = {{"max_retries", read_max_retries},
										  {"timeout", read_timeout},
										  {"lease", read_lease},
										  {"succeeded_ttl", read_succeeded_ttl},
										  {"failed_ttl", read_failed_ttl},
										  {"retry", read_retry},
										  {"notify", read_notify},
										  {NULL, NULL}};

/* A queue that says nothing. */
void
qml_options_default_queue(QmlQueueOptions *into)
{
	into->max_retries = -1;
	into->timeout_ms = -1;
	into->lease = -1;
	into->succeeded_ttl = -1;
	into->failed_ttl = -1;
	into->notify = false;
	into->retries = false;
	into->retry = qml_retry_default;
}

static void
read_options(Jsonb *options, const QmlOption *known, void *into)
{
	if (!JB_ROOT_IS_OBJECT(options))
		ereport(ERROR,
				(errcode(ERRCODE_QML_INVALID_OPTION),
				 errmsg("options must be a JSON object")));
	qml_options_read_object("", &options->root, known, into);
}

void
qml_options_parse_queue(Jsonb *options, void *into)
{
	qml_options_default_queue(into);
	read_options(options, queue_options, into);
}

static void
read_queue(const char *path, JsonbValue *value, void *into)
{
	((QmlHandlerOptions *) into)->queue = read_name(path, value, QML_MAX_QUEUE_NAME);
}

/* Whether there is such a role is for whoever uses it to find out. */
static void
read_run_as(const char *path, JsonbValue *value, void *into)
{
	((QmlHandlerOptions *) into)->run_as = read_name(path, value, NAMEDATALEN - 1);
}

static void
read_no_retry(const char *path, JsonbValue *value, void *into)
{
	const char *allowed = "an array of strings: error types or SQLSTATEs";
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue element;

	if (value->type != jbvBinary || !JsonContainerIsArray(value->val.binary.data))
		bad_value(path, allowed);
	it = JsonbIteratorInit(value->val.binary.data);
	(void) JsonbIteratorNext(&it, &element, true);
	while ((token = JsonbIteratorNext(&it, &element, true)) == WJB_ELEM)
	{
		if (element.type != jbvString)
			bad_value(path, allowed);
		((QmlHandlerOptions *) into)->no_retry = lappend(((QmlHandlerOptions *) into)->no_retry,
														 read_name(path, &element, QML_MAX_NAME));
	}
}

static void
read_concurrency(const char *path, JsonbValue *value, void *into)
{
	((QmlHandlerOptions *) into)->concurrency = read_int(path, value, 1, QML_MAX_CONCURRENCY,
														 "a whole number from 1 to 1000");
}

static void
read_middleware(const char *path, JsonbValue *value, void *into)
{
	((QmlHandlerOptions *) into)->bare = !read_boolean(path, value);
}

/* The members of QmlQueueOptions are the first of QmlHandlerOptions. */
static const QmlOption handler_options[] = {{"max_retries", read_max_retries},
											{"timeout", read_timeout},
											{"retry", read_retry},
											{"queue", read_queue},
											{"run_as", read_run_as},
											{"non_retryable", read_no_retry},
											{"concurrency", read_concurrency},
											{"middleware", read_middleware},
											{NULL, NULL}};

void
qml_options_parse_handler(Jsonb *options, void *into)
{
	memset(into, 0, sizeof(QmlHandlerOptions));
	qml_options_default_queue(&((QmlHandlerOptions *) into)->common);
	read_options(options, handler_options, into);
}

/*
 * Parses options that somebody may have written by hand.  False when they are
 * wrong, and *error tells why.
 */
bool
qml_options_parse_stored(QmlOptionParser parse, Jsonb *options, void *into, char **error)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool parsed = false;

	PG_TRY();
	{
		parse(options, into);
		parsed = true;
	}
	PG_CATCH();
	{
		ErrorData *caught;

		MemoryContextSwitchTo(context);
		caught = CopyErrorData();
		/* Only what the parser says about a value; nothing else is caught here. */
		if (caught->sqlerrcode != ERRCODE_QML_INVALID_OPTION)
			PG_RE_THROW();
		FlushErrorState();
		*error = caught->message;
	}
	PG_END_TRY();
	return parsed;
}
