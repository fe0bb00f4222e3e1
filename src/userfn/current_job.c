/*
 * current_job.c
 *		The job that this session runs, and what its handler asks for.
 *
 * A handler can look at its job, and ask for it to be run again later, or to be deleted,
 * instead of being marked as succeeded.  The rest of its work is committed all the same.
 * Such a wish is transactional: it is dropped when the (sub)transaction in which it was
 * made is rolled back.  Wishes are kept as a stack, one for each level of
 * subtransactions that made one, the innermost on top.
 *
 * Progress is not transactional: it is to be seen while the job runs.  It goes into the
 * worker's slot in shared memory, and the scheduler writes it into the row of the job.
 * The latest one is also written at the end of the job.  A crash loses what the
 * scheduler has not written yet.
 *
 * A session of a client that runs a job in its own transaction (jobs/session_run.c) has no
 * slot: nobody else can see the job yet, and so its progress is only written at the end.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

#include "ipc/due.h"
#include "ipc/session_claim.h"
#include "ipc/slots.h"
#include "userfn/current_job.h"

/* The level of a wish that is committed; a procedure can commit and go on. */
#define COMMITTED 0

/* A wish, and the nesting level of the transaction that made it, counted from 1. */
typedef struct Wish
{
	struct Wish *below; /* made at the same or a lower level */
	int level;
	QmlWish wish;
	int64 delay;
	Datum reason;
} Wish;

static QmlSlot *slot; /* of this worker; NULL: it is a session of a client */
static QmlCurrent current;
static Wish *wishes;				  /* the top of the stack; NULL: none */
static MemoryContext current_context; /* lives as long as the job */

/*
 * The wishes of this level and above now belong to level `to`.  There may already be one
 * of that level below them; both are dropped together.
 */
static void
move_wishes(int level, int to)
{
	for (Wish *wish = wishes; wish && wish->level >= level; wish = wish->below)
		wish->level = to;
}

/* The wishes of the level, or above it, were rolled back. */
static void
drop_wishes(int level)
{
	while (wishes && wishes->level >= level)
		wishes = wishes->below;
}

static void
end_transaction(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT)
		move_wishes(COMMITTED + 1, COMMITTED);
	else if (event == XACT_EVENT_ABORT)
		drop_wishes(COMMITTED + 1);
}

static void
end_subtransaction(SubXactEvent event, SubTransactionId my_id, SubTransactionId parent_id,
				   void *arg)
{
	int level = GetCurrentTransactionNestLevel();

	if (event == SUBXACT_EVENT_COMMIT_SUB)
		move_wishes(level, level - 1);
	else if (event == SUBXACT_EVENT_ABORT_SUB)
		drop_wishes(level);
}

/* Called once by a background worker that has its slot. */
void
qml_current_job_init(QmlSlot *my_slot)
{
	Assert(slot == NULL && my_slot != NULL);
	slot = my_slot;
}

/* Once in a session: sessions that run no job pay nothing for the wishes of jobs. */
static void
watch_transactions(void)
{
	static bool watching = false;

	if (watching)
		return;
	RegisterXactCallback(end_transaction, NULL);
	RegisterSubXactCallback(end_subtransaction, NULL);
	watching = true;
}

/* A job begins; its wishes and progress are kept in the context. */
void
qml_current_job_begin(const QmlJob *job, MemoryContext context)
{
	Assert(current.job == NULL);
	watch_transactions();
	memset(&current, 0, sizeof(current));
	wishes = NULL;
	current.job = job;
	current_context = context;
	if (slot)
		qml_session_claim_begin_job();
}

/* The job has ended; returns what its handler asked for, valid until the next job. */
const QmlCurrent *
qml_current_job_end(void)
{
	current.job = NULL;
	if (slot)
		qml_session_claim_end_job();
	if (wishes)
	{
		current.wish = wishes->wish;
		current.delay = wishes->delay;
		current.reason = wishes->reason;
		wishes = NULL;
	}
	return &current;
}

const QmlJob *
qml_current_job_or_null(void)
{
	return current.job;
}

/* The job that runs; raises 55000, in the name of the SQL function, if none does. */
const QmlJob *
qml_current_job_require(const char *function)
{
	if (current.job == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s() can only be called in a job that runs in the database", function)));
	return current.job;
}

static Datum
copy_for_job(Datum value)
{
	MemoryContext oldcontext;

	if (value == (Datum) 0)
		return value;
	oldcontext = MemoryContextSwitchTo(current_context);
	value = PointerGetDatum(PG_DETOAST_DATUM_COPY(value));
	MemoryContextSwitchTo(oldcontext);
	return value;
}

/* Pushes a wish of the current (sub)transaction, or replaces the one that it has made. */
static void
set_wish(QmlWish kind, int64 delay, Datum reason)
{
	int level = GetCurrentTransactionNestLevel();
	Datum kept = copy_for_job(reason);
	Wish *wish = wishes;

	Assert(current.job != NULL);
	Assert(wish == NULL || wish->level <= level);
	if (wish == NULL || wish->level < level)
	{
		wish = MemoryContextAlloc(current_context, sizeof(Wish));
		wish->below = wishes;
		wish->level = level;
	}
	wish->wish = kind;
	wish->delay = delay;
	wish->reason = kept;
	wishes = wish;
}

/* The job shall run again after a delay; this attempt does not count. */
void
qml_current_job_later(int64 delay, Datum reason)
{
	set_wish(QML_WISH_LATER, delay, reason);
}

/* The job shall be deleted. */
void
qml_current_job_discard(Datum reason)
{
	set_wish(QML_WISH_DISCARD, 0, reason);
}

/* Whether the job that runs is this attempt. */
bool
qml_current_job_is(const pg_uuid_t *id, int attempt)
{
	return current.job && memcmp(&current.job->id, id, sizeof(pg_uuid_t)) == 0 &&
		   current.job->attempt == attempt;
}

/*
 * Shows progress of the job that runs to others, at once if a worker runs it; raises 54000 if it
 * is too large.
 */
void
qml_current_job_set_progress(Datum progress)
{
	Jsonb *document = DatumGetJsonbP(progress);
	Size size = VARSIZE(document);
	Datum kept;

	if (size > QML_MAX_SHOWN_PROGRESS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("argument \"%s\" is too large", "progress"),
				 errdetail("The progress of a job that runs in the database can have at most %d bytes.",
						   QML_MAX_SHOWN_PROGRESS)));
	Assert(current.job != NULL);
	kept = copy_for_job(JsonbPGetDatum(document));
	if (current.progress != (Datum) 0)
		pfree(DatumGetPointer(current.progress));
	current.progress = kept;
	if (slot == NULL)
		return;
	qml_slots_set_progress(slot, &current.job->id, current.job->attempt, document, size);
	qml_due_now(QML_WAKE_PROGRESS);
}
