/*
 * finding.c
 *		What a check or an explanation says: its parts, and how times, settings and calls are
 *		written in it.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/builtins.h"

#include "diagnosis/finding.h"
#include "model/acl.h"

/* Columns of an explanation. */
#define REASON_COLUMNS 3

/* The text that printf() would make. */
static char *format_text(const char *format, va_list args) QML_PRINTF(1, 0);

static char *
format_text(const char *format, va_list args)
{
	StringInfoData text;

	initStringInfo(&text);
	for (;;)
	{
		va_list copy;
		int needed;

		va_copy(copy, args);
		needed = appendStringInfoVA(&text, format, copy);
		va_end(copy);
		if (needed == 0)
			return text.data;
		enlargeStringInfo(&text, needed);
	}
}

#define FILL(finding, format)                          \
	do                                                 \
	{                                                  \
		va_list args;                                  \
                                                       \
		va_start(args, format);                        \
		(finding)->detail = format_text(format, args); \
		va_end(args);                                  \
	} while (0)

/* All is as it should be. */
void
qml_finding_pass(QmlFinding *finding, const char *format, ...)
{
	finding->is_known = true;
	finding->ok = true;
	FILL(finding, format);
}

/* Something is missing, and the remedy helps. */
void
qml_finding_fail(QmlFinding *finding, char *remedy, const char *format, ...)
{
	finding->is_known = true;
	finding->ok = false;
	finding->remedy = remedy;
	FILL(finding, format);
}

/* Something is missing because another check fails. */
void
qml_finding_follow(QmlFinding *finding, const char *format, ...)
{
	finding->is_known = true;
	finding->ok = false;
	finding->follows = true;
	FILL(finding, format);
}

/* It cannot be told. */
void
qml_finding_leave(QmlFinding *finding, const char *format, ...)
{
	finding->is_known = false;
	FILL(finding, format);
}

/* Adds a row to an explanation; no remedy: NULL. */
void
qml_finding_add_reason(QmlReasons *reasons, const char *reason, const char *detail,
					   const char *remedy)
{
	Datum values[REASON_COLUMNS];
	bool nulls[REASON_COLUMNS] = {false};

	Assert(reasons->desc->natts == REASON_COLUMNS);
	values[0] = CStringGetTextDatum(reason);
	values[1] = CStringGetTextDatum(detail);
	nulls[2] = remedy == NULL;
	values[2] = remedy ? CStringGetTextDatum(remedy) : (Datum) 0;
	tuplestore_putvalues(reasons->store, reasons->desc, values, nulls);
	reasons->count++;
}

/* A time, as the session writes it, without fractions of a second. */
char *
qml_finding_time(TimestampTz time)
{
	if (!TIMESTAMP_NOT_FINITE(time))
		time -= time % USECS_PER_SEC;
	return DatumGetCString(DirectFunctionCall1(timestamptz_out, TimestampTzGetDatum(time)));
}

/* A duration, in the unit that fits; of one that is negative, its length. */
char *
qml_finding_duration(int64 usecs)
{
	int64 seconds = (usecs < 0 ? -usecs : usecs) / USECS_PER_SEC;

	if (seconds < 2 * SECS_PER_MINUTE)
		return qml_finding_count(seconds, "second", "seconds");
	if (seconds < 2 * SECS_PER_HOUR)
		return qml_finding_count(seconds / SECS_PER_MINUTE, "minute", "minutes");
	if (seconds < 2 * SECS_PER_DAY)
		return qml_finding_count(seconds / SECS_PER_HOUR, "hour", "hours");
	return qml_finding_count(seconds / SECS_PER_DAY, "day", "days");
}

/* The same where a setting of the server is to be changed. */
void
qml_finding_fail_setting(QmlFinding *finding, const char *name, const char *value,
						 const char *format, ...)
{
	finding->is_known = true;
	finding->ok = false;
	finding->remedy = qml_finding_setting(name, value);
	finding->reloads = true;
	FILL(finding, format);
}

/* The detail of a finding beside its remedy. */
char *
qml_finding_detail(const QmlFinding *finding)
{
	return finding->reloads ? psprintf("%s; %s", finding->detail, QML_FINDING_RELOAD) :
							  finding->detail;
}

/*
 * The statement that changes a setting of the server.  It cannot be in one string with the one that
 * makes it take effect, because it must not run in a transaction: the detail names that.
 */
char *
qml_finding_setting(const char *name, const char *value)
{
	return psprintf("ALTER SYSTEM SET %s = %s;", name, value);
}

/* The statement that calls a function of qml; arguments: as they are to be written. */
char *
qml_finding_call(const char *function, const char *arguments)
{
	return psprintf("SELECT %s(%s);", qml_acl_qualify(function), arguments);
}

char *
qml_finding_quote(const char *value)
{
	return quote_literal_cstr(value);
}

/* A number of things. */
char *
qml_finding_count(int64 count, const char *one, const char *many)
{
	return psprintf(INT64_FORMAT " %s", count, count == 1 ? one : many);
}
