/*
 * sql_search.c
 *		SQL functions that search jobs: qml_search; and qml.search_order, qml.search_key,
 *		qml.search_own and qml.search_slow for the indexes.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "common/args.h"
#include "common/guc.h"
#include "common/srf.h"
#include "compat.h"
#include "core/search_order.h"
#include "errcodes.h"
#include "jobs/search.h"
#include "jobs/search_redacted.h"
#include "model/acl.h"
#include "model/search_index.h"

QML_FUNCTION(qml_search);
QML_FUNCTION(qml_search_order);
QML_FUNCTION(qml_search_key);
QML_FUNCTION(qml_search_own);
QML_FUNCTION(qml_search_slow);

/* ----- for indexes ----- */

Datum
qml_search_order(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(qml_order_of(PG_GETARG_UUID_P(0)->data, PG_GETARG_TIMESTAMPTZ(1)));
}

Datum
qml_search_key(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(qml_search_index_key(PG_GETARG_INT32(0), PG_GETARG_DATUM(1)));
}

Datum
qml_search_own(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(!qml_order_is_by_id(PG_GETARG_UUID_P(0)->data, PG_GETARG_TIMESTAMPTZ(1)));
}

Datum
qml_search_slow(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(qml_order_is_slow(PG_GETARG_TIMESTAMPTZ(0), PG_GETARG_TIMESTAMPTZ(1)));
}

/* ----- qml_search ----- */

/* The page of an answer that is made. */
typedef struct Answer
{
	QmlSrfRows *rows;
	TupleDesc expected;
	int most;
} Answer;

/* QmlSearch.access */
static QmlAccess
get_access(const QmlJob *job, void *arg)
{
	return qml_job_visibility(job);
}

/* QmlSearch.use */
static bool
add_row(const QmlJob *job, const QmlSearchPlace *place, QmlAccess access, void *arg)
{
	Answer *page = arg;

	page->rows->values[page->rows->count++] = qml_job_expected_row(job, access, page->expected);
	return page->rows->count < page->most;
}

/* Reads the id at the end of a text, and cuts it off; false: there is none. */
static bool
cut_id(char *text, pg_uuid_t *id)
{
	char *blank = strrchr(text, ' ');

	if (!qml_search_read_id(blank ? blank + 1 : text, id->data))
		return false;
	while (blank && blank > text && blank[-1] == ' ')
		blank--;
	*(blank ? blank : text) = '\0';
	return true;
}

pg_noreturn static void
raise_invalid_after(const char *value)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("argument \"after\" is no place of a job: \"%s\"", value),
			 errhint("It is the id of the last job of the page before, or its created_at, a blank and "
					 "its id.")));
}

/* Reads what a page begins behind. */
static void
read_after(const char *value, QmlSearchPlace *after)
{
	char *text = pstrdup(value);
	Datum created_at;
	char *end;

	if (!cut_id(text, &after->id))
		raise_invalid_after(value);
	if (*text == '\0')
	{
		if (!qml_search_find_place(&after->id, get_access, NULL, after))
			ereport(ERROR,
					(errcode(ERRCODE_QML_JOB_NOT_FOUND),
					 errmsg("job %s of argument \"after\" does not exist any more",
							qml_job_id_string(&after->id)),
					 errhint("Give its created_at, a blank and its id.")));
		return;
	}
	/* As the hint of a partial answer says it. */
	if (*text == '@')
	{
		errno = 0;
		after->order = strtoi64(text + 1, &end, 10);
		if (errno != 0 || end == text + 1 || *end != '\0')
			raise_invalid_after(value);
		return;
	}
	if (!qml_input_text(timestamptz_in, text, &created_at))
		raise_invalid_after(value);
	after->order = qml_order_of(after->id.data, DatumGetTimestampTz(created_at));
}

/* The time of a place, for people. */
static const char *
show_time(const QmlSearchPlace *place)
{
	TimestampTz time = (place->order >> 16) * 1000 - QML_ORDER_EPOCH;

	return pstrdup(timestamptz_to_str(time));
}

/* A place as the argument "after". */
static const char *
show_place(const QmlSearchPlace *place)
{
	return psprintf("@" INT64_FORMAT " %s", place->order, qml_job_id_string(&place->id));
}

/* Tells that not all jobs were looked at. */
static void
warn_partial(const QmlSearch *search)
{
	if (!search->is_partial)
		ereport(WARNING,
				(errcode(ERRCODE_QML_SEARCH_PARTIAL),
				 errmsg("not all unfinished jobs were looked at"),
				 errdetail("None that was created before %s was, after " INT64_FORMAT
						   " jobs were looked at.",
						   show_time(&search->live_stopped), search->looked),
				 errhint("Name a queue, search unfinished jobs alone with after => '%s', or raise "
						 "qml.search_limit.",
						 show_place(&search->live_stopped))));
	else if (!search->is_live_partial)
		ereport(WARNING,
				(errcode(ERRCODE_QML_SEARCH_PARTIAL), errmsg("not all jobs were looked at"),
				 errdetail("None that was created before %s was, after " INT64_FORMAT
						   " jobs were looked at.",
						   show_time(&search->stopped), search->looked),
				 errhint("To look further, search with after => '%s'.  A queue, a state or times in "
						 "the query, or a higher qml.search_limit, let it look further at once.",
						 show_place(&search->stopped))));
	else
		ereport(WARNING,
				(errcode(ERRCODE_QML_SEARCH_PARTIAL), errmsg("not all jobs were looked at"),
				 errdetail("No finished one that was created before %s was, and no unfinished one "
						   "that was created before %s, after " INT64_FORMAT
						   " jobs were looked at.",
						   show_time(&search->stopped), show_time(&search->live_stopped),
						   search->looked),
				 errhint("To look further, search with after => '%s'; search unfinished jobs alone with "
						 "after => '%s'.  A queue, a state or times in the query, or a higher "
						 "qml.search_limit, let it look further at once.",
						 show_place(&search->stopped), show_place(&search->live_stopped))));
}

static QmlSrfRows *
make_page(FunctionCallInfo fcinfo)
{
	QmlSearch search = {.access = get_access, .use = add_row};
	Answer page = {.expected = qml_srf_expected(fcinfo)};
	char *query;

	qml_acl_require_any(QML_CAN_MONITOR);
	qml_args_require(fcinfo, 0, "query");
	query = text_to_cstring(PG_GETARG_TEXT_PP(0));
	page.most = qml_args_int(fcinfo, 1, "lim", 1, QML_MAX_BATCH);
	page.rows = qml_srf_alloc(page.most);
	search.compiled = qml_search_compile(query, GetCurrentTimestamp());
	qml_search_check_redacted(search.compiled);
	search.has_after = !PG_ARGISNULL(2);
	if (search.has_after)
		read_after(text_to_cstring(PG_GETARG_TEXT_PP(2)), &search.after);
	search.most_looked = qml_search_limit;
	search.arg = &page;
	qml_search_run(&search);
	if (search.is_partial || search.is_live_partial)
		warn_partial(&search);
	return page.rows;
}

Datum
qml_search(PG_FUNCTION_ARGS)
{
	return qml_srf_return(fcinfo, make_page);
}
