/*
 * search_match.c
 *		Whether a job is what is sought.
 *
 * All terms of the query must match.  Those that cost least are asked first.  What a term asks of the
 * contents of a job (payload, metadata, errors) that the searcher does not see does not match,
 * with a minus neither: otherwise the contents could be guessed.  Where something is hidden in the
 * contents, what is asked of them is asked of what is shown.
 */
#include "postgres.h"

#include "catalog/pg_collation.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

#include "core/state.h"
#include "jobs/search_match.h"
#include "model/redact.h"

/* A value as jobs are compared with it. */
typedef struct Wanted
{
	const QmlSearchValue *value;
	Datum text; /* in lower case where case does not matter; 0: none */
	Datum low;	/* numeric; 0: no bound, or no number */
	Datum high;
	Oid role;
} Wanted;

struct QmlSearchMatcher
{
	const QmlSearchQuery *query;
	TimestampTz now;
	Wanted *wanted;					 /* by value of the query */
	int order[QML_SEARCH_MAX_TERMS]; /* of its terms */
};

/* What is asked last. */
static int
cost_of(QmlSearchField field)
{
	switch (field)
	{
		case QML_SEARCH_PAYLOAD:
			return 3;
		case QML_SEARCH_METADATA:
		case QML_SEARCH_ERROR:
		case QML_SEARCH_ERROR_TYPE:
		case QML_SEARCH_FINGERPRINT:
		case QML_SEARCH_WORD:
			return 2;
		case QML_SEARCH_STATE:
		case QML_SEARCH_QUEUE:
			return 0;
		default:
			return 1;
	}
}

static Datum
lower_text(Datum text)
{
	return DirectFunctionCall1Coll(lower, DEFAULT_COLLATION_OID, text);
}

static Datum
read_numeric(const char *text)
{
	return DirectFunctionCall3(numeric_in, CStringGetDatum(text), ObjectIdGetDatum(InvalidOid),
							   Int32GetDatum(-1));
}

static void
prepare_value(QmlSearchField field, const QmlSearchValue *value, Wanted *wanted)
{
	memset(wanted, 0, sizeof(*wanted));
	wanted->value = value;
	if (value->is_range)
	{
		wanted->low = value->text ? read_numeric(value->text) : (Datum) 0;
		wanted->high = value->until ? read_numeric(value->until) : (Datum) 0;
		return;
	}
	if (value->text == NULL)
		return;
	wanted->text = CStringGetTextDatum(value->text);
	if (field == QML_SEARCH_WORD || field == QML_SEARCH_ERROR)
		wanted->text = lower_text(wanted->text);
	if (value->is_number)
		wanted->low = read_numeric(value->text);
	if (field == QML_SEARCH_BY)
		wanted->role = get_role_oid(value->text, true);
}

/* Prepares comparisons, in the current memory context. */
QmlSearchMatcher *
qml_search_matcher(const QmlSearchCompiled *compiled)
{
	const QmlSearchQuery *query = &compiled->query;
	QmlSearchMatcher *matcher = palloc0(sizeof(QmlSearchMatcher));
	int count = 0;

	matcher->query = query;
	matcher->now = compiled->now;
	matcher->wanted = palloc(sizeof(Wanted) * Max(query->nvalues, 1));
	for (int i = 0; i < query->nterms; i++)
	{
		const QmlSearchTerm *term = &query->terms[i];

		for (int j = term->first_value; j < term->first_value + term->nvalues; j++)
			prepare_value(term->field, &query->values[j], &matcher->wanted[j]);
	}
	for (int cost = 0; cost <= 3; cost++)
	{
		for (int i = 0; i < query->nterms; i++)
		{
			if (cost_of(query->terms[i].field) == cost)
				matcher->order[count++] = i;
		}
	}
	Assert(count == query->nterms);
	return matcher;
}

/* ----- texts ----- */

/* Whether a text, 0 for none, is equal. */
static bool
is_equal(Datum text, Datum wanted)
{
	return text != (Datum) 0 &&
		   DatumGetBool(DirectFunctionCall2Coll(texteq, C_COLLATION_OID, text, wanted));
}

/* Whether a text, 0 for none, contains another one, which is in lower case. */
static bool
contains(Datum text, Datum wanted)
{
	return text != (Datum) 0 &&
		   DatumGetInt32(
			   DirectFunctionCall2Coll(textpos, C_COLLATION_OID, lower_text(text), wanted)) > 0;
}

static bool
has_fingerprint(const QmlJob *job, const char *wanted)
{
	char *fingerprint = qml_job_fingerprint(job);

	return fingerprint && pg_strcasecmp(fingerprint, wanted) == 0;
}

static bool
is_queue(int id, const char *name)
{
	const QmlQueue *queue = qml_queue_by_id(id);

	return queue && strcmp(queue->name, name) == 0;
}

/* ----- numbers and times ----- */

static bool
is_within(int64 number, const QmlSearchValue *value)
{
	return number >= value->low && number <= value->high;
}

static bool
is_time_within(TimestampTz time, const QmlSearchValue *value)
{
	return time != QML_NO_TIME && is_within(time, value);
}

static bool
is_duration_within(TimestampTz begin, TimestampTz end, const QmlSearchValue *value)
{
	/* Clocks are set back. */
	return begin != QML_NO_TIME && end != QML_NO_TIME && is_within(Max(end - begin, 0), value);
}

/* How long the latest attempt took, or has taken; of what waits for the next one nothing is said. */
static bool
ran_within(const QmlSearchMatcher *matcher, const QmlJob *job, const QmlSearchValue *value)
{
	TimestampTz end = job->state == QML_PROCESSING ? matcher->now : job->finished_at;

	return is_duration_within(job->started_at, end, value);
}

/* How long the job waited until its latest attempt began, or has waited for the next one. */
static bool
waited_within(const QmlSearchMatcher *matcher, const QmlJob *job, const QmlSearchValue *value)
{
	TimestampTz ready = job->ready_at != QML_NO_TIME ? job->ready_at : job->created_at;

	if (job->state == QML_SCHEDULED || job->state == QML_AWAITING_PARENTS)
		return false;
	return is_duration_within(ready, job->state == QML_ENQUEUED ? matcher->now : job->started_at,
							  value);
}

/* ----- documents ----- */

/* Goes into a member of an object, or an element of an array; false: there is none. */
static bool
descend(JsonbContainer *container, const char *step, JsonbValue *found)
{
	JsonbValue *element;
	char *end;
	long number;

	if (JsonContainerIsObject(container))
		return getKeyJsonValueFromContainer(container, step, (int) strlen(step), found) != NULL;
	if (!JsonContainerIsArray(container) || JsonContainerIsScalar(container))
		return false;
	errno = 0;
	number = strtol(step, &end, 10);
	if (end == step || *end != '\0' || errno != 0 || number < 0 ||
		number >= (long) JsonContainerSize(container))
		return false;
	element = getIthJsonbValueFromContainer(container, (uint32) number);
	if (element == NULL)
		return false;
	*found = *element;
	return true;
}

/* Finds what a path leads to in a document. */
static bool
find_member(const QmlSearchMatcher *matcher, const QmlSearchTerm *term, Datum document,
			JsonbValue *found)
{
	JsonbContainer *container = &DatumGetJsonbP(document)->root;

	for (int i = 0; i < term->nsteps; i++)
	{
		if (!descend(container, matcher->query->steps[term->first_step + i], found))
			return false;
		if (i + 1 < term->nsteps)
		{
			if (found->type != jbvBinary)
				return false;
			container = found->val.binary.data;
		}
	}
	return true;
}

static int
compare_numbers(Datum a, Datum b)
{
	return DatumGetInt32(DirectFunctionCall2(numeric_cmp, a, b));
}

static bool
is_number_within(Datum number, const Wanted *wanted)
{
	if (wanted->low)
	{
		int sign = compare_numbers(number, wanted->low);

		if (sign < 0 || (sign == 0 && wanted->value->low_open))
			return false;
	}
	if (wanted->high)
	{
		int sign = compare_numbers(number, wanted->high);

		if (sign > 0 || (sign == 0 && wanted->value->high_open))
			return false;
	}
	return true;
}

/* A value of a document as text, as the operator ->> gives it; null is "null". */
static Datum
json_text(const JsonbValue *value)
{
	switch (value->type)
	{
		case jbvString:
			return PointerGetDatum(
				cstring_to_text_with_len(value->val.string.val, value->val.string.len));
		case jbvNull:
			return CStringGetTextDatum("null");
		case jbvBool:
			return CStringGetTextDatum(value->val.boolean ? "true" : "false");
		case jbvNumeric:
			return CStringGetTextDatum(DatumGetCString(
				DirectFunctionCall1(numeric_out, NumericGetDatum(value->val.numeric))));
		case jbvBinary:
			return CStringGetTextDatum(
				JsonbToCString(NULL, value->val.binary.data, value->val.binary.len));
		default:
			return (Datum) 0;
	}
}

static bool
matches_json(const JsonbValue *found, const Wanted *wanted)
{
	bool is_number = found->type == jbvNumeric;

	if (wanted->value->is_range)
		return is_number && is_number_within(NumericGetDatum(found->val.numeric), wanted);
	/* 1 and 1.0 are the same number. */
	if (is_number && wanted->low)
		return compare_numbers(NumericGetDatum(found->val.numeric), wanted->low) == 0;
	return is_equal(json_text(found), wanted->text);
}

static bool
matches_member(const QmlSearchMatcher *matcher, const QmlSearchTerm *term, Datum document,
			   const Wanted *wanted)
{
	JsonbValue found;

	return document != (Datum) 0 && find_member(matcher, term, document, &found) &&
		   matches_json(&found, wanted);
}

/* ----- terms ----- */

static bool
is_of_documents(QmlSearchField field)
{
	return field == QML_SEARCH_PAYLOAD || field == QML_SEARCH_METADATA;
}

/* Whether a term asks of what only those see who see the contents of a job. */
static bool
is_of_contents(QmlSearchField field)
{
	return is_of_documents(field) || field == QML_SEARCH_ERROR || field == QML_SEARCH_ERROR_TYPE ||
		   field == QML_SEARCH_FINGERPRINT;
}

static bool
matches_value(const QmlSearchMatcher *matcher, const QmlSearchTerm *term, const Wanted *wanted,
			  const QmlJob *job, QmlAccess access)
{
	const QmlSearchValue *value = wanted->value;

	switch (term->field)
	{
		case QML_SEARCH_WORD:
			return contains(job->method, wanted->text) ||
				   (access == QML_ACCESS_FULL && contains(qml_job_last_error(job), wanted->text));
		case QML_SEARCH_STATE:
			return job->state == value->state;
		case QML_SEARCH_QUEUE:
			return is_queue(job->queue_id, value->text);
		case QML_SEARCH_METHOD:
			return is_equal(job->method, wanted->text);
		case QML_SEARCH_TYPE:
			return is_equal(job->job_type, wanted->text);
		case QML_SEARCH_WORKER:
			return is_equal(job->worker, wanted->text);
		case QML_SEARCH_SERVER:
			return is_equal(job->server, wanted->text);
		case QML_SEARCH_BY:
			return OidIsValid(wanted->role) && job->created_by == wanted->role;
		case QML_SEARCH_ID:
			return memcmp(job->id.data, value->id, UUID_LEN) == 0;
		case QML_SEARCH_PRIORITY:
			return is_within(job->priority, value);
		case QML_SEARCH_ATTEMPT:
			return is_within(job->attempt, value);
		case QML_SEARCH_PAYLOAD:
			return matches_member(matcher, term, job->payload, wanted);
		case QML_SEARCH_METADATA:
			return matches_member(matcher, term, job->metadata, wanted);
		case QML_SEARCH_ERROR:
			return contains(qml_job_last_error(job), wanted->text);
		case QML_SEARCH_ERROR_TYPE:
			return is_equal(qml_job_last_error_type(job), wanted->text);
		case QML_SEARCH_FINGERPRINT:
			return has_fingerprint(job, value->text);
		case QML_SEARCH_CREATED:
			return is_time_within(job->created_at, value);
		case QML_SEARCH_FINISHED:
			return is_time_within(job->finished_at, value);
		case QML_SEARCH_RUN:
			return ran_within(matcher, job, value);
		case QML_SEARCH_WAIT:
			return waited_within(matcher, job, value);
		case QML_SEARCH_FIELDS:
			break;
	}
	return false;
}

/* Whether what a term asks of can be seen at all. */
static bool
is_seen(QmlSearchField field, QmlAccess access)
{
	if (access == QML_ACCESS_REDACTED && is_of_documents(field))
		return true;
	return access == QML_ACCESS_FULL || !is_of_contents(field);
}

static bool
matches_term(const QmlSearchMatcher *matcher, const QmlSearchTerm *term, const QmlJob *job,
			 QmlAccess access)
{
	QmlJob shown;

	if (!is_seen(term->field, access))
		return false;
	if (access == QML_ACCESS_REDACTED && is_of_documents(term->field))
	{
		const QmlQueue *queue = qml_queue_by_id(job->queue_id);

		shown = *job;
		shown.payload = qml_redact_document(queue, job->method, QML_REDACT_PAYLOAD, job->payload);
		shown.metadata = qml_redact_document(queue, job->method, QML_REDACT_METADATA,
											 job->metadata);
		job = &shown;
	}
	for (int i = term->first_value; i < term->first_value + term->nvalues; i++)
	{
		if (matches_value(matcher, term, &matcher->wanted[i], job, access))
			return !term->negated;
	}
	return term->negated;
}

/* Leaves behind in the current memory context what it needed. */
bool
qml_search_match(const QmlSearchMatcher *matcher, const QmlJob *job, QmlAccess access)
{
	for (int i = 0; i < matcher->query->nterms; i++)
	{
		if (!matches_term(matcher, &matcher->query->terms[matcher->order[i]], job, access))
			return false;
	}
	return true;
}
