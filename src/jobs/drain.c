/*
 * drain.c
 *		Runs the jobs of queues in the session and the transaction of the caller, one after the
 *		other (jobs/session_run.c), until there is none left: for tests of users.
 *
 * Ready jobs are claimed as by a fetch (jobs/claim.c), in its order; then those whose time has come
 * and that nobody has promoted yet, or all that are put off if the caller wants them, the earliest
 * first.  What a job enqueues is run in the same call.  So that the end does not depend on how long
 * the jobs take, those that were put off during the call are due only if the caller wants all.
 *
 * Only jobs are taken whose handlers this session may run: functions whose role is both the
 * current and the session user, in queues that it may work.  All others are passed over, like
 * paused queues and jobs that another transaction is changing.
 *
 * All of it is the caller's transaction: an error that is no job's undoes the whole call.
 */
#include "postgres.h"

#include "access/genam.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "common/table.h"
#include "compat.h"
#include "jobs/claim.h"
#include "jobs/claim_one.h"
#include "jobs/drain.h"
#include "jobs/session_run.h"
#include "model/acl.h"
#include "model/catalog.h"
#include "model/queue.h"
#include "userfn/handler.h"

/* One call. */
typedef struct Drain
{
	char **queues; /* NULL: all that the caller may work */
	int nqueues;
	TimestampTz due; /* jobs that are due until then are run; DT_NOEND: all that are put off */
	Datum worker;
	List *passed;		   /* ids of jobs that were due, and could not be had */
	MemoryContext context; /* of that list */

	/* What the rest holds is the next job's: it is forgotten with its memory context. */
	QmlMethodSet *methods; /* that this session may run; NULL: none */
	QmlJob *claimed;
} Drain;

/* ----- which jobs ----- */

/*
 * Which methods this session may run now: those of handlers of its role that are not revoked, and
 * no commands.  Jobs can register and unregister handlers.
 */
static void
read_methods(Drain *drain)
{
	List *handlers = GetUserId() == GetSessionUserId() ? qml_handler_all() : NIL;
	char **methods = palloc(sizeof(char *) * Max(list_length(handlers), 1));
	int count = 0;
	ListCell *lc;

	foreach(lc, handlers)
	{
		const QmlHandler *handler = lfirst(lc);

		if (handler->run_as == GetUserId() && handler->command == NULL &&
			!qml_handler_is_revoked(handler))
			methods[count++] = pstrdup(handler->method);
	}
	drain->methods = count > 0 ? qml_method_set_make(methods, count) : NULL;
}

static bool
has_queue(const Drain *drain, const char *name)
{
	for (int i = 0; i < drain->nqueues; i++)
	{
		if (strcmp(drain->queues[i], name) == 0)
			return true;
	}
	return drain->queues == NULL;
}

static bool
was_passed(const Drain *drain, const pg_uuid_t *id)
{
	ListCell *lc;

	foreach(lc, drain->passed)
	{
		if (memcmp(lfirst(lc), id, sizeof(pg_uuid_t)) == 0)
			return true;
	}
	return false;
}

/* Whether a job that is put off is one for this call; `slot` has its row. */
static bool
is_wanted(const Drain *drain, const QmlJob *job, TupleTableSlot *slot)
{
	const QmlQueue *queue = qml_queue_by_id(job->queue_id);

	return queue && !queue->own && !queue->paused && !qml_catalog()->paused &&
		   has_queue(drain, queue->name) && qml_acl_allow(QML_CAN_WORK, queue->name) &&
		   qml_method_set_has(drain->methods, job->method) && !was_passed(drain, &job->id) &&
		   qml_table_row_fate(slot) == TM_Ok;
}

/* ----- ready jobs ----- */

/* QmlClaim.take. */
static void
keep_claimed(const QmlJob *job, void *arg)
{
	Drain *drain = arg;

	drain->claimed = palloc(sizeof(QmlJob));
	qml_job_copy(job, drain->claimed);
}

/* Claims the next job that is ready; NULL: there is none. */
static QmlJob *
claim_ready(Drain *drain)
{
	QmlClaim claim = {.worker = drain->worker,
					  .queues = drain->queues,
					  .nqueues = drain->nqueues,
					  .methods = drain->methods,
					  .batch = 1,
					  .lease = QML_LEASE_OF_QUEUE,
					  .take = keep_claimed,
					  .arg = drain};
	QmlMore more;

	drain->claimed = NULL;
	(void) qml_claim_batch(&claim, &more);
	return drain->claimed;
}

/* ----- jobs that are put off ----- */

/* The earliest job of the tables of a storage class that is wanted; false: there is none. */
static bool
find_put_off(const Drain *drain, QmlStoreId store, pg_uuid_t *id, TimestampTz *run_at)
{
	QmlTable live;
	Relation due;
	IndexScanDesc scan;
	ScanKeyData key;
	Snapshot snapshot;
	bool found = false;

	qml_table_open(&live, qml_store(store)->live, RowExclusiveLock);
	due = index_open(qml_store(store)->live_due, RowExclusiveLock);
	snapshot = qml_table_snapshot();
	scan = qml_index_beginscan(live.rel, due, snapshot, 1);
	ScanKeyInit(&key, 1, BTLessEqualStrategyNumber, F_TIMESTAMPTZ_LE,
				TimestampTzGetDatum(drain->due));
	index_rescan(scan, &key, 1, NULL, 0);
	while (!found && qml_table_next(&live, scan))
	{
		QmlJob job;

		CHECK_FOR_INTERRUPTS();
		qml_job_from_live(live.slot, &job);
		if (!is_wanted(drain, &job, live.slot))
			continue;
		*id = job.id;
		*run_at = job.run_at;
		found = true;
	}
	index_endscan(scan);
	UnregisterSnapshot(snapshot);
	index_close(due, NoLock);
	qml_table_close(&live);
	return found;
}

/* Claims the earliest job that is put off and wanted; NULL: there is none. */
static QmlJob *
claim_put_off(Drain *drain)
{
	QmlClaimOne claim = {.worker = drain->worker, .early = true};
	QmlJob *claimed = NULL;

	while (claimed == NULL)
	{
		bool found = false;
		pg_uuid_t first;
		TimestampTz first_at = DT_NOEND;

		for (int i = 0; i < qml_stores_in_use(); i++)
		{
			pg_uuid_t id;
			TimestampTz run_at;

			if (!find_put_off(drain, i, &id, &run_at) || (found && run_at >= first_at))
				continue;
			found = true;
			first = id;
			first_at = run_at;
		}
		if (!found)
			return NULL;
		claimed = qml_claim_one_if_early(&first, &claim);
		if (claimed == NULL)
		{
			MemoryContext oldcontext = MemoryContextSwitchTo(drain->context);
			pg_uuid_t *passed = palloc(sizeof(pg_uuid_t));

			*passed = first;
			drain->passed = lappend(drain->passed, passed);
			MemoryContextSwitchTo(oldcontext);
		}
	}
	return claimed;
}

/* ----- the loop ----- */

/* Runs the next job; false: there is none. */
static bool
run_next(Drain *drain)
{
	QmlJob *job;

	read_methods(drain);
	if (drain->methods == NULL)
		return false;
	job = claim_ready(drain);
	if (job == NULL)
		job = claim_put_off(drain);
	if (job == NULL)
		return false;
	(void) qml_session_run_claimed(job);
	return true;
}

/* Nothing can be run as long as the current user is not that of the session: says so. */
static void
tell_user(void)
{
	if (GetUserId() == GetSessionUserId())
		return;
	ereport(NOTICE,
			(errmsg("no handler can be run, because the current user is not the session user"),
			 errhint("SET SESSION AUTHORIZATION %s;",
					 quote_identifier(GetUserNameFromId(GetUserId(), false)))));
}

/*
 * Runs up to `most` jobs; returns how many.  scheduled: also those that are not due yet, be it
 * that they are scheduled or wait for their retry.
 */
int
qml_drain_jobs(char **queues, int nqueues, int most, bool scheduled)
{
	Drain drain = {.queues = queues,
				   .nqueues = nqueues,
				   .due = scheduled ? DT_NOEND : GetCurrentTimestamp(),
				   .worker = qml_session_run_worker(),
				   .context = CurrentMemoryContext};
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "qml drained job",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	int count = 0;

	qml_table_require_write();
	(void) qml_catalog_to_work();
	for (int i = 0; i < nqueues; i++)
		qml_acl_require(QML_CAN_WORK, queues[i]);
	tell_user();
	while (count < most && run_next(&drain))
	{
		count++;
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(context);
	return count;
}
