/*
 * settings.c
 *		Settings that decide what the text of a function means.
 *
 * The same text is another program under another search_path, where a backslash in a
 * string is an escape, or where "x = NULL" is "x IS NULL".  The user of a session chooses
 * these settings, and must not choose in this way what a hook or middleware of another role
 * does.  So they are pinned while one is called.  A handler within middleware gets back the
 * values that hold in its session: what the middleware made of them would be a weapon
 * against the handler.  All other settings are the session's, and a middleware hands them on.
 *
 * Everything happens in the current nest level of settings, which the caller has begun and
 * ends.
 */
#include "postgres.h"

#include "utils/guc.h"

#include "common/guc.h"
#include "userfn/settings.h"

static const struct
{
	const char *name;
	const char *value;
} pinned[] = {
	/* Which objects names stand for, and where new ones are made. */
	{"search_path", "pg_catalog, pg_temp"},
	{"default_tablespace", ""},
	{"default_table_access_method", "heap"},
	/* What literals, operators and conversions mean. */
	{"standard_conforming_strings", "on"},
	{"backslash_quote", "safe_encoding"},
	{"transform_null_equals", "off"},
	{"array_nulls", "on"},
	{"DateStyle", "ISO, MDY"},
	{"IntervalStyle", "postgres"},
	{"bytea_output", "hex"},
	{"extra_float_digits", "1"},
	{"xmloption", "content"},
	{"quote_all_identifiers", "off"},
	{"TimeZone", "UTC"},
	{"timezone_abbreviations", "Default"},
	{"lc_time", "C"},
	{"lc_numeric", "C"},
	{"lc_monetary", "C"},
	{"default_text_search_config", "pg_catalog.simple"},
	{"xmlbinary", "base64"},
	/* Which rows there are. */
	{"row_security", "on"},
	{"gin_fuzzy_search_limit", "0"},
	/* Which rights a role has on one that it creates. */
	{"createrole_self_grant", ""},
	/* Which errors there are. */
	{"lock_timeout", "0"},
	{"restrict_nonsystem_relation_kind", ""},
	{"plpgsql.check_asserts", "on"},
	{"plpgsql.extra_errors", "none"},
	{"plpgsql.extra_warnings", "none"},
};

StaticAssertDecl(lengthof(pinned) == QML_PINNED_SETTINGS,
				 "QML_PINNED_SETTINGS must be the number of pinned settings");

/*
 * Those that this server, or a library that is not loaded, does not know are left out: value
 * is NULL, or the setting is.
 */
static void
set_value(const char *name, const char *value)
{
	if (value && GetConfigOption(name, true, false))
		qml_guc_set(name, value);
}

void
qml_settings_pin(void)
{
	for (int i = 0; i < QML_PINNED_SETTINGS; i++)
		set_value(pinned[i].name, pinned[i].value);
}

/* Copies the values as they are now into the current memory context. */
void
qml_settings_save(QmlSettings *settings)
{
	for (int i = 0; i < QML_PINNED_SETTINGS; i++)
	{
		const char *value = GetConfigOption(pinned[i].name, true, false);

		settings->values[i] = value ? pstrdup(value) : NULL;
	}
}

void
qml_settings_restore(const QmlSettings *settings)
{
	for (int i = 0; i < QML_PINNED_SETTINGS; i++)
		set_value(pinned[i].name, settings->values[i]);
}
