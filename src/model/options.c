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
 * How they are read, and what errors are: option_reader.c.  An option that is null counts as not
 * given; in changes, it goes back to what a job has that was given none.
 */
#include "postgres.h"

#include <limits.h>

#include "utils/builtins.h"

#include "common/args.h"
#include "common/report.h"
#include "errcodes.h"
#include "model/option_reader.h"
#include "model/options.h"

/* Read by name, too. */
#define STORAGE "storage"
#define REDACT	"redact"

#define MAX_USECS		QML_OPTION_MAX_USECS
#define DELAY_ALLOWED	QML_OPTION_DELAY
#define LEASE_ALLOWED	"an interval, or a number of seconds, longer than 0 and at most 3660 days"
#define TIMEOUT_ALLOWED "an interval, or a number of seconds, from 1 ms to 24 days"

/* ----- the retry policy ----- */

static void
read_strategy(const char *path, JsonbValue *value, void *into)
{
	static const char *const names[] = {"none", "fixed", "linear", "exponential"};
	int chosen = qml_option_choice(value, names, lengthof(names));

	if (chosen < 0)
		qml_option_refuse(path, "\"none\", \"fixed\", \"linear\" or \"exponential\"");
	((QmlRetryPolicy *) into)->strategy = (QmlRetryStrategy) chosen;
}

static void
read_delay(const char *path, JsonbValue *value, void *into)
{
	((QmlRetryPolicy *) into)->delay = qml_option_seconds(path, value);
}

static void
read_multiplier(const char *path, JsonbValue *value, void *into)
{
	((QmlRetryPolicy *) into)->multiplier = qml_option_number(path, value, 1, 1000,
															  "a number from 1 to 1000");
}

static void
read_increment(const char *path, JsonbValue *value, void *into)
{
	((QmlRetryPolicy *) into)->increment = qml_option_seconds(path, value);
}

static void
read_max_delay(const char *path, JsonbValue *value, void *into)
{
	((QmlRetryPolicy *) into)->max_delay = qml_option_seconds(path, value);
}

static void
read_jitter(const char *path, JsonbValue *value, void *into)
{
	((QmlRetryPolicy *) into)->jitter = qml_option_number(path, value, 0, 1,
														  "a number from 0 to 1");
}

static const QmlOption retry_options[] = {
	{.name = "strategy", .read = read_strategy},
	{.name = "delay", .read = read_delay},
	{.name = "multiplier", .read = read_multiplier},
	{.name = "increment", .read = read_increment},
	{.name = "max_delay", .read = read_max_delay},
	{.name = "jitter", .read = read_jitter},
	{.name = NULL},
};

static void
read_retry(const char *path, JsonbValue *value, void *into)
{
	if (value->type != jbvBinary || !JsonContainerIsObject(value->val.binary.data))
		qml_option_refuse(path, psprintf("an object; its members are %s",
										 qml_option_list(retry_options)));
	qml_option_object("retry.", value->val.binary.data, retry_options,
					  &((QmlQueueOptions *) into)->retry);
	((QmlQueueOptions *) into)->has_retry = true;
}

/* ----- queues ----- */

static void
read_max_retries(const char *path, JsonbValue *value, void *into)
{
	((QmlQueueOptions *) into)->max_retries = qml_option_int(path, value, 0, QML_MAX_RETRIES,
															 "a whole number from 0 to 1000");
}

static void
read_timeout(const char *path, JsonbValue *value, void *into)
{
	((QmlQueueOptions *) into)->timeout_ms = (int) (qml_option_duration(path, value, 1000,
																		(int64) INT_MAX * 1000,
																		TIMEOUT_ALLOWED) /
													1000);
}

static void
read_lease(const char *path, JsonbValue *value, void *into)
{
	((QmlQueueOptions *) into)->lease = qml_option_duration(path, value, 1, MAX_USECS,
															LEASE_ALLOWED);
}

static void
read_succeeded_ttl(const char *path, JsonbValue *value, void *into)
{
	((QmlQueueOptions *) into)->succeeded_ttl = qml_option_duration(path, value, 0, MAX_USECS,
																	DELAY_ALLOWED);
}

static void
read_failed_ttl(const char *path, JsonbValue *value, void *into)
{
	((QmlQueueOptions *) into)->failed_ttl = qml_option_duration(path, value, 0, MAX_USECS,
																 DELAY_ALLOWED);
}

static void
read_notify(const char *path, JsonbValue *value, void *into)
{
	((QmlQueueOptions *) into)->notify = qml_option_boolean(path, value);
}

static void
read_storage(const char *path, JsonbValue *value, void *into)
{
	static const char *const names[] = {"durable", "async", "unlogged"};
	int chosen = qml_option_choice(value, names, lengthof(names));

	if (chosen < 0)
		qml_option_refuse(path, "\"durable\", \"async\" or \"unlogged\"");
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
		qml_option_refuse(path, allowed);
	redact = alloc_redact((int) JsonContainerSize(value->val.binary.data));
	it = JsonbIteratorInit(value->val.binary.data);
	(void) JsonbIteratorNext(&it, &element, true);
	while (JsonbIteratorNext(&it, &element, true) == WJB_ELEM)
	{
		const char *problem;

		if (element.type != jbvString)
			qml_option_refuse(path, psprintf("%s, each a string", allowed));
		problem = qml_redact_path_parse(element.val.string.val, element.val.string.len,
										&redact->paths[npaths++]);
		if (problem)
			qml_option_refuse(path, psprintf("%s %s", allowed, problem));
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

static void
read_max_wait(const char *path, JsonbValue *value, void *into)
{
	((QmlQueueOptions *) into)->bounds.max_wait = qml_option_duration(path, value, 1, MAX_USECS,
																	  LEASE_ALLOWED);
}

static void
read_max_age(const char *path, JsonbValue *value, void *into)
{
	((QmlQueueOptions *) into)->bounds.max_age = qml_option_duration(path, value, 1, MAX_USECS,
																	 LEASE_ALLOWED);
}

static void
read_max_run(const char *path, JsonbValue *value, void *into)
{
	((QmlQueueOptions *) into)->bounds.max_run = qml_option_duration(path, value, 1, MAX_USECS,
																	 LEASE_ALLOWED);
}

static void
read_max_failure_rate(const char *path, JsonbValue *value, void *into)
{
	((QmlQueueOptions *) into)->bounds.max_failure_rate = qml_option_number(path, value, 0, 1,
																			"a number from 0 to 1");
}

/* In both tables. */
#define BOUNDS                                                                              \
	{.name = "max_wait", .read = read_max_wait}, {.name = "max_age", .read = read_max_age}, \
		{.name = "max_run", .read = read_max_run},                                          \
	{                                                                                       \
		.name = "max_failure_rate", .read = read_max_failure_rate                           \
	}

static const QmlOption queue_options[] = {
	{.name = "max_retries", .read = read_max_retries},
	{.name = "timeout", .read = read_timeout},
	{.name = "lease", .read = read_lease},
	{.name = "succeeded_ttl", .read = read_succeeded_ttl},
	{.name = "failed_ttl", .read = read_failed_ttl},
	{.name = "retry", .read = read_retry, .members = retry_options},
	{.name = "notify", .read = read_notify},
	{.name = STORAGE, .read = read_storage},
	{.name = REDACT, .read = read_redact},
	BOUNDS,
	{.name = NULL},
};

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
	into->bounds = (QmlBounds){-1, -1, -1, -1};
}

void
qml_options_parse_queue(Jsonb *options, void *into)
{
	qml_options_default_queue(into);
	qml_option_document(options, queue_options, into);
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
	char *name = qml_option_name(path, value, QML_MAX_QUEUE_NAME);

	if (qml_args_is_reserved_queue(name))
		qml_option_refuse(path, "the name of a queue that is not reserved");
	((QmlHandlerOptions *) into)->queue = name;
}

/* Whether the role exists is checked where it is used. */
static void
read_run_as(const char *path, JsonbValue *value, void *into)
{
	((QmlHandlerOptions *) into)->run_as = qml_option_name(path, value, NAMEDATALEN - 1);
}

static void
read_non_retryable(const char *path, JsonbValue *value, void *into)
{
	const char *allowed = "an array of strings: error types or SQLSTATEs";
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue element;

	if (value->type != jbvBinary || !JsonContainerIsArray(value->val.binary.data))
		qml_option_refuse(path, allowed);
	it = JsonbIteratorInit(value->val.binary.data);
	(void) JsonbIteratorNext(&it, &element, true);
	while ((token = JsonbIteratorNext(&it, &element, true)) == WJB_ELEM)
	{
		if (element.type != jbvString)
			qml_option_refuse(path, allowed);
		((QmlHandlerOptions *) into)
			->non_retryable = lappend(((QmlHandlerOptions *) into)->non_retryable,
									  qml_option_name(path, &element, QML_MAX_NAME));
	}
}

static void
read_concurrency(const char *path, JsonbValue *value, void *into)
{
	((QmlHandlerOptions *) into)->concurrency = qml_option_int(path, value, 1, QML_MAX_CONCURRENCY,
															   "a whole number from 1 to 1000");
}

static void
read_middleware(const char *path, JsonbValue *value, void *into)
{
	((QmlHandlerOptions *) into)->no_middleware = !qml_option_boolean(path, value);
}

/* Readers of options that queues have, too, take QmlQueueOptions, which QmlHandlerOptions begins with. */
StaticAssertDecl(offsetof(QmlHandlerOptions, common) == 0,
				 "QmlHandlerOptions must begin with QmlQueueOptions");

static const QmlOption handler_options[] = {
	{.name = "max_retries", .read = read_max_retries},
	{.name = "timeout", .read = read_timeout},
	{.name = "retry", .read = read_retry, .members = retry_options},
	{.name = "queue", .read = read_queue},
	{.name = "run_as", .read = read_run_as},
	{.name = "non_retryable", .read = read_non_retryable},
	{.name = "concurrency", .read = read_concurrency},
	{.name = "middleware", .read = read_middleware},
	{.name = REDACT, .read = read_redact},
	BOUNDS,
	{.name = NULL},
};

void
qml_options_parse_handler(Jsonb *options, void *into)
{
	memset(into, 0, sizeof(QmlHandlerOptions));
	qml_options_default_queue(&((QmlHandlerOptions *) into)->common);
	qml_option_document(options, handler_options, into);
}

/* ----- the data of a state ----- */

static void
read_run_at(const char *path, JsonbValue *value, void *into)
{
	((QmlStateData *) into)->run_at = qml_option_time(path, value);
}

static void
read_claim_lease(const char *path, JsonbValue *value, void *into)
{
	((QmlStateData *) into)->lease = qml_option_duration(path, value, 1, MAX_USECS, LEASE_ALLOWED);
}

static void
read_worker(const char *path, JsonbValue *value, void *into)
{
	((QmlStateData *) into)->worker = CStringGetTextDatum(
		qml_option_name(path, value, QML_MAX_NAME));
}

static void
read_reason(const char *path, JsonbValue *value, void *into)
{
	((QmlStateData *) into)->reason = qml_option_text(path, value, QML_MAX_ERROR);
}

static void
read_result(const char *path, JsonbValue *value, void *into)
{
	((QmlStateData *) into)->result = JsonbPGetDatum(JsonbValueToJsonb(value));
}

static void
read_error(const char *path, JsonbValue *value, void *into)
{
	((QmlStateData *) into)->error = qml_report_error(qml_option_text(path, value, QML_MAX_ERROR));
}

static void
read_error_type(const char *path, JsonbValue *value, void *into)
{
	((QmlStateData *) into)->error_type = qml_report_error_type(
		qml_option_text(path, value, QML_MAX_ERROR));
}

static void
read_stack_trace(const char *path, JsonbValue *value, void *into)
{
	((QmlStateData *) into)->stack_trace = qml_option_text(path, value, QML_MAX_STACK_TRACE);
}

static const QmlOption scheduled_data[] = {
	{.name = "run_at", .read = read_run_at},
	{.name = "reason", .read = read_reason},
	{.name = NULL},
};
static const QmlOption processing_data[] = {
	{.name = "worker", .read = read_worker},
	{.name = "lease", .read = read_claim_lease},
	{.name = NULL},
};
static const QmlOption retry_data[] = {
	{.name = "run_at", .read = read_run_at},
	{.name = "error", .read = read_error},
	{.name = "error_type", .read = read_error_type},
	{.name = "stack_trace", .read = read_stack_trace},
	{.name = NULL},
};
static const QmlOption failed_data[] = {
	{.name = "error", .read = read_error},
	{.name = "error_type", .read = read_error_type},
	{.name = "stack_trace", .read = read_stack_trace},
	{.name = NULL},
};
static const QmlOption succeeded_data[] = {
	{.name = "result", .read = read_result},
	{.name = NULL},
};
static const QmlOption no_data[] = {
	{.name = NULL},
};
static const QmlOption reason_data[] = {
	{.name = "reason", .read = read_reason},
	{.name = NULL},
};

/* What may be given with each state. */
static const QmlOption *const state_data[QML_STATES] = {
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
	qml_option_document(data, state_data[state], into);
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
	char *name = qml_option_name(path, value, QML_MAX_QUEUE_NAME);

	if (qml_args_is_reserved_queue(name))
		qml_option_refuse(path, "the name of a queue that is not reserved");
	((QmlJobChanges *) into)->queue = name;
}

static void
read_changed_priority(const char *path, JsonbValue *value, void *into)
{
	((QmlJobChanges *) into)->priority = qml_option_int(path, value, INT_MIN, INT_MAX,
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
		qml_option_refuse(path, "an object, or null");
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
							   qml_option_int(path, value, 0, QML_MAX_RETRIES,
											  "a whole number from 0 to 1000, or null");
}

static void
read_changed_timeout(const char *path, JsonbValue *value, void *into)
{
	QmlJobChanges *changes = into;

	changes->has_timeout = true;
	changes->timeout_ms = value->type == jbvNull ?
							  -1 :
							  (int) (qml_option_duration(path, value, 1000, (int64) INT_MAX * 1000,
														 TIMEOUT_ALLOWED) /
									 1000);
}

static void
read_changed_run_at(const char *path, JsonbValue *value, void *into)
{
	QmlJobChanges *changes = into;

	changes->has_run_at = true;
	changes->run_at = value->type == jbvNull ? QML_NO_TIME : qml_option_time(path, value);
}

static const QmlOption job_changes[] = {
	{.name = "queue", .read = read_changed_queue},
	{.name = "priority", .read = read_changed_priority},
	{.name = "payload", .read = read_changed_payload},
	{.name = "max_retries", .read = read_changed_retries},
	{.name = "timeout", .read = read_changed_timeout},
	{.name = "run_at", .read = read_changed_run_at},
	{.name = "metadata", .read = read_changed_metadata},
	{.name = NULL},
};

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
				 errhint("What can be changed is: %s.", qml_option_list(job_changes))));
	qml_option_members("", &changes->root, job_changes, true, into);
}

/* ----- hooks and middleware ----- */

static void
read_after_commit(const char *path, JsonbValue *value, void *into)
{
	((QmlHookOptions *) into)->after_commit = qml_option_boolean(path, value);
}

static void
read_with_payload(const char *path, JsonbValue *value, void *into)
{
	((QmlHookOptions *) into)->with_payload = qml_option_boolean(path, value);
}

static void
read_alerts(const char *path, JsonbValue *value, void *into)
{
	((QmlHookOptions *) into)->alerts = qml_option_boolean(path, value);
}

static const QmlOption hook_options[] = {
	{.name = "after_commit", .read = read_after_commit},
	{.name = "with_payload", .read = read_with_payload},
	{.name = "alerts", .read = read_alerts},
	{.name = NULL},
};

void
qml_options_parse_hook(Jsonb *options, void *into)
{
	QmlHookOptions *hook = into;

	memset(hook, 0, sizeof(*hook));
	qml_option_document(options, hook_options, hook);
	if (hook->with_payload && !hook->after_commit)
		ereport(ERROR,
				(errcode(ERRCODE_QML_INVALID_OPTION),
				 errmsg("option \"with_payload\" requires option \"after_commit\""),
				 errdetail("Without it, a hook gets the whole job."),
				 errhint("Leave it out, or add \"after_commit\": true.")));
	if (hook->alerts && !hook->after_commit)
		ereport(ERROR,
				(errcode(ERRCODE_QML_INVALID_OPTION),
				 errmsg("option \"alerts\" requires option \"after_commit\""),
				 errdetail("A hook is told of alerts by jobs."),
				 errhint("Add \"after_commit\": true.")));
	if (hook->alerts && hook->with_payload)
		ereport(ERROR,
				(errcode(ERRCODE_QML_INVALID_OPTION),
				 errmsg("options \"alerts\" and \"with_payload\" exclude each other"),
				 errdetail("An alert has no payload.")));
}

/* Middleware has no options: any member is an error. */
void
qml_options_parse_middleware(Jsonb *options)
{
	static const QmlOption none[] = {
		{.name = NULL},
	};

	qml_option_document(options, none, NULL);
}

/* ----- enqueueing ----- */

static void
read_on_duplicate_id(const char *path, JsonbValue *value, void *into)
{
	static const char *const names[] = {"error", "return"};
	int chosen = qml_option_choice(value, names, lengthof(names));

	if (chosen < 0)
		qml_option_refuse(path, "\"error\" or \"return\"");
	((QmlEnqueueOptions *) into)->on_duplicate_id = (QmlOnDuplicateId) chosen;
}

static const QmlOption enqueue_options[] = {
	{.name = "on_duplicate_id", .read = read_on_duplicate_id},
	{.name = NULL},
};

/* own_id: the caller gives the id of the job. */
void
qml_options_parse_enqueue(Jsonb *options, bool own_id, QmlEnqueueOptions *into)
{
	qml_option_document(options, enqueue_options, into);
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
