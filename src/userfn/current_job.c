/*
 * current_job.c
 *		The job that is running in this background worker, and what it says.
 *
 * A handler may ask which job it runs, and say that it is to be run later, or never,
 * instead of having succeeded; what it did besides is committed all the same.  It has
 * not said so when what it did then is rolled back.
 *
 * Its progress is to be seen while it runs, before its transaction commits: it goes
 * into the worker's slot, and the scheduler writes it into the job.  The last one is
 * also kept for the end of the job.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "ipc/due.h"
#include "ipc/slots.h"
#include "userfn/current_job.h"

/* The level of what is committed, whatever comes. */
#define COMMITTED 0

/* What a job said, at which level of subtransactions, counted from 1. */
typedef struct Said
{
	struct Said *before; /* at a lower level */
	int level;
	QmlWish wish;
	int64 delay;
	Datum reason;
} Said;

static QmlSlot *slot;
static QmlCurrent current;
static Said *said;					  /* last; NULL: nothing */
static MemoryContext current_context; /* lives as long as the job */

/* What was said at the level, or above, holds from now on at another; two may be the same. */
static void
move_down(int level, int to)
{
	for (Said *this = said; this && this->level >= level; this = this->before)
		this->level = to;
}

static void
forget_from(int level)
{
	while (said && said->level >= level)
		said = said->before;
}

static void
at_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT)
		move_down(COMMITTED + 1, COMMITTED);
	else if (event == XACT_EVENT_ABORT)
		forget_from(COMMITTED + 1);
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId my_id, SubTransactionId parent_id,
					  void *arg)
{
	int level = GetCurrentTransactionNestLevel();

	if (event == SUBXACT_EVENT_COMMIT_SUB)
		move_down(level, level - 1);
	else if (event == SUBXACT_EVENT_ABORT_SUB)
		forget_from(level);
}

void
qml_current_job_init(QmlSlot *my_slot)
{
	slot = my_slot;
	RegisterXactCallback(at_end, NULL);
	RegisterSubXactCallback(at_subtransaction_end, NULL);
}

/* A job begins; what it says is kept in the context. */
void
qml_current_job_begin(const QmlJob *job, MemoryContext context)
{
	memset(&current, 0, sizeof(current));
	said = NULL;
	current.job = job;
	current_context = context;
}

/* It has ended; what it said. */
const QmlCurrent *
qml_current_job_end(void)
{
	current.job = NULL;
	if (said)
	{
		current.wish = said->wish;
		current.delay = said->delay;
		current.reason = said->reason;
		said = NULL;
	}
	return &current;
}

const QmlJob *
qml_current_job_or_null(void)
{
	return current.job;
}

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
keep(Datum value)
{
	MemoryContext oldcontext;

	if (value == (Datum) 0)
		return value;
	oldcontext = MemoryContextSwitchTo(current_context);
	value = PointerGetDatum(PG_DETOAST_DATUM_COPY(value));
	MemoryContextSwitchTo(oldcontext);
	return value;
}

static void
say(QmlWish wish, int64 delay, Datum reason)
{
	int level = GetCurrentTransactionNestLevel();
	Datum kept = keep(reason);
	Said *this = said;

	if (this == NULL || this->level < level)
	{
		this = MemoryContextAlloc(current_context, sizeof(Said));
		this->before = said;
		this->level = level;
	}
	this->wish = wish;
	this->delay = delay;
	this->reason = kept;
	said = this;
}

/* The job is to be run again after a delay; this attempt does not count. */
void
qml_current_job_later(int64 delay, Datum reason)
{
	say(QML_WISH_LATER, delay, reason);
}

/* The job is to be deleted. */
void
qml_current_job_discard(Datum reason)
{
	say(QML_WISH_DISCARD, 0, reason);
}

bool
qml_current_job_is(const pg_uuid_t *id, int attempt)
{
	return current.job && memcmp(&current.job->id, id, sizeof(pg_uuid_t)) == 0 &&
		   current.job->attempt == attempt;
}

/* At once, for others to see. */
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
				 errdetail("A job that runs in the database can show at most %d bytes.",
						   QML_MAX_SHOWN_PROGRESS)));
	kept = keep(JsonbPGetDatum(document));
	if (current.progress != (Datum) 0)
		pfree(DatumGetPointer(current.progress));
	current.progress = kept;
	qml_slots_set_progress(slot, &current.job->id, current.job->attempt, document, size);
	qml_due_now(QML_WAKE_PROGRESS);
}
