/*
 * takeover.c
 *		Whose schedule is a job of pg_cron, and the end of that job.
 *
 * The name of a schedule says from which job it was imported (import.c), and its row keeps how
 * the job was then: schedule, command and user.  What the schedule itself says may be changed.
 * When it is resumed and pg_cron has a job of this id and name,
 *
 *	- the job is unscheduled with the rights of the caller, if it is what was imported, and the
 *	  owner of the schedule could become its role;
 *	- or else the schedule is not resumed: both would run from then on, or what is in pg_cron
 *	  now would be lost.
 *
 * Whether a job is still there is read as the owner of pg_cron's table: the caller may not see
 * it, and then two would run it.
 *
 * pg_cron goes on with the job until the commit, and qml counts from the call.  So a
 * transaction that takes a job over cannot commit once a tick has passed since: both would run
 * that.  For the same reason it cannot be prepared.  What is left are the milliseconds of the
 * commit itself.
 *
 * Locks: the schedule is locked by the caller, then pg_cron's table as its function does.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "common/args.h"
#include "common/json.h"
#include "common/spi.h"
#include "compat.h"
#include "qml.h"
#include "schedule/pgcron.h"
#include "schedule/takeover.h"

#define PREFIX "pg_cron "

/* The name of the command and of the schedule of a job; jobname may be NULL. */
char *
qml_takeover_name(int64 jobid, const char *jobname)
{
	char *name = psprintf(PREFIX INT64_FORMAT "%s%s", jobid, jobname ? " " : "",
						  jobname ? jobname : "");

	/* The name of a job may have characters that names of qml may not have. */
	return qml_args_is_name(name, QML_MAX_NAME) ? name : psprintf(PREFIX INT64_FORMAT, jobid);
}

/* The role that owns a table. */
static Oid
find_owner(Oid table)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(table));
	Oid owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", table);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/* A job as its schedule keeps it. */
Datum
qml_takeover_keep(const QmlCronJob *job)
{
	JsonbParseState *state = NULL;

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	qml_json_push_text(&state, "schedule", CStringGetTextDatum(job->schedule));
	qml_json_push_text(&state, "command", CStringGetTextDatum(job->command));
	qml_json_push_text(&state, "username", CStringGetTextDatum(job->username));
	return JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
}

/* Whether a member of what is kept is this text. */
static bool
is_kept(Jsonb *kept, const char *key, const char *text)
{
	JsonbValue *value = JB_ROOT_IS_OBJECT(kept) ?
							getKeyJsonValueFromContainer(&kept->root, key, strlen(key), NULL) :
							NULL;

	return value && value->type == jbvString && value->val.string.len == (int) strlen(text) &&
		   memcmp(value->val.string.val, text, value->val.string.len) == 0;
}

/* What of a job is not as it was imported, as a list of columns; NULL: nothing. */
char *
qml_takeover_difference(Datum imported, const QmlCronJob *job)
{
	Jsonb *kept = DatumGetJsonbP(imported);
	char *list = NULL;

	if (!is_kept(kept, "schedule", job->schedule))
		list = "schedule";
	if (!is_kept(kept, "command", job->command))
		list = list ? psprintf("%s, command", list) : "command";
	if (!is_kept(kept, "username", job->username))
		list = list ? psprintf("%s, username", list) : "username";
	return list;
}

/* Whether pg_cron has a job of this id here, and of the name that the schedule has. */
static bool
find_job(Oid table, int64 jobid, const char *id, QmlCronJob *job)
{
	MemoryContext context = CurrentMemoryContext;
	Oid type = INT8OID;
	Datum value = Int64GetDatum(jobid);
	bool found;
	bool isnull;
	QmlSpi spi;

	qml_spi_begin(&spi, find_owner(table));
	found = qml_spi_execute_latest("SELECT j.jobname::text, j.schedule, j.command, "
								   "j.username::text FROM cron.job j "
								   "WHERE j.jobid = $1 AND "
								   "j.database = pg_catalog.current_database()",
								   1, &type, &value, NULL, SPI_OK_SELECT) > 0;
	if (found)
	{
		Datum name = qml_spi_value(SPI_tuptable, 0, 1, TEXTOID, &isnull);
		MemoryContext spi_context;

		found = strcmp(qml_takeover_name(jobid, isnull ? NULL : TextDatumGetCString(name)), id) ==
				0;
		spi_context = MemoryContextSwitchTo(context);
		job->schedule = TextDatumGetCString(qml_spi_value(SPI_tuptable, 0, 2, TEXTOID, NULL));
		job->command = TextDatumGetCString(qml_spi_value(SPI_tuptable, 0, 3, TEXTOID, NULL));
		job->username = TextDatumGetCString(qml_spi_value(SPI_tuptable, 0, 4, TEXTOID, NULL));
		MemoryContextSwitchTo(spi_context);
	}
	qml_spi_end(&spi);
	return found;
}

/* Why the schedule may not take the job over, a sentence; NULL: it may. */
static char *
refuse_takeover(const QmlCronJob *job, Oid created_by, Datum imported)
{
	char *difference;
	Oid role;

	if (imported == (Datum) 0)
		return "The schedule has the name of the job, but was not made by qml_import_pg_cron().";
	difference = qml_takeover_difference(imported, job);
	if (difference)
		return psprintf("The job was changed since it was imported: %s.", difference);
	role = get_role_oid(job->username, true);
	if (!OidIsValid(role))
		return psprintf("The role \"%s\" of the job does not exist.", job->username);
	if (!qml_may_become(created_by, role))
		return psprintf("The owner of the schedule may not become the role \"%s\" of the job.",
						job->username);
	return NULL;
}

/*
 * A schedule is about to be resumed: if pg_cron has the job that it was imported from,
 * unschedules the job with the rights of the current user, and returns true.  Raises 55000 if
 * pg_cron has a job of this id and name that the schedule may not take over.
 */
bool
qml_takeover_job(const char *id, Oid created_by, Datum imported)
{
	Oid type = INT8OID;
	QmlCronJob job;
	char *problem;
	int64 jobid;
	Datum value;
	char *end;
	QmlSpi spi;

	if (strncmp(id, PREFIX, strlen(PREFIX)) != 0)
		return false;
	errno = 0;
	jobid = strtoi64(id + strlen(PREFIX), &end, 10);
	if (errno != 0 || end == id + strlen(PREFIX) ||
		!OidIsValid(get_extension_oid("pg_cron", true)) ||
		!find_job(qml_pgcron_require_table(), jobid, id, &job))
		return false;
	problem = refuse_takeover(&job, created_by, imported);
	if (problem)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("recurring job \"%s\" cannot be resumed while pg_cron has job " INT64_FORMAT,
						id, jobid),
				 errdetail("%s", problem),
				 errhint("Remove the schedule and its handler and import the job again, or "
						 "unschedule the job: cron.unschedule(" INT64_FORMAT ").",
						 jobid)));
	value = Int64GetDatum(jobid);
	qml_spi_begin(&spi, GetUserId());
	(void) qml_spi_execute("SELECT cron.unschedule($1)", 1, &type, &value, NULL, SPI_OK_SELECT);
	qml_spi_end(&spi);
	return true;
}

/* ----- until the commit ----- */

/* A job that this transaction has taken over. */
typedef struct Watched
{
	SubTransactionId subxact;
	TimestampTz next; /* the first tick of its schedule */
	char *id;
} Watched;

static List *watched = NIL; /* Watched, in the memory of the transaction */

static void
at_transaction_end(XactEvent event, void *arg)
{
	ListCell *lc;

	if (watched == NIL)
		return;
	if (event == XACT_EVENT_PRE_PREPARE)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a transaction that takes over a job of pg_cron cannot be prepared"),
				 errdetail("pg_cron would go on with the job until the commit.")));
	if (event == XACT_EVENT_PRE_COMMIT)
	{
		TimestampTz now = GetCurrentTimestamp();

		foreach(lc, watched)
		{
			const Watched *one = lfirst(lc);

			if (one->next <= now)
				ereport(ERROR,
						(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						 errmsg("recurring job \"%s\" was resumed too long before the commit",
								one->id),
						 errdetail("A tick has passed since, for which pg_cron may have run the job."),
						 errhint("Resume it again, in a transaction that commits at once.")));
		}
	}
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		watched = NIL;
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	ListCell *lc;

	if (event != SUBXACT_EVENT_ABORT_SUB && event != SUBXACT_EVENT_COMMIT_SUB)
		return;
	foreach(lc, watched)
	{
		Watched *one = lfirst(lc);

		if (one->subxact != mine)
			continue;
		if (event == SUBXACT_EVENT_COMMIT_SUB)
			one->subxact = parent;
		else
			watched = foreach_delete_current(watched, lc);
	}
}

/* Called when the library is loaded. */
void
qml_takeover_init(void)
{
	RegisterXactCallback(at_transaction_end, NULL);
	RegisterSubXactCallback(at_subtransaction_end, NULL);
}

/* The schedule has taken its job over, and fires next at this time: not before the commit. */
void
qml_takeover_watch(const char *id, TimestampTz next)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(TopTransactionContext);
	Watched *one = palloc(sizeof(Watched));

	one->subxact = GetCurrentSubTransactionId();
	one->next = next;
	one->id = pstrdup(id);
	watched = lappend(watched, one);
	MemoryContextSwitchTo(oldcontext);
}
