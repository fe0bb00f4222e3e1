/*
 * json.c
 *		Builds jsonb objects, member by member.
 */
#include "postgres.h"

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
