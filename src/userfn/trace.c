/*
 * trace.c
 *		The W3C trace context of the job that runs.
 *
 * The metadata of a job can contain the traceparent of the client that enqueued it.  An
 * attempt that runs in the middleware qml_tracing is a span of that trace, or else of a
 * trace whose id is the id of the job.  Jobs that it enqueues get the attempt's own
 * traceparent into their metadata, unless these already contain one.
 *
 * The trace is kept until qml_trace_take(), because it is logged after the commit, when
 * the outcome of the attempt is known.
 *
 * The format is that of https://www.w3.org/TR/trace-context/, section 3.2.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"

#include "common/clock.h"
#include "common/json.h"
#include "userfn/trace.h"

#define MEMBER "traceparent"

/* Offsets of the parts of a traceparent, and their lengths. */
#define TRACE_ID	   3
#define TRACE_ID_BYTES 16
#define SPAN_ID		   36
#define SPAN_ID_BYTES  8
#define FLAGS		   53

static QmlTrace trace;		 /* of the attempt that runs, or ran last */
static bool running = false; /* jobs that are enqueued now are children of it */

static bool
is_hex(const char *text, int length, bool may_be_zero)
{
	bool zero = true;

	for (int i = 0; i < length; i++)
	{
		if (strchr("0123456789abcdef", text[i]) == NULL)
			return false;
		zero = zero && text[i] == '0';
	}
	return may_be_zero || !zero;
}

/* Version ff is invalid; versions above 00 may have more fields after a hyphen. */
static bool
is_traceparent(const char *text, int length)
{
	return length >= QML_TRACEPARENT_LENGTH && is_hex(text, 2, true) &&
		   strncmp(text, "ff", 2) != 0 && text[TRACE_ID - 1] == '-' &&
		   is_hex(text + TRACE_ID, TRACE_ID_BYTES * 2, false) && text[SPAN_ID - 1] == '-' &&
		   is_hex(text + SPAN_ID, SPAN_ID_BYTES * 2, false) && text[FLAGS - 1] == '-' &&
		   is_hex(text + FLAGS, 2, true) &&
		   (length == QML_TRACEPARENT_LENGTH ||
			(strncmp(text, "00", 2) != 0 && text[QML_TRACEPARENT_LENGTH] == '-'));
}

/* Whether the metadata, a jsonb or 0, has a traceparent; *value is valid or not. */
static bool
find_traceparent(Datum metadata, JsonbValue *value)
{
	Jsonb *document;

	if (metadata == (Datum) 0)
		return false;
	document = DatumGetJsonbP(metadata);
	return JB_ROOT_IS_OBJECT(document) &&
		   getKeyJsonValueFromContainer(&document->root, MEMBER, strlen(MEMBER), value) != NULL;
}

/* Fills in the trace of a new attempt: with the parent's trace id, and a random span id. */
static void
begin_trace(const pg_uuid_t *job, Datum queue, Datum metadata)
{
	JsonbValue value;
	uint8 span[SPAN_ID_BYTES];

	memset(&trace, 0, sizeof(trace));
	text_to_cstring_buffer(DatumGetTextPP(queue), trace.queue, sizeof(trace.queue));
	trace.traced = true;
	strcpy(trace.traceparent, "00-00000000000000000000000000000000-0000000000000000-01");
	if (find_traceparent(metadata, &value) && value.type == jbvString &&
		is_traceparent(value.val.string.val, value.val.string.len))
	{
		memcpy(trace.parent, value.val.string.val, QML_TRACEPARENT_LENGTH);
		memcpy(trace.traceparent + TRACE_ID, trace.parent + TRACE_ID, TRACE_ID_BYTES * 2);
		memcpy(trace.traceparent + FLAGS, trace.parent + FLAGS, 2);
	}
	else
		(void) hex_encode((const char *) job->data, TRACE_ID_BYTES, trace.traceparent + TRACE_ID);
	if (!pg_strong_random(span, sizeof(span)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate random values")));
	/* A span id of zeros would be invalid. */
	span[0] |= 1;
	(void) hex_encode((const char *) span, sizeof(span), trace.traceparent + SPAN_ID);
}

/* Does the work of a job with this queue, a text, and metadata, a jsonb or 0, and traces it. */
Datum
qml_trace_run(const pg_uuid_t *job, Datum queue, Datum metadata, Datum (*work)(void))
{
	instr_time start;
	volatile Datum result = (Datum) 0;

	begin_trace(job, queue, metadata);
	running = true;
	INSTR_TIME_SET_CURRENT(start);
	PG_TRY();
	{
		result = work();
	}
	PG_FINALLY();
	{
		running = false;
		trace.milliseconds = qml_clock_ms_since(start);
	}
	PG_END_TRY();
	return result;
}

/* Returns the trace of the attempt that ran last, and clears it. */
QmlTrace
qml_trace_take(void)
{
	QmlTrace taken = trace;

	memset(&trace, 0, sizeof(trace));
	return taken;
}

/* The metadata for a job that is enqueued now, with a traceparent if an attempt is traced. */
Datum
qml_trace_add_parent(Datum metadata)
{
	JsonbParseState *state = NULL;
	JsonbValue value;
	Datum member;

	if (!running || find_traceparent(metadata, &value))
		return metadata;
	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	qml_json_push_text(&state, MEMBER, CStringGetTextDatum(trace.traceparent));
	member = JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
	if (metadata == (Datum) 0)
		return member;
	/* Metadata that is not an object stays as it is. */
	if (!JB_ROOT_IS_OBJECT(DatumGetJsonbP(metadata)))
		return metadata;
	return DirectFunctionCall2(jsonb_concat, metadata, member);
}
