/*
 * told_job.c
 *		A job as the jsonb object that an after-commit hook is told.
 *
 * The members are the columns of qml.job, by its descriptor: numbers and documents are what
 * they are, times are in UTC, all else is a string.  to_jsonb() would make nearly the same, but
 * by way of a text that is parsed again, which takes several times as long, and in the time
 * zone of the session.  The caller has pinned the settings that remain (userfn/settings.c).
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "common/json.h"
#include "jobs/told_job.h"
#include "model/catalog.h"

/* Looks the columns up; what it allocates is in the current memory context. */
void
qml_told_job_begin(QmlToldJob *told)
{
	told->desc = lookup_rowtype_tupdesc(qml_catalog()->job_type, -1);
	told->output = palloc0(sizeof(FmgrInfo) * told->desc->natts);
	told->values = palloc(sizeof(Datum) * told->desc->natts);
	told->nulls = palloc(sizeof(bool) * told->desc->natts);
	for (int i = 0; i < told->desc->natts; i++)
	{
		Oid output;
		bool is_varlena;

		getTypeOutputInfo(TupleDescAttr(told->desc, i)->atttypid, &output, &is_varlena);
		fmgr_info(output, &told->output[i]);
	}
}

void
qml_told_job_end(QmlToldJob *told)
{
	ReleaseTupleDesc(told->desc);
}

static void
push_string(JsonbParseState **state, const char *string)
{
	JsonbValue value = {.type = jbvString};

	value.val.string.val = unconstify(char *, string);
	value.val.string.len = strlen(string);
	(void) pushJsonbValue(state, WJB_VALUE, &value);
}

static void
push_time(JsonbParseState **state, Datum time)
{
	char *string = palloc(MAXDATELEN + 1);
	int utc = 0;

	push_string(state, JsonEncodeDateTime(string, time, TIMESTAMPTZOID, &utc));
}

static void
push_value(QmlToldJob *told, JsonbParseState **state, int column)
{
	JsonbValue value = {.type = jbvNull};
	Datum datum = told->values[column];

	if (told->nulls[column])
	{
		(void) pushJsonbValue(state, WJB_VALUE, &value);
		return;
	}
	switch (TupleDescAttr(told->desc, column)->atttypid)
	{
		case INT4OID:
			value.type = jbvNumeric;
			value.val.numeric = int64_to_numeric(DatumGetInt32(datum));
			(void) pushJsonbValue(state, WJB_VALUE, &value);
			break;
		case JSONBOID:
			JsonbToJsonbValue(DatumGetJsonbP(datum), &value);
			(void) pushJsonbValue(state, WJB_VALUE, &value);
			break;
		case TIMESTAMPTZOID:
			push_time(state, datum);
			break;
		default:
			push_string(state, OutputFunctionCall(&told->output[column], datum));
			break;
	}
}

static bool
is_payload(const char *name)
{
	return strcmp(name, "payload") == 0 || strcmp(name, "result") == 0;
}

/* Pushes the object of a job, a qml.job; what it allocates must last until it is used. */
void
qml_told_job_push(QmlToldJob *told, JsonbParseState **state, Datum row, bool with_payload)
{
	HeapTupleHeader header = DatumGetHeapTupleHeader(row);
	HeapTupleData tuple = {.t_len = HeapTupleHeaderGetDatumLength(header), .t_data = header};

	heap_deform_tuple(&tuple, told->desc, told->values, told->nulls);
	(void) pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < told->desc->natts; i++)
	{
		const char *name = NameStr(TupleDescAttr(told->desc, i)->attname);

		if (is_payload(name) && !with_payload)
			continue;
		qml_json_push_key(state, name);
		push_value(told, state, i);
	}
	(void) pushJsonbValue(state, WJB_END_OBJECT, NULL);
}
