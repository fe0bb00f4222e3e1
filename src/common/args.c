/*
 * args.c
 *		Arguments of SQL functions, checked before anything is changed.
 */
#include "postgres.h"

#include <limits.h>
#include <math.h>

#include "access/detoast.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "common/args.h"
#include "common/guc.h"
#include "qml.h"

/* Longest name of a function with its argument types, in bytes. */
#define MAX_FUNCTION_NAME 4096

/* Raises an error if the argument is null. */
void
qml_args_require(FunctionCallInfo fcinfo, int arg, const char *name)
{
	if (PG_ARGISNULL(arg))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", name)));
}

/* Control characters: C0, DEL and, in UTF-8, C1. */
static bool
has_control_character(const char *value)
{
	bool utf8 = GetDatabaseEncoding() == PG_UTF8;

	for (const unsigned char *c = (const unsigned char *) value; *c; c++)
	{
		if (*c < 0x20 || *c == 0x7f || (utf8 && *c == 0xc2 && c[1] < 0xa0))
			return true;
	}
	return false;
}

/* Whether a string can be a name: not empty, not too long, fit for a terminal. */
bool
qml_args_is_name(const char *value, int maxlen)
{
	int length = pg_mbstrlen(value);

	return length > 0 && length <= maxlen && !has_control_character(value);
}

/* Raises an error that says why a string cannot be a name. */
static void
check_name(const char *value, const char *name, int maxlen)
{
	if (qml_args_is_name(value, maxlen))
		return;
	if (*value == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must not be empty", name)));
	if (pg_mbstrlen(value) > maxlen)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" is too long", name),
				 errdetail("It has %d characters; at most %d are allowed.", pg_mbstrlen(value),
						   maxlen)));
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("argument \"%s\" must not contain control characters", name)));
}

/* A name; NULL when null. */
char *
qml_args_name_or_null(FunctionCallInfo fcinfo, int arg, const char *name, int maxlen)
{
	char *value;

	if (PG_ARGISNULL(arg))
		return NULL;
	value = text_to_cstring(PG_GETARG_TEXT_PP(arg));
	check_name(value, name, maxlen);
	return value;
}

/* A name. */
char *
qml_args_name(FunctionCallInfo fcinfo, int arg, const char *name, int maxlen)
{
	qml_args_require(fcinfo, arg, name);
	return qml_args_name_or_null(fcinfo, arg, name, maxlen);
}

/* A number between min and max. */
int
qml_args_int(FunctionCallInfo fcinfo, int arg, const char *name, int min, int max)
{
	int value;

	qml_args_require(fcinfo, arg, name);
	value = PG_GETARG_INT32(arg);
	if (value < min || value > max)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" is out of range", name),
				 errdetail("It is %d; it must be between %d and %d.", value, min, max)));
	return value;
}

bool
qml_args_flag(FunctionCallInfo fcinfo, int arg, const char *name)
{
	qml_args_require(fcinfo, arg, name);
	return PG_GETARG_BOOL(arg);
}

pg_uuid_t *
qml_args_uuid(FunctionCallInfo fcinfo, int arg, const char *name)
{
	qml_args_require(fcinfo, arg, name);
	return PG_GETARG_UUID_P(arg);
}

/* A finite time; QML_NO_TIME when null. */
TimestampTz
qml_args_time_or_null(FunctionCallInfo fcinfo, int arg, const char *name)
{
	TimestampTz value;

	if (PG_ARGISNULL(arg))
		return QML_NO_TIME;
	value = PG_GETARG_TIMESTAMPTZ(arg);
	if (TIMESTAMP_NOT_FINITE(value))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be a finite time", name)));
	return value;
}

/*
 * Microseconds of an interval, with months of 30 days.  Far beyond every limit if they
 * do not fit.
 */
int64
qml_args_interval_usecs(const Interval *interval)
{
	double days = interval->month * (double) DAYS_PER_MONTH + interval->day;
	double usecs = days * (double) USECS_PER_DAY + (double) interval->time;

	if (fabs(usecs) > 1e18)
		return usecs > 0 ? PG_INT64_MAX : PG_INT64_MIN;
	return (int64) days * USECS_PER_DAY + interval->time;
}

/* A positive interval in microseconds; -1 when null. */
int64
qml_args_duration(FunctionCallInfo fcinfo, int arg, const char *name)
{
	int64 usecs;

	if (PG_ARGISNULL(arg))
		return -1;
	usecs = qml_args_interval_usecs(PG_GETARG_INTERVAL_P(arg));
	if (usecs <= 0 || usecs > (int64) (QML_MAX_SECONDS * USECS_PER_SEC))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" is out of range", name),
				 errdetail("It must be longer than 0 and at most 3660 days.")));
	return usecs;
}

/* A timeout in milliseconds; -1 when null. */
int
qml_args_timeout_ms(FunctionCallInfo fcinfo, int arg, const char *name)
{
	int64 usecs;

	if (PG_ARGISNULL(arg))
		return -1;
	usecs = qml_args_interval_usecs(PG_GETARG_INTERVAL_P(arg));
	if (usecs < 1000 || usecs / 1000 > INT_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" is out of range", name),
				 errdetail("It must be at least 1 ms and at most 24 days.")));
	return (int) (usecs / 1000);
}

/* Raises an error if a document, an argument of that name, is too large. */
void
qml_args_check_document(Datum document, const char *name)
{
	Size size = toast_raw_datum_size(document) - VARHDRSZ;

	if (size > (Size) qml_max_payload_size * 1024)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("argument \"%s\" is too large", name),
				 errdetail("It has %zu bytes; qml.max_payload_size allows %zu.", size,
						   (Size) qml_max_payload_size * 1024),
				 errhint("Store large data in a table and pass a reference to it.")));
}

/* A jsonb of bounded size, as it is; 0 when null. */
Datum
qml_args_document(FunctionCallInfo fcinfo, int arg, const char *name)
{
	if (PG_ARGISNULL(arg))
		return (Datum) 0;
	qml_args_check_document(PG_GETARG_DATUM(arg), name);
	return PG_GETARG_DATUM(arg);
}

/* The same; must be an object. */
Datum
qml_args_object(FunctionCallInfo fcinfo, int arg, const char *name)
{
	Datum document = qml_args_document(fcinfo, arg, name);

	if (document != (Datum) 0 && !JB_ROOT_IS_OBJECT(DatumGetJsonbP(document)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be a JSON object", name)));
	return document;
}

/* A document that is not null, to be parsed by model/options.c. */
Jsonb *
qml_args_options(FunctionCallInfo fcinfo, int arg, const char *name)
{
	qml_args_require(fcinfo, arg, name);
	return DatumGetJsonbP(qml_args_document(fcinfo, arg, name));
}

/* A text, cut at maxbytes on a character's end; 0 when null. */
Datum
qml_args_text(FunctionCallInfo fcinfo, int arg, int maxbytes)
{
	text *value;
	int length;

	if (PG_ARGISNULL(arg))
		return (Datum) 0;
	value = PG_GETARG_TEXT_PP(arg);
	length = VARSIZE_ANY_EXHDR(value);
	if (length <= maxbytes)
		return PointerGetDatum(value);
	length = pg_mbcliplen(VARDATA_ANY(value), length, maxbytes);
	return PointerGetDatum(cstring_to_text_with_len(VARDATA_ANY(value), length));
}

/* The elements of an array that is not null and has at most one dimension. */
void
qml_args_array(FunctionCallInfo fcinfo, int arg, const char *name, Oid type, Datum **elements,
			   bool **nulls, int *count)
{
	ArrayType *array;
	int16 typlen;
	bool typbyval;
	char typalign;

	qml_args_require(fcinfo, arg, name);
	array = PG_GETARG_ARRAYTYPE_P(arg);
	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("argument \"%s\" must have one dimension", name)));
	get_typlenbyvalalign(type, &typlen, &typbyval, &typalign);
	deconstruct_array(array, type, typlen, typbyval, typalign, elements, nulls, count);
}

/* Names of queues, at least one; NULL, which stands for all queues, when null. */
char **
qml_args_queues(FunctionCallInfo fcinfo, int arg, const char *name, int *count)
{
	Datum *elements;
	bool *nulls;
	char **queues;

	if (PG_ARGISNULL(arg))
		return NULL;
	qml_args_array(fcinfo, arg, name, TEXTOID, &elements, &nulls, count);
	if (*count == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must not be empty", name),
				 errhint("NULL stands for all queues.")));
	queues = palloc(sizeof(char *) * *count);
	for (int i = 0; i < *count; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("element %d of argument \"%s\" must not be null", i + 1, name)));
		queues[i] = TextDatumGetCString(elements[i]);
		check_name(queues[i], name, QML_MAX_QUEUE_NAME);
	}
	return queues;
}

/* A function by its name, with or without its argument types; by search_path. */
Oid
qml_args_function(FunctionCallInfo fcinfo, int arg)
{
	char *name = text_to_cstring(PG_GETARG_TEXT_PP(arg));

	/* The error about a function that does not exist repeats the name. */
	if (strlen(name) > MAX_FUNCTION_NAME)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("name of a function is too long"),
				 errdetail("It has %zu bytes; at most %d are allowed.", strlen(name),
						   MAX_FUNCTION_NAME)));
	return DatumGetObjectId(
		DirectFunctionCall1(strchr(name, '(') ? regprocedurein : regprocin, CStringGetDatum(name)));
}
