/*
 * options.c
 *		Options in jsonb, and all that is known about them.
 *
 * There are seven kinds of documents: the options of a queue, those of a handler, the
 * retry policy in both, those of a hook, those of an enqueue, the data of
 * qml_set_state(), and the changes of qml_update_job().  Each has a table
 * of names and readers at the end of its section.  To add an option: a member of the structure in
 * options.h, a reader, a line in the table, and the default.
 *
 * An unknown name and a value that is not allowed are error QM005, which names the
 * option and says what is allowed.  No other error is caught here.  An option that is
 * null counts as not given; in changes, it goes back to what a job has that was given none.  Durations are intervals ("5 minutes") or numbers of
 * seconds.
 */
#include "postgres.h"

#include <limits.h>
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
#include "model/options.h"

/* Reads one value into the structure that its table of options is for. */
typedef struct Option
{
	const char *name;
	void (*read)(const char *path, JsonbValue *value, void *into);
} Option;

/* Read by name, too. */
#define STORAGE "storage"
#define REDACT	"redact"

#define MAX_USECS		((int64) (QML_MAX_SECONDS * USECS_PER_SEC))
#define DELAY_ALLOWED	"an interval, or a number of seconds, from 0 to 3660 days"
#define LEASE_ALLOWED	"an interval, or a number of seconds, longer than 0 and at most 3660 days"
#define TIMEOUT_ALLOWED "an interval, or a number of seconds, from 1 ms to 24 days"

/* ----- values ----- */

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

static int
read_int(const char *path, JsonbValue *value, int min, int max, const char *allowed)
{
	double number = read_number(path, value, min, max, allowed);

	if (number != floor(number))
		bad_value(path, allowed);
	return (int) number;
}

static bool
read_boolean(const char *path, JsonbValue *value)
{
	if (value->type != jbvBool)
		bad_value(path, "true or false");
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
		bad_value(path, allowed);
	return typed;
}

/* Microseconds. */
static int64
read_duration(const char *path, JsonbValue *value, int64 min, int64 max, const char *allowed)
{
	int64 usecs;

	if (value->type == jbvString)
		usecs = qml_args_interval_usecs(
			DatumGetIntervalP(read_typed(path, value, interval_in, allowed)));
	else
		usecs = (int64) (read_number(path, value, 0, QML_MAX_SECONDS, allowed) * USECS_PER_SEC);
	if (usecs < min || usecs > max)
		bad_value(path, allowed);
	return usecs;
}

static double
read_seconds(const char *path, JsonbValue *value)
{
	return read_duration(path, value, 0, MAX_USECS, DELAY_ALLOWED) / (double) USECS_PER_SEC;
}

/* A finite time, with a zone or in the session's. */
static TimestampTz
read_time(const char *path, JsonbValue *value)
{
	const char *allowed = "a finite timestamp with time zone";
	TimestampTz time;

	if (value->type != jbvString)
		bad_value(path, allowed);
	time = DatumGetTimestampTz(read_typed(path, value, timestamptz_in, allowed));
	if (TIMESTAMP_NOT_FINITE(time))
		bad_value(path, allowed);
	return time;
}

/* A name, as the arguments of functions are: see common/args.c. */
static char *
read_name(const char *path, JsonbValue *value, int maxlen)
{
	char *name = NULL;

	if (value->type == jbvString)
		name = pnstrdup(value->val.string.val, value->val.string.len);
	if (name == NULL || !qml_args_is_name(name, maxlen))
		bad_value(path,
				  psprintf("a string of 1 to %d characters without control characters, and without "
						   "blanks at either end",
						   maxlen));
	return name;
}

/* A string, cut if it has more than maxbytes: see common/report.c. */
static Datum
read_text(const char *path, JsonbValue *value, int maxbytes)
{
	if (value->type != jbvString)
		bad_value(path, "a string");
	return qml_report_cut(value->val.string.val, value->val.string.len, maxbytes);
}

/* The number of a string among some; -1 if it is none of them. */
static int
read_choice(JsonbValue *value, const char *const *names, int count)
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

static const Option *members_of(const Option *option);

/* Their names, for a hint: "a, b (c, d), e". */
static char *
list_options(const Option *known)
{
	StringInfoData list;

	initStringInfo(&list);
	for (; known->name; known++)
	{
		appendStringInfo(&list, "%s%s", list.len ? ", " : "", known->name);
		if (members_of(known))
			appendStringInfo(&list, " (%s)", list_options(members_of(known)));
	}
	return list.data;
}

/* What the name of an option may have been meant to be, also a member of another one. */
static const char *
guess_option(const char *prefix, const char *name, const Option *known)
{
	QmlSuggestion suggestion;

	qml_suggest_begin(&suggestion, name);
	for (; known->name; known++)
	{
		qml_suggest_consider_as(&suggestion, known->name, psprintf("%s%s", prefix, known->name));
		for (const Option *member = members_of(known); member && member->name; member++)
			qml_suggest_consider_as(&suggestion, member->name,
									psprintf("%s.%s", known->name, member->name));
	}
	return qml_suggest_question(&suggestion);
}

static void
unknown_option(const char *prefix, const char *name, const Option *known)
{
	char *path = psprintf("%s%s", prefix, name);

	ereport(ERROR,
			(errcode(ERRCODE_QML_INVALID_OPTION),
			 errmsg("unrecognized option \"%s\"",
					pnstrdup(path, pg_mbcliplen(path, strlen(path), QML_MAX_NAME))),
			 known->name ? errhint("%sOptions are: %s.", guess_option(prefix, name, known),
								   list_options(known)) :
						   errhint("There are no options here.")));
}

/* Reads an object by a table.  nulls: what is null is read, too, and says something. */
static void
read_members(const char *prefix, JsonbContainer *object, const Option *known, bool nulls,
			 void *into)
{
	JsonbIterator *it = JsonbIteratorInit(object);
	JsonbValue value;

	(void) JsonbIteratorNext(&it, &value, true);
	while (JsonbIteratorNext(&it, &value, true) == WJB_KEY)
	{
		char *key = pnstrdup(value.val.string.val, value.val.string.len);
		char *path = psprintf("%s%s", prefix, key);
		const Option *option = known;

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
static void
read_object(const char *prefix, JsonbContainer *object, const Option *known, void *into)
{
	read_members(prefix, object, known, false, into);
}

/* Reads a whole document. */
static void
read_document(Jsonb *options, const Option *known, void *into)
{
	if (!JB_ROOT_IS_OBJECT(options))
		ereport(ERROR,
				(errcode(ERRCODE_QML_INVALID_OPTION),
				 errmsg("options must be a JSON object"),
				 known->name ? errhint("Options are: %s.", list_options(known)) :
							   errhint("There are no options here: {} is the only object.")));
	read_object("", &options->root, known, into);
}

/* ----- the retry policy ----- */

static void
read_strategy(const char *path, JsonbValue *value, void *into)
{
	static const char *const names[] = {"none", "fixed", "linear", "exponential"};
	int chosen = read_choice(value, names, lengthof(names));

	if (chosen < 0)
		bad_value(path, "\"none\", \"fixed\", \"linear\" or \"exponential\"");
	((QmlRetryPolicy *) into)->strategy = (QmlRetryStrategy) chosen;
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

static const Option retry_options[] = {{"strategy", read_strategy},
									   {"delay", read_delay},
									   {"multiplier", read_multiplier},
									   {"increment", read_increment},
									   {"max_delay", read_max_delay},
									   {"jitter", read_jitter},
									   {NULL, NULL}};

static void
read_retry(const char *path, JsonbValue *value, void *into)
{
	if (value->type != jbvBinary || !JsonContainerIsObject(value->val.binary.data))
		bad_value(path, psprintf("an object; its members are %s", list_options(retry_options)));
	read_object("retry.", value->val.binary.data, retry_options,
				&((QmlQueueOptions *) into)->retry);
	((QmlQueueOptions *) into)->has_retry = true;
}

/* The members of an option that is an object; NULL: it is none. */
static const Option *
members_of(const Option *option)
{
	return option->read == read_retry ? retry_options : NULL;
}

/* ----- queues ----- */

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

static void
read_lease(const char *path, JsonbValue *value, void *into)
{
	((QmlQueueOptions *) into)->lease = read_duration(path, value, 1, MAX_USECS, LEASE_ALLOWED);
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
read_notify(const char *path, JsonbValue *value, void *into)
{
	((QmlQueueOptions *) into)->notify = read_boolean(path, value);
}

static void
read_storage(const char *path, JsonbValue *value, void *into)
{
	static const char *const names[] = {"durable", "async", "unlogged"};
	int chosen = read_choice(value, names, lengthof(names));

	if (chosen < 0)
		bad_value(path, "\"durable\", \"async\" or \"unlogged\"");
	((QmlQueueOptions *) into)->storage = (QmlStorage) chosen;
}

static QmlRedact *
alloc_redact(int npaths)
{
	Size size = offsetof(QmlRedact, paths) + sizeof(QmlRedactPath) * npaths;
	QmlRedact *redact = palloc0(size);

	redact->size = size;
	redact->npaths = npaths;
	return redact;
}

static void
read_redact(const char *path, JsonbValue *value, void *into)
{
	const char *allowed = "an array of 1 to 50 paths";
	QmlRedact *redact;
	JsonbIterator *it;
	JsonbValue element;
	int npaths = 0;

	if (value->type != jbvBinary || !JsonContainerIsArray(value->val.binary.data) ||
		JsonContainerSize(value->val.binary.data) < 1 ||
		JsonContainerSize(value->val.binary.data) > QML_MAX_REDACT_PATHS)
		bad_value(path, allowed);
	redact = alloc_redact((int) JsonContainerSize(value->val.binary.data));
	it = JsonbIteratorInit(value->val.binary.data);
	(void) JsonbIteratorNext(&it, &element, true);
	while (JsonbIteratorNext(&it, &element, true) == WJB_ELEM)
	{
		const char *problem;

		if (element.type != jbvString)
			bad_value(path, psprintf("%s, each a string", allowed));
		problem = qml_redact_path_parse(element.val.string.val, element.val.string.len,
										&redact->paths[npaths++]);
		if (problem)
			bad_value(path, psprintf("%s %s", allowed, problem));
	}
	((QmlQueueOptions *) into)->redact = redact;
}

/*
 * What is hidden if the options, which are invalid, say that something is: everything.  NULL: they
 * do not.
 */
const QmlRedact *
qml_options_redact_all(Jsonb *options)
{
	JsonbValue value;
	QmlRedact *redact;

	if (!JB_ROOT_IS_OBJECT(options) ||
		getKeyJsonValueFromContainer(&options->root, REDACT, strlen(REDACT), &value) == NULL ||
		value.type == jbvNull)
		return NULL;
	redact = alloc_redact(QML_REDACT_DOCUMENTS);
	for (int i = 0; i < QML_REDACT_DOCUMENTS; i++)
		redact->paths[i].document = (QmlRedactDocument) i;
	return redact;
}

static const Option queue_options[] = {{"max_retries", read_max_retries},
									   {"timeout", read_timeout},
									   {"lease", read_lease},
									   {"succeeded_ttl", read_succeeded_ttl},
									   {"failed_ttl", read_failed_ttl},
									   {"retry", read_retry},
									   {"notify", read_notify},
									   {STORAGE, read_storage},
									   {REDACT, read_redact},
									   {NULL, NULL}};

/* The options of a queue that gives none. */
void
qml_options_default_queue(QmlQueueOptions *into)
{
	into->max_retries = -1;
	into->timeout_ms = -1;
	into->lease = -1;
	into->succeeded_ttl = -1;
	into->failed_ttl = -1;
	into->notify = false;
	into->storage = QML_DURABLE;
	into->has_retry = false;
	into->retry = qml_retry_default;
	into->redact = NULL;
}

void
qml_options_parse_queue(Jsonb *options, void *into)
{
	qml_options_default_queue(into);
	read_document(options, queue_options, into);
}

/* Whether options of a queue, which are valid, say how its jobs are stored; null does, too. */
bool
qml_options_give_storage(Jsonb *options)
{
	JsonbValue value;

	return getKeyJsonValueFromContainer(&options->root, STORAGE, strlen(STORAGE), &value) != NULL;
}

/* ----- handlers ----- */

static void
read_queue(const char *path, JsonbValue *value, void *into)
{
	char *name = read_name(path, value, QML_MAX_QUEUE_NAME);

	if (qml_args_is_reserved_queue(name))
		bad_value(path, "the name of a queue that is not reserved");
	((QmlHandlerOptions *) into)->queue = name;
}

/* Whether the role exists is checked where it is used. */
static void
read_run_as(const char *path, JsonbValue *value, void *into)
{
	((QmlHandlerOptions *) into)->run_as = read_name(path, value, NAMEDATALEN - 1);
}

static void
read_non_retryable(const char *path, JsonbValue *value, void *into)
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
		((QmlHandlerOptions *) into)
			->non_retryable = lappend(((QmlHandlerOptions *) into)->non_retryable,
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
	((QmlHandlerOptions *) into)->no_middleware = !read_boolean(path, value);
}

/* Readers of options that queues have, too, take QmlQueueOptions, which QmlHandlerOptions begins with. */
StaticAssertDecl(offsetof(QmlHandlerOptions, common) == 0,
				 "QmlHandlerOptions must begin with QmlQueueOptions");

static const Option handler_options[] = {{"max_retries", read_max_retries},
										 {"timeout", read_timeout},
										 {"retry", read_retry},
										 {"queue", read_queue},
										 {"run_as", read_run_as},
										 {"non_retryable", read_non_retryable},
										 {"concurrency", read_concurrency},
										 {"middleware", read_middleware},
										 {REDACT, read_redact},
										 {NULL, NULL}};

void
qml_options_parse_handler(Jsonb *options, void *into)
{
	memset(into, 0, sizeof(QmlHandlerOptions));
	qml_options_default_queue(&((QmlHandlerOptions *) into)->common);
	read_document(options, handler_options, into);
}

/* ----- the data of a state ----- */

static void
read_run_at(const char *path, JsonbValue *value, void *into)
{
	((QmlStateData *) into)->run_at = read_time(path, value);
}

static void
read_claim_lease(const char *path, JsonbValue *value, void *into)
{
	((QmlStateData *) into)->lease = read_duration(path, value, 1, MAX_USECS, LEASE_ALLOWED);
}

static void
read_worker(const char *path, JsonbValue *value, void *into)
{
	((QmlStateData *) into)->worker = CStringGetTextDatum(read_name(path, value, QML_MAX_NAME));
}

static void
read_reason(const char *path, JsonbValue *value, void *into)
{
	((QmlStateData *) into)->reason = read_text(path, value, QML_MAX_ERROR);
}

static void
read_result(const char *path, JsonbValue *value, void *into)
{
	((QmlStateData *) into)->result = JsonbPGetDatum(JsonbValueToJsonb(value));
}

static void
read_error(const char *path, JsonbValue *value, void *into)
{
	((QmlStateData *) into)->error = qml_report_error(read_text(path, value, QML_MAX_ERROR));
}

static void
read_error_type(const char *path, JsonbValue *value, void *into)
{
	((QmlStateData *) into)->error_type = qml_report_error_type(
		read_text(path, value, QML_MAX_ERROR));
}

static void
read_stack_trace(const char *path, JsonbValue *value, void *into)
{
	((QmlStateData *) into)->stack_trace = read_text(path, value, QML_MAX_STACK_TRACE);
}

static const Option scheduled_data[] = {{"run_at", read_run_at},
										{"reason", read_reason},
										{NULL, NULL}};
static const Option processing_data[] = {{"worker", read_worker},
										 {"lease", read_claim_lease},
										 {NULL, NULL}};
static const Option retry_data[] = {{"run_at", read_run_at},
									{"error", read_error},
									{"error_type", read_error_type},
									{"stack_trace", read_stack_trace},
									{NULL, NULL}};
static const Option failed_data[] = {{"error", read_error},
									 {"error_type", read_error_type},
									 {"stack_trace", read_stack_trace},
									 {NULL, NULL}};
static const Option succeeded_data[] = {{"result", read_result}, {NULL, NULL}};
static const Option no_data[] = {{NULL, NULL}};
static const Option reason_data[] = {{"reason", read_reason}, {NULL, NULL}};

/* What may be given with each state. */
static const Option *const state_data[QML_STATES] = {
	[QML_SCHEDULED] = scheduled_data,	[QML_ENQUEUED] = reason_data,
	[QML_PROCESSING] = processing_data, [QML_AWAITING_RETRY] = retry_data,
	[QML_SUCCEEDED] = succeeded_data,	[QML_FAILED] = failed_data,
	[QML_DELETED] = reason_data,		[QML_AWAITING_PARENTS] = no_data,
};

/* What a caller passes with the new state of a job. */
void
qml_options_parse_state(QmlState state, Jsonb *data, QmlStateData *into)
{
	memset(into, 0, sizeof(*into));
	into->run_at = QML_NO_TIME;
	into->lease = -1;
	read_document(data, state_data[state], into);
	if (into->error == (Datum) 0 &&
		(into->error_type != (Datum) 0 || into->stack_trace != (Datum) 0))
		ereport(ERROR,
				(errcode(ERRCODE_QML_INVALID_OPTION),
				 errmsg("options \"error_type\" and \"stack_trace\" require option \"error\""),
				 errhint("Give an error too, or leave them out.")));
}

/* ----- changes of a job ----- */

static void
read_changed_queue(const char *path, JsonbValue *value, void *into)
{
	char *name = read_name(path, value, QML_MAX_QUEUE_NAME);

	if (qml_args_is_reserved_queue(name))
		bad_value(path, "the name of a queue that is not reserved");
	((QmlJobChanges *) into)->queue = name;
}

static void
read_changed_priority(const char *path, JsonbValue *value, void *into)
{
	((QmlJobChanges *) into)->priority = read_int(path, value, INT_MIN, INT_MAX,
												  "a whole number of 32 bits");
	((QmlJobChanges *) into)->has_priority = true;
}

static void
read_changed_payload(const char *path, JsonbValue *value, void *into)
{
	Datum payload = JsonbPGetDatum(JsonbValueToJsonb(value));

	qml_args_check_document(payload, path);
	((QmlJobChanges *) into)->payload = payload;
}

static void
read_changed_metadata(const char *path, JsonbValue *value, void *into)
{
	QmlJobChanges *changes = into;

	changes->has_metadata = true;
	if (value->type == jbvNull)
		return;
	if (value->type != jbvBinary || !JsonContainerIsObject(value->val.binary.data))
		bad_value(path, "an object, or null");
	changes->metadata = JsonbPGetDatum(JsonbValueToJsonb(value));
	qml_args_check_document(changes->metadata, path);
}

static void
read_changed_retries(const char *path, JsonbValue *value, void *into)
{
	QmlJobChanges *changes = into;

	changes->has_max_retries = true;
	changes->max_retries = value->type == jbvNull ?
							   -1 :
							   read_int(path, value, 0, QML_MAX_RETRIES,
										"a whole number from 0 to 1000, or null");
}

static void
read_changed_timeout(const char *path, JsonbValue *value, void *into)
{
	QmlJobChanges *changes = into;

	changes->has_timeout = true;
	changes->timeout_ms = value->type == jbvNull ?
							  -1 :
							  (int) (read_duration(path, value, 1000, (int64) INT_MAX * 1000,
												   TIMEOUT_ALLOWED) /
									 1000);
}

static void
read_changed_run_at(const char *path, JsonbValue *value, void *into)
{
	QmlJobChanges *changes = into;

	changes->has_run_at = true;
	changes->run_at = value->type == jbvNull ? QML_NO_TIME : read_time(path, value);
}

static const Option job_changes[] = {{"queue", read_changed_queue},
									 {"priority", read_changed_priority},
									 {"payload", read_changed_payload},
									 {"max_retries", read_changed_retries},
									 {"timeout", read_changed_timeout},
									 {"run_at", read_changed_run_at},
									 {"metadata", read_changed_metadata},
									 {NULL, NULL}};

/* What is to be changed of a job.  There must be something. */
void
qml_options_parse_changes(Jsonb *changes, QmlJobChanges *into)
{
	memset(into, 0, sizeof(*into));
	into->run_at = QML_NO_TIME;
	if (!JB_ROOT_IS_OBJECT(changes) || JB_ROOT_COUNT(changes) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_QML_INVALID_OPTION),
				 errmsg("changes must be a JSON object with at least one member"),
				 errhint("What can be changed is: %s.", list_options(job_changes))));
	read_members("", &changes->root, job_changes, true, into);
}

/* ----- hooks and middleware ----- */

static void
read_after_commit(const char *path, JsonbValue *value, void *into)
{
	((QmlHookOptions *) into)->after_commit = read_boolean(path, value);
}

static void
read_with_payload(const char *path, JsonbValue *value, void *into)
{
	((QmlHookOptions *) into)->with_payload = read_boolean(path, value);
}

static const Option hook_options[] = {{"after_commit", read_after_commit},
									  {"with_payload", read_with_payload},
									  {NULL, NULL}};

void
qml_options_parse_hook(Jsonb *options, void *into)
{
	QmlHookOptions *hook = into;

	memset(hook, 0, sizeof(*hook));
	read_document(options, hook_options, hook);
	if (hook->with_payload && !hook->after_commit)
		ereport(ERROR,
				(errcode(ERRCODE_QML_INVALID_OPTION),
				 errmsg("option \"with_payload\" requires option \"after_commit\""),
				 errdetail("Without it, a hook gets the whole job."),
				 errhint("Leave it out, or add \"after_commit\": true.")));
}

/* Middleware has no options: any member is an error. */
void
qml_options_parse_middleware(Jsonb *options)
{
	static const Option none[] = {{NULL, NULL}};

	read_document(options, none, NULL);
}

/* ----- enqueueing ----- */

static void
read_on_duplicate_id(const char *path, JsonbValue *value, void *into)
{
	static const char *const names[] = {"error", "return"};
	int chosen = read_choice(value, names, lengthof(names));

	if (chosen < 0)
		bad_value(path, "\"error\" or \"return\"");
	((QmlEnqueueOptions *) into)->on_duplicate_id = (QmlOnDuplicateId) chosen;
}

static const Option enqueue_options[] = {{"on_duplicate_id", read_on_duplicate_id}, {NULL, NULL}};

/* own_id: the caller gives the id of the job. */
void
qml_options_parse_enqueue(Jsonb *options, bool own_id, QmlEnqueueOptions *into)
{
	read_document(options, enqueue_options, into);
	if (into->on_duplicate_id != QML_DUPLICATE_ID_ERROR && !own_id)
		ereport(ERROR,
				(errcode(ERRCODE_QML_INVALID_OPTION),
				 errmsg("option \"on_duplicate_id\" requires argument \"id\""),
				 errdetail("Without it, each job gets an id that no other job has.")));
}

/* ----- documents that are stored ----- */

/*
 * Parses options that may have been written by hand.  False if they are invalid, and
 * *error says why.
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
