/*
 * job.c
 *		A job in memory, and how it is laid out in rows of qml.live, qml.history
 *		and the type qml.job.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "common/hashfn.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/typcache.h"

#include "common/hash_set.h"
#include "common/json.h"
#include "core/fingerprint.h"
#include "core/state.h"
#include "errcodes.h"
#include "model/catalog.h"
#include "model/columns.h"
#include "model/job.h"
#include "model/queue.h"
#include "model/redact.h"

/* Member of an error that no longer counts. */
#define FORGIVEN "forgiven"

/* The timeout of most jobs, for which no value is stored; qml.job of the SQL script says the same. */
#define USUAL_TIMEOUT_MS 300000

/* From a higher layer: the policy can be that of a handler. */
static QmlRetriesMost retries_most;

void
qml_job_init(QmlRetriesMost most)
{
	retries_most = most;
}

/* Columns of a row in a slot, whose attributes have been extracted. */

static TimestampTz
get_time(TupleTableSlot *slot, int attnum)
{
	return slot->tts_isnull[attnum - 1] ? QML_NO_TIME :
										  DatumGetTimestampTz(slot->tts_values[attnum - 1]);
}

static Datum
get_varlena(TupleTableSlot *slot, int attnum)
{
	return slot->tts_isnull[attnum - 1] ? (Datum) 0 : slot->tts_values[attnum - 1];
}

static int
get_int(TupleTableSlot *slot, int attnum)
{
	return DatumGetInt32(slot->tts_values[attnum - 1]);
}

/* Of a column that is NULL where it has the usual value. */
static int
get_int_or(TupleTableSlot *slot, int attnum, int usual)
{
	return slot->tts_isnull[attnum - 1] ? usual : get_int(slot, attnum);
}

static int16
get_smallint(TupleTableSlot *slot, int attnum)
{
	return DatumGetInt16(slot->tts_values[attnum - 1]);
}

#ifdef QML_NEXT
/* Of a column that came after version 1.0. */
static Datum
get_later_varlena(QmlKnownTable table, TupleTableSlot *slot, int known)
{
	int attnum = qml_columns_number(table, slot->tts_tupleDescriptor, known);

	return attnum ? get_varlena(slot, attnum) : (Datum) 0;
}
#endif

StaticAssertDecl((int) LIVE_TIMEOUT_MS == (int) HISTORY_TIMEOUT_MS &&
					 (int) LIVE_UNCOUNTED == (int) HISTORY_UNCOUNTED,
				 "both tables have these columns under the same numbers");

/* Reads the columns that both tables have under the same numbers; the others are null. */
static void
read_common(TupleTableSlot *slot, QmlJob *job)
{
	memset(job, 0, sizeof(*job));
	job->source = slot;
	job->id = *DatumGetUUIDP(slot->tts_values[LIVE_ID - 1]);
	job->created_at = get_time(slot, LIVE_CREATED_AT);
	job->queue_id = get_int(slot, LIVE_QUEUE_ID);
	job->was_queue = job->queue_id;
	job->priority = get_int(slot, LIVE_PRIORITY);
	job->state = qml_catalog_state(DatumGetObjectId(slot->tts_values[LIVE_STATE - 1]));
	job->was = job->state;
	job->attempt = get_int_or(slot, LIVE_ATTEMPT, 0);
	job->uncounted = get_int_or(slot, LIVE_UNCOUNTED, 0);
	qml_job_set_stored_retries(job, get_smallint(slot, LIVE_MAX_RETRIES));
	job->lineage = get_smallint(slot, LIVE_LINEAGE);
	job->timeout_ms = get_int_or(slot, LIVE_TIMEOUT_MS, USUAL_TIMEOUT_MS);
	job->created_by = DatumGetObjectId(slot->tts_values[LIVE_CREATED_BY - 1]);
	job->ready_at = get_time(slot, LIVE_READY_AT);
	job->run_at = QML_NO_TIME;
	job->finished_at = QML_NO_TIME;
	job->expires_at = QML_NO_TIME;
	job->lease_expires_at = QML_NO_TIME;
}

/* Reads a row of qml.live.  Variable-length values point into the slot. */
void
qml_job_from_live(TupleTableSlot *slot, QmlJob *job)
{
	slot_getallattrs(slot);
	read_common(slot, job);
	job->run_at = get_time(slot, LIVE_RUN_AT);
	job->started_at = get_time(slot, LIVE_STARTED_AT);
	job->lease_expires_at = get_time(slot, LIVE_LEASE_EXPIRES_AT);
	job->worker = get_varlena(slot, LIVE_WORKER);
	job->server = get_varlena(slot, LIVE_SERVER);
	job->method = get_varlena(slot, LIVE_METHOD);
	job->job_type = get_varlena(slot, LIVE_JOB_TYPE);
	job->metadata = get_varlena(slot, LIVE_METADATA);
	job->progress = get_varlena(slot, LIVE_PROGRESS);
	job->errors = get_varlena(slot, LIVE_ERRORS);
	job->reason = get_varlena(slot, LIVE_REASON);
	job->payload = get_varlena(slot, LIVE_PAYLOAD);
#ifdef QML_NEXT
	job->note = get_later_varlena(QML_TABLE_LIVE, slot, LIVE_NOTE);
#endif
}

/* Reads a row of qml.history.  Variable-length values point into the slot. */
void
qml_job_from_history(TupleTableSlot *slot, QmlJob *job)
{
	slot_getallattrs(slot);
	read_common(slot, job);
	job->finished_at = get_time(slot, HISTORY_FINISHED_AT);
	job->expires_at = get_time(slot, HISTORY_EXPIRES_AT);
	job->started_at = get_time(slot, HISTORY_STARTED_AT);
	job->worker = get_varlena(slot, HISTORY_WORKER);
	job->server = get_varlena(slot, HISTORY_SERVER);
	job->method = get_varlena(slot, HISTORY_METHOD);
	job->job_type = get_varlena(slot, HISTORY_JOB_TYPE);
	job->metadata = get_varlena(slot, HISTORY_METADATA);
	job->progress = get_varlena(slot, HISTORY_PROGRESS);
	job->errors = get_varlena(slot, HISTORY_ERRORS);
	job->reason = get_varlena(slot, HISTORY_REASON);
	job->payload = get_varlena(slot, HISTORY_PAYLOAD);
	job->result = get_varlena(slot, HISTORY_RESULT);
#ifdef QML_NEXT
	job->note = get_later_varlena(QML_TABLE_HISTORY, slot, HISTORY_NOTE);
#endif
}

/*
 * The state of a row of qml.live, without reading the rest of it; QML_STATES if it has a
 * label that qml does not know, which must not hide the other rows.
 */
QmlState
qml_job_live_state(TupleTableSlot *slot)
{
	bool isnull;

	return qml_catalog_state_or_none(DatumGetObjectId(slot_getattr(slot, LIVE_STATE, &isnull)));
}

/* The method of a row of qml.live, a text. */
Datum
qml_job_live_method(TupleTableSlot *slot)
{
	bool isnull;

	return slot_getattr(slot, LIVE_METHOD, &isnull);
}

/* Where a row of qml.live stands in its queue. */
void
qml_job_live_place(TupleTableSlot *slot, int *priority, pg_uuid_t *id)
{
	bool isnull;

	*priority = DatumGetInt32(slot_getattr(slot, LIVE_PRIORITY, &isnull));
	*id = *DatumGetUUIDP(slot_getattr(slot, LIVE_ID, &isnull));
}

static void
set_value(TupleTableSlot *slot, int attnum, Datum value)
{
	slot->tts_values[attnum - 1] = value;
	slot->tts_isnull[attnum - 1] = false;
}

/* Of a column that is NULL where it has the usual value. */
static void
set_int_unless(TupleTableSlot *slot, int attnum, int value, int usual)
{
	slot->tts_values[attnum - 1] = Int32GetDatum(value);
	slot->tts_isnull[attnum - 1] = value == usual;
}

static void
set_time(TupleTableSlot *slot, int attnum, TimestampTz time)
{
	slot->tts_values[attnum - 1] = TimestampTzGetDatum(time);
	slot->tts_isnull[attnum - 1] = time == QML_NO_TIME;
}

static void
set_varlena(TupleTableSlot *slot, int attnum, Datum value)
{
	slot->tts_values[attnum - 1] = value;
	slot->tts_isnull[attnum - 1] = value == (Datum) 0;
}

#ifdef QML_NEXT
/* Of a column that came after version 1.0. */
static void
set_later_varlena(QmlKnownTable table, TupleTableSlot *slot, int known, Datum value)
{
	int attnum = qml_columns_number(table, slot->tts_tupleDescriptor, known);

	if (attnum)
		set_varlena(slot, attnum, value);
}
#endif

/* Clears a slot, and sets the columns that both tables have under the same numbers. */
static void
write_common(const QmlJob *job, TupleTableSlot *slot)
{
	Assert(job->state >= 0 && job->state < QML_STATES);
	ExecClearTuple(slot);
	set_value(slot, LIVE_ID, UUIDPGetDatum(&job->id));
	set_time(slot, LIVE_CREATED_AT, job->created_at);
	set_value(slot, LIVE_QUEUE_ID, Int32GetDatum(job->queue_id));
	set_value(slot, LIVE_PRIORITY, Int32GetDatum(job->priority));
	set_value(slot, LIVE_STATE, ObjectIdGetDatum(qml_catalog()->states[job->state]));
	set_int_unless(slot, LIVE_ATTEMPT, job->attempt, 0);
	set_int_unless(slot, LIVE_UNCOUNTED, job->uncounted, 0);
	set_value(slot, LIVE_MAX_RETRIES,
			  Int16GetDatum(job->max_retries |
							(job->retries_asked ? QML_STORED_RETRIES_ASKED : 0)));
	set_value(slot, LIVE_LINEAGE, Int16GetDatum(job->lineage));
	set_int_unless(slot, LIVE_TIMEOUT_MS, job->timeout_ms, USUAL_TIMEOUT_MS);
	set_value(slot, LIVE_CREATED_BY, ObjectIdGetDatum(job->created_by));
	set_time(slot, LIVE_READY_AT, job->ready_at);
}

/* Makes a row of qml.live.  It points to the job's values, which must last until it is written. */
void
qml_job_to_live(const QmlJob *job, TupleTableSlot *slot)
{
	write_common(job, slot);
	set_time(slot, LIVE_RUN_AT, job->run_at);
	set_time(slot, LIVE_STARTED_AT, job->started_at);
	set_time(slot, LIVE_LEASE_EXPIRES_AT, job->lease_expires_at);
	set_varlena(slot, LIVE_WORKER, job->worker);
	set_varlena(slot, LIVE_SERVER, job->server);
	set_varlena(slot, LIVE_METHOD, job->method);
	set_varlena(slot, LIVE_JOB_TYPE, job->job_type);
	set_varlena(slot, LIVE_METADATA, job->metadata);
	set_varlena(slot, LIVE_PROGRESS, job->progress);
	set_varlena(slot, LIVE_ERRORS, job->errors);
	set_varlena(slot, LIVE_REASON, job->reason);
	set_varlena(slot, LIVE_PAYLOAD, job->payload);
#ifdef QML_NEXT
	set_later_varlena(QML_TABLE_LIVE, slot, LIVE_NOTE, job->note);
#endif
	qml_columns_fill_unknown(QML_TABLE_LIVE, slot, LIVE_NUMBERED, job->source);
	ExecStoreVirtualTuple(slot);
}

/* Makes a row of qml.history, likewise. */
void
qml_job_to_history(const QmlJob *job, TupleTableSlot *slot)
{
	write_common(job, slot);
	set_time(slot, HISTORY_FINISHED_AT, job->finished_at);
	set_time(slot, HISTORY_EXPIRES_AT, job->expires_at);
	set_time(slot, HISTORY_STARTED_AT, job->started_at);
	set_varlena(slot, HISTORY_WORKER, job->worker);
	set_varlena(slot, HISTORY_SERVER, job->server);
	set_varlena(slot, HISTORY_METHOD, job->method);
	set_varlena(slot, HISTORY_JOB_TYPE, job->job_type);
	set_varlena(slot, HISTORY_METADATA, job->metadata);
	set_varlena(slot, HISTORY_PROGRESS, job->progress);
	set_varlena(slot, HISTORY_ERRORS, job->errors);
	set_varlena(slot, HISTORY_REASON, job->reason);
	set_varlena(slot, HISTORY_PAYLOAD, job->payload);
	set_varlena(slot, HISTORY_RESULT, job->result);
#ifdef QML_NEXT
	set_later_varlena(QML_TABLE_HISTORY, slot, HISTORY_NOTE, job->note);
#endif
	qml_columns_fill_unknown(QML_TABLE_HISTORY, slot, HISTORY_NUMBERED, job->source);
	ExecStoreVirtualTuple(slot);
}

/* Finds a member of an entry of the job's errors; false also if it is no object. */
static bool
find_in_entry(const JsonbValue *entry, const char *key, JsonbValue *value)
{
	return entry->type == jbvBinary && JsonContainerIsObject(entry->val.binary.data) &&
		   getKeyJsonValueFromContainer(entry->val.binary.data, key, strlen(key), value) != NULL;
}

/* A text of the last failed attempt; 0 when none failed, or it has none. */
static Datum
last_error_text(const QmlJob *job, const char *key)
{
	Datum errors = job->errors;
	Jsonb *array;
	JsonbValue *entry;
	JsonbValue value;

	if (errors == (Datum) 0)
		return (Datum) 0;
	array = DatumGetJsonbP(errors);
	/* Somebody may have edited the row. */
	if (!JB_ROOT_IS_ARRAY(array))
		return (Datum) 0;
	entry = getIthJsonbValueFromContainer(&array->root, JB_ROOT_COUNT(array) - 1);
	if (entry == NULL || !find_in_entry(entry, key, &value) || value.type != jbvString)
		return (Datum) 0;
	return PointerGetDatum(cstring_to_text_with_len(value.val.string.val, value.val.string.len));
}

/* The error of the last failed attempt, as text; 0 when none failed. */
Datum
qml_job_last_error(const QmlJob *job)
{
	return last_error_text(job, "error");
}

/* Its type; 0 when it has none. */
Datum
qml_job_last_error_type(const QmlJob *job)
{
	return last_error_text(job, "error_type");
}

/* Adds a text, 0 for none. */
static uint64
add_to_fingerprint(uint64 fingerprint, Datum value)
{
	text *bytes = value == (Datum) 0 ? NULL : DatumGetTextPP(value);

	return qml_fingerprint_add(fingerprint, bytes ? VARDATA_ANY(bytes) : "",
							   bytes ? VARSIZE_ANY_EXHDR(bytes) : 0);
}

/*
 * What the last error of the job has in common with others that differ in numbers, ids and quoted
 * values only: sixteen hexadecimal digits of method, type and message.  NULL when none failed.
 */
char *
qml_job_fingerprint(const QmlJob *job)
{
	Datum error = qml_job_last_error(job);
	text *message;
	char *normal;
	size_t length;
	uint64 fingerprint;

	if (error == (Datum) 0)
		return NULL;
	message = DatumGetTextPP(error);
	normal = palloc(VARSIZE_ANY_EXHDR(message) + 1);
	length = qml_fingerprint_normalize(VARDATA_ANY(message), VARSIZE_ANY_EXHDR(message), normal);
	fingerprint = add_to_fingerprint(qml_fingerprint_begin(), job->method);
	fingerprint = add_to_fingerprint(fingerprint, qml_job_last_error_type(job));
	fingerprint = qml_fingerprint_add(fingerprint, normal, length);
	pfree(normal);
	return psprintf("%016llx", (unsigned long long) fingerprint);
}

/*
 * When the job became ready for its latest attempt, or will be.  It stays when the attempt
 * begins and ends, so started_at - ready_at is how long the job waited for it.  Most jobs are
 * ready when they are created, and store nothing; while a job is delayed, run_at says it.
 */
static TimestampTz
ready_at(const QmlJob *job)
{
	if (job->run_at != QML_NO_TIME)
		return job->run_at;
	return job->ready_at != QML_NO_TIME ? job->ready_at : job->created_at;
}

/* The number of retries as it is stored. */
void
qml_job_set_stored_retries(QmlJob *job, int stored)
{
	job->max_retries = stored & ~QML_STORED_RETRIES_ASKED;
	job->retries_asked = (stored & QML_STORED_RETRIES_ASKED) != 0;
}

/* How many attempts count, with the one that is to come or goes on; also if the row was edited. */
int
qml_job_tries(const QmlJob *job)
{
	return Max(job->attempt - job->uncounted, 1);
}

/* How many retries may still follow; none follow a final state. */
int
qml_job_retries_left(const QmlJob *job)
{
	int tries = qml_job_tries(job);
	int most;

	if (qml_state_is_final(job->state) || job->max_retries < tries)
		return 0;
	most = retries_most(job);
	return Max(most - (tries - 1), 0);
}

/* A method, a text, by hash: sessions wait for jobs by it. */
uint32
qml_job_hash_method(Datum method)
{
	text *name = DatumGetTextPP(method);

	return hash_bytes((const unsigned char *) VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));
}

/* The same in so many bits that no two methods have the same. */
uint64
qml_job_hash_method_long(Datum method)
{
	text *name = DatumGetTextPP(method);

	return qml_hash_name(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));
}

/* Milliseconds as an interval. */
static Datum
make_timeout(int timeout_ms)
{
	Interval *timeout = palloc0(sizeof(Interval));

	timeout->time = (int64) timeout_ms * 1000;
	return IntervalPGetDatum(timeout);
}

/*
 * The columns of a row as it was when the caller's statement began.  With one column more
 * since then, the executor would refuse rows of the type as it is now.
 */
static TupleDesc
make_expected(TupleDesc expected)
{
	TupleDesc desc = CreateTupleDescCopy(expected);

	desc->tdtypeid = RECORDOID;
	desc->tdtypmod = -1;
	return BlessTupleDesc(desc);
}

#ifdef QML_NEXT
/* The value, of variable length, of a column that came after version 1.0. */
static void
set_later_value(TupleDesc desc, int known, Datum value, Datum *values)
{
	int attnum = qml_columns_number(QML_VIEW_JOB, desc, known + 1);

	if (attnum)
		values[attnum - 1] = value;
}
#endif

/* Sets the columns that are contents of a job, as far as the access shows them. */
static void
set_contents(const QmlJob *job, QmlAccess access, const QmlQueue *queue, TupleDesc desc,
			 Datum *values)
{
	static const struct
	{
		int number;
		const char *name;
	} contents[] = {{JOB_PAYLOAD, "payload"}, {JOB_RESULT, "result"}, {JOB_PROGRESS, "progress"},
					{JOB_ERROR, "error"},	  {JOB_ERRORS, "errors"}, {JOB_METADATA, "metadata"},
					{JOB_REASON, "reason"}};

	if (access < QML_ACCESS_REDACTED)
		return;
	values[JOB_PAYLOAD] = job->payload;
	values[JOB_RESULT] = job->result;
	values[JOB_PROGRESS] = job->progress;
	values[JOB_ERROR] = qml_job_last_error(job);
	values[JOB_ERRORS] = job->errors;
	values[JOB_METADATA] = job->metadata;
	values[JOB_REASON] = job->reason;
	if (access == QML_ACCESS_REDACTED)
	{
		for (int i = 0; i < (int) lengthof(contents); i++)
			values[contents[i].number] = qml_redact_value(queue, job->method, contents[i].name,
														  values[contents[i].number]);
		return;
	}
#ifdef QML_NEXT
	set_later_value(desc, JOB_NOTE, job->note, values);
#endif
}

/* What the current user sees of a job. */
QmlAccess
qml_job_visibility(const QmlJob *job)
{
	return qml_redact_access(job->queue_id, job->method, job->created_by);
}

/*
 * A value of type qml.job that refers to no other memory, with what a user sees who has the access
 * (qml_job_visibility).  Columns that the library does not know are null; those that the type does
 * not have yet are left out.
 */
Datum
qml_job_row(const QmlJob *job, QmlAccess access)
{
	return qml_job_expected_row(job, access, NULL);
}

/* The same for a caller that expects these columns (qml_srf_expected()); NULL: any. */
Datum
qml_job_expected_row(const QmlJob *job, QmlAccess access, TupleDesc expected)
{
	const QmlQueue *queue = qml_queue_require(job->queue_id);
	TupleDesc current = lookup_rowtype_tupdesc(qml_catalog()->job_type, -1);
	bool is_older = expected && expected->natts < current->natts;
	TupleDesc desc = is_older ? make_expected(expected) : current;
	int natts = desc->natts;
	Datum *values = palloc0(sizeof(Datum) * Max(natts, JOB_NUMBERED));
	bool *nulls = palloc0(sizeof(bool) * Max(natts, JOB_NUMBERED));
	HeapTuple tuple;
	Datum row;

	values[JOB_ID] = UUIDPGetDatum(&job->id);
	values[JOB_QUEUE] = CStringGetTextDatum(queue->name);
	values[JOB_METHOD] = job->method;
	values[JOB_STATE] = ObjectIdGetDatum(qml_catalog()->states[job->state]);
	values[JOB_PRIORITY] = Int32GetDatum(job->priority);
	values[JOB_ATTEMPT] = Int32GetDatum(job->attempt);
	values[JOB_TRIES] = Int32GetDatum(job->attempt - job->uncounted);
	values[JOB_MAX_RETRIES] = Int32GetDatum(job->max_retries);
	values[JOB_RETRIES_LEFT] = Int32GetDatum(qml_job_retries_left(job));
	values[JOB_RUN_AT] = TimestampTzGetDatum(job->run_at);
	nulls[JOB_RUN_AT] = job->run_at == QML_NO_TIME;
	values[JOB_CREATED_AT] = TimestampTzGetDatum(job->created_at);
	values[JOB_READY_AT] = TimestampTzGetDatum(ready_at(job));
	values[JOB_STARTED_AT] = TimestampTzGetDatum(job->started_at);
	nulls[JOB_STARTED_AT] = job->started_at == QML_NO_TIME;
	values[JOB_FINISHED_AT] = TimestampTzGetDatum(job->finished_at);
	nulls[JOB_FINISHED_AT] = job->finished_at == QML_NO_TIME;
	values[JOB_EXPIRES_AT] = TimestampTzGetDatum(job->expires_at);
	nulls[JOB_EXPIRES_AT] = job->expires_at == QML_NO_TIME;
	values[JOB_LEASE_EXPIRES_AT] = TimestampTzGetDatum(job->lease_expires_at);
	nulls[JOB_LEASE_EXPIRES_AT] = job->lease_expires_at == QML_NO_TIME;
	values[JOB_WORKER] = job->worker;
	values[JOB_SERVER] = job->server;
	values[JOB_TIMEOUT] = make_timeout(job->timeout_ms);
	values[JOB_JOB_TYPE] = job->job_type;
	values[JOB_CREATED_BY] = DirectFunctionCall1(pg_get_userbyid,
												 ObjectIdGetDatum(job->created_by));
	set_contents(job, access, queue, desc, values);

	/* A column of variable length is null if its datum is 0. */
	for (int i = 0; i < natts; i++)
	{
		if (TupleDescAttr(desc, i)->attlen == -1)
			nulls[i] = values[i] == (Datum) 0;
		else if (i >= JOB_NUMBERED)
			nulls[i] = true;
	}

	tuple = heap_form_tuple(desc, values, nulls);
	row = heap_copy_tuple_as_datum(tuple, desc);
	ReleaseTupleDesc(current);
	return row;
}

/*
 * Appends the current attempt to the job's errors.  The oldest are dropped beyond
 * QML_MAX_ERRORS, so that a job that fails again and again does not grow.
 */
void
qml_job_add_error(QmlJob *job, const QmlJobError *error, TimestampTz at)
{
	JsonbParseState *state = NULL;
	char time[MAXDATELEN + 1];
	int utc = 0;
	Datum entry;

	/* In one zone and format, whatever the session that records the error has. */
	JsonEncodeDateTime(time, TimestampTzGetDatum(at), TIMESTAMPTZOID, &utc);

	(void) pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	qml_json_push_int(&state, "attempt", job->attempt);
	qml_json_push_text(&state, "at", CStringGetTextDatum(time));
	qml_json_push_text(&state, "error", error->error);
	qml_json_push_text(&state, "error_type", error->error_type);
	qml_json_push_text(&state, "stack_trace", error->stack_trace);
	qml_json_push_text(&state, "worker", job->worker);
	(void) pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	entry = JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL)));

	if (job->errors == (Datum) 0)
	{
		job->errors = entry;
		return;
	}
	job->errors = DirectFunctionCall2(jsonb_concat, job->errors, entry);
	while (JB_ROOT_COUNT(DatumGetJsonbP(job->errors)) > QML_MAX_ERRORS)
		job->errors = DirectFunctionCall2(jsonb_delete_idx, job->errors, Int32GetDatum(0));
}

/* Whether an entry is an error of a type that still counts. */
static bool
is_of_type(const JsonbValue *entry, const char *error_type)
{
	JsonbValue value;

	return find_in_entry(entry, "error_type", &value) && value.type == jbvString &&
		   value.val.string.len == (int) strlen(error_type) &&
		   memcmp(value.val.string.val, error_type, strlen(error_type)) == 0 &&
		   !find_in_entry(entry, FORGIVEN, &value);
}

/* The job starts again: marks its errors of a type as no longer counting. */
void
qml_job_forgive(QmlJob *job, const char *error_type)
{
	int count;

	if (qml_job_count_errors(job, error_type) == 0)
		return;
	count = JB_ROOT_COUNT(DatumGetJsonbP(job->errors));
	for (int i = 0; i < count; i++)
	{
		JsonbValue *entry = getIthJsonbValueFromContainer(&DatumGetJsonbP(job->errors)->root, i);
		Datum path[] = {CStringGetTextDatum(psprintf("%d", i)), CStringGetTextDatum(FORGIVEN)};

		if (!is_of_type(entry, error_type))
			continue;
		job->errors = DirectFunctionCall4(jsonb_set, job->errors,
										  PointerGetDatum(construct_array(path, lengthof(path),
																		  TEXTOID, -1, false,
																		  TYPALIGN_INT)),
										  DirectFunctionCall1(jsonb_in, CStringGetDatum("true")),
										  BoolGetDatum(true));
	}
}

/* How many of the job's errors are of a type, and still count. */
int
qml_job_count_errors(const QmlJob *job, const char *error_type)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue entry;
	int count = 0;

	if (job->errors == (Datum) 0)
		return 0;
	it = JsonbIteratorInit(&DatumGetJsonbP(job->errors)->root);
	(void) JsonbIteratorNext(&it, &entry, true);
	while ((token = JsonbIteratorNext(&it, &entry, true)) == WJB_ELEM)
	{
		if (is_of_type(&entry, error_type))
			count++;
	}
	return count;
}

/* The id as text, in the current memory context. */
char *
qml_job_id_string(const pg_uuid_t *id)
{
	return DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(id)));
}

/* Raises QM001. */
void
qml_job_raise_missing(const pg_uuid_t *id)
{
	ereport(ERROR,
			(errcode(ERRCODE_QML_JOB_NOT_FOUND),
			 errmsg("job %s does not exist", qml_job_id_string(id))));
}

static Datum
copy_value(Datum value)
{
	return value == (Datum) 0 ? value : PointerGetDatum(PG_DETOAST_DATUM_COPY(value));
}

/* Copies a job with its values into the current memory context. */
void
qml_job_copy(const QmlJob *job, QmlJob *copy)
{
	*copy = *job;
	copy->source = NULL;
	copy->worker = copy_value(job->worker);
	copy->server = copy_value(job->server);
	copy->method = copy_value(job->method);
	copy->job_type = copy_value(job->job_type);
	copy->metadata = copy_value(job->metadata);
	copy->progress = copy_value(job->progress);
	copy->errors = copy_value(job->errors);
	copy->reason = copy_value(job->reason);
	copy->payload = copy_value(job->payload);
	copy->result = copy_value(job->result);
#ifdef QML_NEXT
	copy->note = copy_value(job->note);
#endif
}

/* The error of an attempt that was stopped by the job's timeout. */
char *
qml_job_timeout_message(const QmlJob *job)
{
	return psprintf("the job took longer than its timeout of %d ms", job->timeout_ms);
}
