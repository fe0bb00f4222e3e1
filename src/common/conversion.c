/*
 * conversion.c
 *		Fixed settings for converting values of users between text and their types.
 *
 * What a text means as a date, an amount of money or the name of a table depends on
 * settings of the session, and so does how a value is written.  A payload is checked in
 * the session of the producer and converted in that of a worker: under the settings of
 * the sessions, one would refuse what the other accepts, or take it for something else.
 * So both convert under the settings here, and results are written under them.
 *
 * Settings that have the right value are left alone, and a type that depends on none costs
 * nothing.  After an error the abort of the (sub)transaction restores the settings.
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/pg_type.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

#include "common/conversion.h"
#include "common/guc.h"

/* ISO dates are read in any order of the fields; MDY is the default of servers. */
static const struct
{
	int needs;
	const char *name;
	const char *value;
} settings[] = {
	{QML_NEEDS_TIMES, "DateStyle", "ISO, MDY"},
	{QML_NEEDS_TIMES, "TimeZone", "UTC"},
	{QML_NEEDS_TIMES, "timezone_abbreviations", "Default"},
	{QML_NEEDS_INTERVALS, "IntervalStyle", "postgres"},
	{QML_NEEDS_MONEY, "lc_monetary", "C"},
	{QML_NEEDS_XML, "xmloption", "content"},
	{QML_NEEDS_BYTES, "bytea_output", "hex"},
	{QML_NEEDS_FLOATS, "extra_float_digits", "1"},
	{QML_NEEDS_ARRAYS, "array_nulls", "on"},
	{QML_NEEDS_NAMES, "search_path", "pg_catalog, pg_temp"},
	{QML_NEEDS_NAMES, "quote_all_identifiers", "off"},
};

/* A type of the server that is no array, range, domain or row. */
static int
base_needs(Oid type)
{
	switch (type)
	{
		case DATEOID:
		case TIMEOID:
		case TIMETZOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			return QML_NEEDS_TIMES;
		case INTERVALOID:
			return QML_NEEDS_INTERVALS;
		case CASHOID:
			return QML_NEEDS_MONEY;
		case XMLOID:
			return QML_NEEDS_XML;
		case BYTEAOID:
			return QML_NEEDS_BYTES;
		case FLOAT4OID:
		case FLOAT8OID:
		case POINTOID:
		case LSEGOID:
		case PATHOID:
		case BOXOID:
		case POLYGONOID:
		case LINEOID:
		case CIRCLEOID:
			return QML_NEEDS_FLOATS;
		case REGPROCOID:
		case REGPROCEDUREOID:
		case REGOPEROID:
		case REGOPERATOROID:
		case REGCLASSOID:
		case REGTYPEOID:
		case REGCOLLATIONOID:
		case REGCONFIGOID:
		case REGDICTIONARYOID:
		case REGROLEOID:
		case REGNAMESPACEOID:
			return QML_NEEDS_NAMES;
		default:
			return QML_NEEDS_NOTHING;
	}
}

/* What the text of values of the type can depend on. */
int
qml_conversion_needs(Oid type)
{
	Oid element = get_element_type(type);

	if (OidIsValid(element))
		return QML_NEEDS_ARRAYS | qml_conversion_needs(element);
	switch (get_typtype(type))
	{
		case TYPTYPE_ENUM:
			return QML_NEEDS_NOTHING;
		case TYPTYPE_BASE:
			return type < FirstNormalObjectId ? base_needs(type) : QML_NEEDS_ANYTHING;
		case TYPTYPE_PSEUDO:
			return type == VOIDOID ? QML_NEEDS_NOTHING : QML_NEEDS_ANYTHING;
		default:
			/* Ranges, domains and rows, with parts of other types. */
			return QML_NEEDS_ANYTHING;
	}
}

/*
 * Until qml_conversion_end(): the settings have the fixed values.  Returns what to pass to
 * that.
 */
int
qml_conversion_begin(int needs)
{
	int level = 0;

	if (needs == QML_NEEDS_NOTHING)
		return level;
	for (int i = 0; i < (int) lengthof(settings); i++)
	{
		if ((settings[i].needs & needs) == 0 || qml_guc_has(settings[i].name, settings[i].value))
			continue;
		if (level == 0)
			level = NewGUCNestLevel();
		qml_guc_set(settings[i].name, settings[i].value);
	}
	return level;
}

/* Restores the settings. */
void
qml_conversion_end(int level)
{
	if (level > 0)
		AtEOXact_GUC(true, level);
}
