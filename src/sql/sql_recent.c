/*
 * sql_recent.c
 *		For the view of recent jobs, which shows each of them in one line: qml.one_line, qml.brief.
 */
#include "postgres.h"

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "common/args.h"
#include "compat.h"
#include "model/acl.h"

QML_FUNCTION(qml_one_line);
QML_FUNCTION(qml_brief);

/* What stands for the rest of a text. */
#define REST "..."

/*
 * The text in one line of at most so many columns of a terminal, which takes two of them for some
 * characters; what is cut off is shown by three dots.
 */
Datum
qml_one_line(PG_FUNCTION_ARGS)
{
	StringInfoData line;
	char *value;
	int width;
	int used = 0;
	int cut = 0; /* where the text ends that leaves room for the dots */

	qml_acl_require_one(QML_MAY_ANY, NULL);
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	qml_args_require(fcinfo, 1, "width");
	width = qml_args_int(fcinfo, 1, "width", 1, 1000);
	value = text_to_cstring(PG_GETARG_TEXT_PP(0));
	initStringInfo(&line);
	for (const char *at = value; *at != '\0'; at += pg_mblen(at))
	{
		bool is_control = pg_dsplen(at) < 0;
		int columns = is_control ? 1 : pg_dsplen(at);

		if (used + columns > width)
		{
			line.len = cut;
			line.data[cut] = '\0';
			appendBinaryStringInfo(&line, REST, Min(width, (int) strlen(REST)));
			break;
		}
		/* Line ends and their like would break the line. */
		appendBinaryStringInfo(&line, is_control ? " " : at, is_control ? 1 : pg_mblen(at));
		used += columns;
		if (used <= width - (int) strlen(REST))
			cut = line.len;
	}
	PG_RETURN_TEXT_P(cstring_to_text_with_len(line.data, line.len));
}

/* A duration in at most five characters, in the largest unit of which it has one. */
Datum
qml_brief(PG_FUNCTION_ARGS)
{
	double seconds;
	char *brief;

	qml_acl_require_one(QML_MAY_ANY, NULL);
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	seconds = (double) Max(qml_args_interval_usecs(PG_GETARG_INTERVAL_P(0)), 0) / USECS_PER_SEC;
	if (seconds < 1)
		brief = psprintf("%dms", (int) (seconds * 1000));
	else if (seconds < SECS_PER_MINUTE)
		brief = psprintf("%d.%ds", (int) seconds, (int) (seconds * 10) % 10);
	else if (seconds < SECS_PER_HOUR)
		brief = psprintf("%dmin", (int) (seconds / SECS_PER_MINUTE));
	else if (seconds < 2 * SECS_PER_DAY)
		brief = psprintf("%dh", (int) (seconds / SECS_PER_HOUR));
	else
		brief = psprintf("%dd", (int) Min(seconds / SECS_PER_DAY, 9999));
	PG_RETURN_TEXT_P(cstring_to_text(brief));
}
