/*
 * drain.c
 *		Runs the jobs of queues in the session and the transaction of the caller, one after the
 *		other (jobs/session_run.c), until there is none left: for tests of users.
 *
 * Ready jobs are claimed as by a fetch (jobs/claim.c), in its order; then those whose time has come
 * and that nobody has promoted yet, or all that are put off if the caller wants them, the earliest
 * first.  What a job enqueues is run in the same call.  So that the end does not depend on how long
 * the jobs take, those that were put off during the call are due only if the caller wants all.  It
 * goes on where it has been (jobs/drain_cursor.c): what others do meanwhile may come at the end.
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
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "common/table.h"
#include "compat.h"
#include "jobs/claim.h"
#include "jobs/claim_one.h"
#include "jobs/drain.h"
#include "jobs/drain_cursor.h"
#include "jobs/ready_row.h"
#include "jobs/session_run.h"
#include "model/acl.h"
#include "model/catalog.h"
#include "model/queue.h"
#include "userfn/handler.h"

/* Jobs that are put off and looked for at once. */
#define MOST_PUT_OFF 256

/* One of them. */
typedef struct PutOff
{
	pg_uuid_t id;
	TimestampTz run_at;
	int number; /* in the order in which they were found */
} PutOff;

/* One call. */
typedef struct Drain
{
	char **queues; /* NULL: all that the caller may work */
	int nqueues;
	TimestampTz due; /* jobs that are due until then are run; DT_NOEND: all that are put off */
	Datum worker;
	HTAB *passed; /* ids of jobs that were due, and could not be had */

	/* The next ones that are put off. */
	PutOff put_off[QML_STORES * MOST_PUT_OFF];
	int nput_off;
	int next;

	uint64 methods_hash; /* of the last job's */

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
	return hash_search(drain->passed, id, HASH_FIND, NULL) != NULL;
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

	QmlReadyKey key = qml_ready_row_key(job->priority, &job->id);

	/* Before hooks are called, which may write jobs that come before it. */
	qml_drain_cursor_set(job->queue_id, &key);
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
					  .drains = true,
					  .lease = QML_LEASE_OF_QUEUE,
					  .take = keep_claimed,
					  .arg = drain};
	QmlMore more;

	drain->claimed = NULL;
	(void) qml_claim_batch(&claim, &more);
	return drain->claimed;
}

/* ----- jobs that are put off ----- */

/*
 * Adds the earliest jobs of the tables of a storage class that are wanted.  Returns the time up to
 * which these are all.
 */
static TimestampTz
add_put_off(Drain *drain, QmlStoreId store)
{
	QmlTable live;
	Relation due;
	IndexScanDesc scan;
	ScanKeyData keys[2];
	Snapshot snapshot;
	int count = 0;

	qml_table_open(&live, qml_store(store)->live, RowExclusiveLock);
	due = index_open(qml_store(store)->live_due, RowExclusiveLock);
	snapshot = qml_table_snapshot();
	scan = qml_index_beginscan(live.rel, due, snapshot, lengthof(keys));
	ScanKeyInit(&keys[0], 1, BTGreaterEqualStrategyNumber, F_TIMESTAMPTZ_GE,
				TimestampTzGetDatum(qml_drain_cursor_due()));
	ScanKeyInit(&keys[1], 1, BTLessEqualStrategyNumber, F_TIMESTAMPTZ_LE,
				TimestampTzGetDatum(drain->due));
	index_rescan(scan, keys, lengthof(keys), NULL, 0);
	while (count < MOST_PUT_OFF && qml_table_next(&live, scan))
	{
		PutOff *found = &drain->put_off[drain->nput_off];
		QmlJob job;

		CHECK_FOR_INTERRUPTS();
		qml_job_from_live(live.slot, &job);
		if (!is_wanted(drain, &job, live.slot))
			continue;
		found->id = job.id;
		found->run_at = job.run_at;
		found->number = drain->nput_off++;
		count++;
	}
	index_endscan(scan);
	UnregisterSnapshot(snapshot);
	index_close(due, NoLock);
	qml_table_close(&live);
	return count < MOST_PUT_OFF ? DT_NOEND : drain->put_off[drain->nput_off - 1].run_at;
}

static int
compare_put_off(const void *a, const void *b)
{
	const PutOff *one = a;
	const PutOff *other = b;

	if (one->run_at != other->run_at)
		return one->run_at < other->run_at ? -1 : 1;
	return one->number - other->number;
}

/*
 * Looks for the next jobs that are put off.  Several at once: many may have the same time, and each
 * search goes over all of these that this transaction has ended.
 */
static void
find_put_off(Drain *drain)
{
	TimestampTz upto = DT_NOEND;

	drain->nput_off = 0;
	drain->next = 0;
	for (int i = 0; i < qml_stores_in_use(); i++)
	{
		TimestampTz until = add_put_off(drain, i);

		upto = Min(upto, until);
	}
	qsort(drain->put_off, drain->nput_off, sizeof(PutOff), compare_put_off);
	while (drain->nput_off > 0 && drain->put_off[drain->nput_off - 1].run_at > upto)
		drain->nput_off--;
	/* Those before are not wanted, or this transaction has ended them. */
	qml_drain_cursor_set_due(drain->nput_off > 0 ? drain->put_off[0].run_at : DT_NOEND);
}

/* From when on the next ones are, but for what was written since they were looked for. */
static TimestampTz
position(const Drain *drain)
{
	if (drain->nput_off == 0)
		return qml_drain_cursor_due();
	return drain->put_off[Min(drain->next, drain->nput_off - 1)].run_at;
}

/* The next job that is put off; NULL: there is none. */
static const PutOff *
next_put_off(Drain *drain)
{
	TimestampTz written = qml_drain_cursor_written();

	if (drain->next == drain->nput_off || written <= drain->put_off[drain->nput_off - 1].run_at)
	{
		qml_drain_cursor_set_due(Min(written, position(drain)));
		find_put_off(drain);
	}
	return drain->next < drain->nput_off ? &drain->put_off[drain->next++] : NULL;
}

/* Claims the earliest job that is put off and wanted; NULL: there is none. */
static QmlJob *
claim_put_off(Drain *drain)
{
	QmlClaimOne claim = {.worker = drain->worker, .early = true};
	QmlJob *claimed = NULL;
	const PutOff *first;

	while (claimed == NULL && (first = next_put_off(drain)) != NULL)
	{
		qml_drain_cursor_mute(true);
		claimed = qml_claim_one_if_early(&first->id, &claim);
		qml_drain_cursor_mute(false);
		if (claimed == NULL)
			(void) hash_search(drain->passed, &first->id, HASH_ENTER, NULL);
	}
	return claimed;
}

/* ----- the loop ----- */

/* Claims the next job; NULL: there is none behind the cursors. */
static QmlJob *
claim_next(Drain *drain)
{
	QmlJob *job = claim_ready(drain);

	return job ? job : claim_put_off(drain);
}

/* Runs the next job; false: there is none. */
static bool
run_next(Drain *drain)
{
	QmlJob *job;

	read_methods(drain);
	if (drain->methods == NULL)
		return false;
	/* What was passed over may be wanted by now. */
	if (drain->methods->hash != drain->methods_hash)
		(void) qml_drain_cursor_forget();
	drain->methods_hash = drain->methods->hash;
	job = claim_next(drain);
	/* Others may have given back, or committed, what comes before. */
	if (job == NULL && qml_drain_cursor_forget())
		job = claim_next(drain);
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
				   .worker = qml_session_run_worker()};
	HASHCTL passed = {.keysize = sizeof(pg_uuid_t),
					  .entrysize = sizeof(pg_uuid_t),
					  .hcxt = CurrentMemoryContext};
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "qml drained job",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	volatile int count = 0;

	qml_table_require_write();
	(void) qml_catalog_to_work();
	for (int i = 0; i < nqueues; i++)
		qml_acl_require(QML_CAN_WORK, queues[i]);
	tell_user();
	drain.passed = hash_create("qml passed jobs", 16, &passed,
							   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	qml_drain_cursor_begin(oldcontext);
	PG_TRY();
	{
		while (count < most && run_next(&drain))
		{
			count++;
			MemoryContextReset(context);
		}
	}
	PG_FINALLY();
	{
		qml_drain_cursor_end();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(context);
	return count;
}
