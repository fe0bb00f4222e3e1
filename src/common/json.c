/*
 * json.c
 *		Builds jsonb objects, member by member.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/numeric.h"

#include "common/json.h"

/* The key of a member; the caller pushes its value. */
void
qml_json_push_key(JsonbParseState **state, const char *key)
{
	JsonbValue value;

	value.type = jbvString;
	value.val.string.val = unconstify(char *, key);
	value.val.string.len = strlen(key);
	(void) pushJsonbValue(state, WJB_KEY, &value);
}

/* A member that is a number. */
void
qml_json_push_int(JsonbParseState **state, const char *key, int64 number)
{
	JsonbValue value;

	qml_json_push_key(state, key);
	value.type = jbvNumeric;
	value.val.numeric = int64_to_numeric(number);
	(void) pushJsonbValue(state, WJB_VALUE, &value);
}

/*
 * A member that is a text, or null if the datum is 0.  The text must last until the object
 * is made.
 */
void
qml_json_push_text(JsonbParseState **state, const char *key, Datum text)
{
	JsonbValue value;

	qml_json_push_key(state, key);
	if (text == (Datum) 0)
		value.type = jbvNull;
	else
	{
		text = PointerGetDatum(PG_DETOAST_DATUM_PACKED(text));
		value.type = jbvString;
		value.val.string.val = VARDATA_ANY(DatumGetPointer(text));
		value.val.string.len = VARSIZE_ANY_EXHDR(DatumGetPointer(text));
	}
	(void) pushJsonbValue(state, WJB_VALUE, &value);
}

/* A member that is true or false. */
void
qml_json_push_bool(JsonbParseState **state, const char *key, bool flag)
{
	JsonbValue value = {.type = jbvBool, .val.boolean = flag};

	qml_json_push_key(state, key);
	(void) pushJsonbValue(state, WJB_VALUE, &value);
}

/* A member that is a time, in UTC whatever zone the session has; null if it is not finite. */
void
qml_json_push_time(JsonbParseState **state, const char *key, TimestampTz time)
{
	char text[MAXDATELEN + 1];
	int utc = 0;

	if (TIMESTAMP_NOT_FINITE(time))
	{
		qml_json_push_text(state, key, (Datum) 0);
		return;
	}
	JsonEncodeDateTime(text, TimestampTzGetDatum(time), TIMESTAMPTZOID, &utc);
	qml_json_push_text(state, key, CStringGetTextDatum(text));
}

/* A member that is a document, or null if the datum is 0. */
void
qml_json_push_document(JsonbParseState **state, const char *key, Datum document)
{
	Jsonb *json;
	JsonbValue value;

	if (document == (Datum) 0)
	{
		qml_json_push_text(state, key, (Datum) 0);
		return;
	}
	json = DatumGetJsonbP(document);
	qml_json_push_key(state, key);
	if (!JsonbExtractScalar(&json->root, &value))
	{
		value.type = jbvBinary;
		value.val.binary.data = &json->root;
		value.val.binary.len = VARSIZE_ANY_EXHDR(json);
	}
	(void) pushJsonbValue(state, WJB_VALUE, &value);
}
