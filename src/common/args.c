/*
 * args.c
 *		Arguments of SQL functions, checked before anything is changed.
 */
#include "postgres.h"

#include <limits.h>
#include <math.h>

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "parser/scansup.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"

#include "common/args.h"
#include "common/guc.h"
#include "common/report.h"
#include "qml.h"

/* Raises an error if the argument is null. */
void
qml_args_require(FunctionCallInfo fcinfo, int arg, const char *name)
{
	if (PG_ARGISNULL(arg))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", name)));
}

static bool
has_control_character(const char *value)
{
	for (; *value; value++)
	{
		if (qml_report_control_length(value) > 0)
			return true;
	}
	return false;
}

/*
 * Whether a character is a blank: a space, or in UTF-8 one of the others that Unicode calls
 * white space.  Tabs and line ends are control characters.
 */
static bool
is_blank(const char *value)
{
	const unsigned char *c = (const unsigned char *) value;

	if (*c == ' ')
		return true;
	if (*c < 0x80 || GetDatabaseEncoding() != PG_UTF8)
		return false;
	switch (utf8_to_unicode(c))
	{
		case 0x00a0:
		case 0x1680:
		case 0x2028:
		case 0x2029:
		case 0x202f:
		case 0x205f:
		case 0x3000:
			return true;
		default:
			return utf8_to_unicode(c) >= 0x2000 && utf8_to_unicode(c) <= 0x200a;
	}
}

/* Whether a string that is not empty begins or ends with a blank, which nobody would see. */
static bool
has_outer_blank(const char *value)
{
	const char *last = value;

	if (is_blank(value))
		return true;
	for (const char *c = value; *c; c += pg_mblen(c))
		last = c;
	return is_blank(last);
}

/*
 * Whether a string can be a name: not empty, not too long, fit for a terminal, and the same as
 * it looks.
 */
bool
qml_args_is_name(const char *value, int maxlen)
{
	size_t bytes = strlen(value);

	/* Characters are counted only if there may be too many. */
	return bytes > 0 && (bytes <= (size_t) maxlen || pg_mbstrlen(value) <= maxlen) &&
		   !has_control_character(value) && !has_outer_blank(value);
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
	if (has_control_character(value))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must not contain control characters", name)));
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("argument \"%s\" must not begin or end with a blank", name),
			 errdetail("It is \"%s\".", value)));
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

/* Whether a queue of this name is one of qml's own. */
bool
qml_args_is_reserved_queue(const char *name)
{
	return strncmp(name, QML_RESERVED_QUEUES, strlen(QML_RESERVED_QUEUES)) == 0;
}

/* Raises 42939 if a queue of this name is one of qml's own. */
void
qml_args_check_queue(const char *name)
{
	if (qml_args_is_reserved_queue(name))
		ereport(ERROR,
				(errcode(ERRCODE_RESERVED_NAME),
				 errmsg("queue name \"%s\" is reserved", name),
				 errdetail("The prefix \"%s\" is reserved for queues of qml itself.",
						   QML_RESERVED_QUEUES)));
}

/* The name of a queue that is not one of qml's own. */
char *
qml_args_queue(FunctionCallInfo fcinfo, int arg, const char *name)
{
	char *queue = qml_args_name(fcinfo, arg, name, QML_MAX_QUEUE_NAME);

	qml_args_check_queue(queue);
	return queue;
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
 * The time at which an interval after now() is over, as now() + interval says: a day is one of
 * the calendar in the session's time zone.  A negative one leads into the past.
 */
TimestampTz
qml_args_time_after(FunctionCallInfo fcinfo, int arg, const char *name)
{
	TimestampTz now = GetCurrentTransactionStartTimestamp();
	TimestampTz time;

	qml_args_require(fcinfo, arg, name);
	time = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
												   TimestampTzGetDatum(now), PG_GETARG_DATUM(arg)));
	if (TIMESTAMP_NOT_FINITE(time))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be a finite interval", name)));
	return time;
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

/* An interval in microseconds, not below the least; -1 when null. */
static int64
read_interval(FunctionCallInfo fcinfo, int arg, const char *name, int64 least, const char *range)
{
	int64 usecs;

	if (PG_ARGISNULL(arg))
		return -1;
	usecs = qml_args_interval_usecs(PG_GETARG_INTERVAL_P(arg));
	if (usecs < least || usecs > (int64) (QML_MAX_SECONDS * USECS_PER_SEC))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" is out of range", name), errdetail("%s", range)));
	return usecs;
}

/* A positive interval in microseconds; -1 when null. */
int64
qml_args_duration(FunctionCallInfo fcinfo, int arg, const char *name)
{
	return read_interval(fcinfo, arg, name, 1, "It must be longer than 0 and at most 3660 days.");
}

/* How long to wait, in microseconds: an interval that may be 0; -1 when null. */
int64
qml_args_wait_time(FunctionCallInfo fcinfo, int arg, const char *name)
{
	return read_interval(fcinfo, arg, name, 0,
						 "It must be from 0 to 3660 days; 0 looks and does not wait.");
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

/* A text, cut if it is longer than maxbytes; 0 when null. */
Datum
qml_args_text(FunctionCallInfo fcinfo, int arg, int maxbytes)
{
	return PG_ARGISNULL(arg) ? (Datum) 0 : qml_report_text(PG_GETARG_DATUM(arg), maxbytes);
}

/* The elements of an array that has at most one dimension. */
static void
deconstruct(Datum value, const char *name, Oid type, Datum **elements, bool **nulls, int *count)
{
	ArrayType *array = DatumGetArrayTypeP(value);
	int16 typlen;
	bool typbyval;
	char typalign;

	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("argument \"%s\" must have one dimension", name)));
	get_typlenbyvalalign(type, &typlen, &typbyval, &typalign);
	deconstruct_array(array, type, typlen, typbyval, typalign, elements, nulls, count);
}

/* The same of an argument, which must not be null. */
void
qml_args_array(FunctionCallInfo fcinfo, int arg, const char *name, Oid type, Datum **elements,
			   bool **nulls, int *count)
{
	qml_args_require(fcinfo, arg, name);
	deconstruct(PG_GETARG_DATUM(arg), name, type, elements, nulls, count);
}

/* A value of one of the types of text, without the blanks that char(n) adds. */
static char *
text_of(Datum value, Oid type)
{
	char *string = type == NAMEOID ? pstrdup(NameStr(*DatumGetName(value))) :
									 TextDatumGetCString(value);

	if (type == BPCHAROID)
		string[bpchartruelen(string, strlen(string))] = '\0';
	return string;
}

/* The same for the elements of an array; those that are null are NULL. */
static char **
strings_of(const Datum *elements, const bool *nulls, int count, Oid type)
{
	char **strings = palloc(sizeof(char *) * Max(count, 1));

	for (int i = 0; i < count; i++)
		strings[i] = nulls[i] ? NULL : text_of(elements[i], type);
	return strings;
}

/* Whether a text is an array literal: it begins with a brace, but for blanks before it. */
static bool
is_array_literal(const char *string)
{
	while (scanner_isspace(*string))
		string++;
	return *string == '{';
}

/* The types of text, and of their arrays. */
static const struct
{
	Oid type;
	Oid array;
} text_types[] = {
	{TEXTOID, TEXTARRAYOID},
	{VARCHAROID, VARCHARARRAYOID},
	{NAMEOID, NAMEARRAYOID},
	{BPCHAROID, BPCHARARRAYOID},
};

/* Whether a type is one of them, *text, or its array. */
static bool
is_text_type(Oid type, Oid *text, bool *is_array)
{
	for (int i = 0; i < (int) lengthof(text_types); i++)
	{
		*text = text_types[i].type;
		*is_array = type == text_types[i].array;
		if (*is_array || type == *text)
			return true;
	}
	return false;
}

/*
 * The name in an array literal of one that is nothing but letters, digits and underscores; NULL:
 * it is another one.  Most clients name one queue, and parsing an array is a twelfth of a fetch
 * that finds nothing.
 */
static char *
only_name(const char *literal)
{
	size_t length;

	if (*literal++ != '{')
		return NULL;
	length = strspn(literal, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");
	if (length == 0 || strcmp(literal + length, "}") != 0 || pg_strcasecmp(literal, "null}") == 0)
		return NULL;
	return pnstrdup(literal, length);
}

/*
 * The names in an argument that is declared anycompatible: it is given as an array or as a
 * text, which is an array literal if it begins with a brace, and one name otherwise.  NULL if
 * it is null; names that are null are NULL.
 */
static char **
read_names(FunctionCallInfo fcinfo, int arg, const char *name, int *count)
{
	Oid type = get_fn_expr_argtype(fcinfo->flinfo, arg);
	Datum value = PG_GETARG_DATUM(arg);
	Oid text;
	bool is_array;
	Datum *elements;
	bool *nulls;

	if (!is_text_type(type, &text, &is_array) && !is_text_type(getBaseType(type), &text, &is_array))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("argument \"%s\" must be an array of text or a text, not of type %s", name,
						format_type_be(type))));
	if (PG_ARGISNULL(arg))
		return NULL;
	if (!is_array)
	{
		char *string = text_of(value, text);
		char *single = is_array_literal(string) ? only_name(string) : string;

		if (single)
		{
			char **names = palloc(sizeof(char *));

			names[0] = single;
			*count = 1;
			return names;
		}
		value = OidInputFunctionCall(F_ARRAY_IN, string, TEXTOID, -1);
		text = TEXTOID;
	}
	deconstruct(value, name, text, &elements, &nulls, count);
	return strings_of(elements, nulls, *count, text);
}

/* Raises an error unless there is a name, and all are; all: what NULL in their place means. */
static void
check_names(char **names, int count, const char *name, int maxlen, const char *all)
{
	if (count == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must not be empty", name),
				 errhint("NULL stands for %s.", all)));
	for (int i = 0; i < count; i++)
	{
		if (names[i] == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("element %d of argument \"%s\" must not be null", i + 1, name)));
		check_name(names[i], name, maxlen);
	}
}

/*
 * Names of queues, at least one; NULL, which stands for all queues, when null.  They are given
 * as an array or as a text.
 */
char **
qml_args_queues(FunctionCallInfo fcinfo, int arg, const char *name, int *count)
{
	char **queues;

	queues = read_names(fcinfo, arg, name, count);
	if (queues == NULL)
		return NULL;
	check_names(queues, *count, name, QML_MAX_QUEUE_NAME, "all queues");
	for (int i = 0; i < *count; i++)
		qml_args_check_queue(queues[i]);
	return queues;
}

/* Names of methods, at least one, as an array; NULL, for all without a handler, when null. */
char **
qml_args_methods(FunctionCallInfo fcinfo, int arg, const char *name, int *count)
{
	Datum *elements;
	bool *nulls;
	char **methods;

	if (PG_ARGISNULL(arg))
		return NULL;
	qml_args_array(fcinfo, arg, name, TEXTOID, &elements, &nulls, count);
	methods = strings_of(elements, nulls, *count, TEXTOID);
	check_names(methods, *count, name, QML_MAX_NAME, "all methods without a handler");
	return methods;
}

/* Strings as a value of type text[]. */
Datum
qml_args_text_array(char **strings, int count)
{
	Datum *elements = palloc(sizeof(Datum) * Max(count, 1));

	for (int i = 0; i < count; i++)
		elements[i] = CStringGetTextDatum(strings[i]);
	return PointerGetDatum(construct_array(elements, count, TEXTOID, -1, false, TYPALIGN_INT));
}

/* What a procedure returns that has one output argument: a row of its value. */
Datum
qml_args_output(FunctionCallInfo fcinfo, Datum value, bool isnull)
{
	TupleDesc desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), &value, &isnull));
}
