/*
 * current.c
 *		The job that is running in this background worker, and what it says.
 *
 * A handler may ask which job it runs, and say that it is to be run later, or never,
 * instead of having succeeded; what it did besides is committed all the same.
 *
 * Its progress is to be seen while it runs, before its transaction commits: it goes
 * into the worker's slot, and the scheduler writes it into the job.  The last one is
 * also kept for the end of the job.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "current.h"
#include "wakeup.h"

static QmlSlot *slot;
static QmlCurrent current;
static MemoryContext current_context; /* lives as long as the job */

void
qml_current_init(QmlSlot *my_slot)
{
	slot = my_slot;
}

/* A job begins; what it says is kept in the context. */
void
qml_current_begin(const QmlJob *job, MemoryContext context)
{
	memset(&current, 0, sizeof(current));
	current.job = job;
	current_context = context;
}

/* It has ended; what it said. */
const QmlCurrent *
qml_current_end(void)
{
	current.job = NULL;
	return &current;
}

const QmlJob *
qml_current_job_or_null(void)
{
	return current.job;
}

const QmlJob *
qml_current_require(const char *function)
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

/* The job is to be run again after a delay; this attempt does not count. */
void
qml_current_later(int64 delay, Datum reason)
{
	current.wish = QML_WISH_LATER;
	current.delay = delay;
	current.reason = keep(reason);
}

/* The job is to be deleted. */
void
qml_current_discard(Datum reason)
{
	current.wish = QML_WISH_DISCARD;
	current.reason = keep(reason);
}

bool
qml_current_is(const pg_uuid_t *id, int attempt)
{
	return current.job && memcmp(&current.job->id, id, sizeof(pg_uuid_t)) == 0 &&
		   current.job->attempt == attempt;
}

/* At once, for others to see. */
void
qml_current_progress(Datum progress)
{
	Jsonb *document = DatumGetJsonbP(progress);
	Size size = VARSIZE(document);

	if (size > QML_MAX_SHOWN_PROGRESS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("argument \"%s\" is too large", "progress"),
				 errdetail("A job that runs in the database can show at most %d bytes.",
						   QML_MAX_SHOWN_PROGRESS)));
	if (current.progress != (Datum) 0)
		pfree(DatumGetPointer(current.progress));
	current.progress = keep(JsonbPGetDatum(document));
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	slot->progress.job = current.job->id;
	slot->progress.attempt = current.job->attempt;
	slot->progress.length = (int) size;
	memcpy(slot->progress.document, document, size);
	LWLockRelease(qml_shmem->lock);
	qml_wakeup_now(QML_WAKE_PROGRESS);
}

/* The scheduler takes what a worker said; false: nothing new. */
bool
qml_current_take_progress(QmlSlot *worker, QmlProgress *progress)
{
	bool found;

	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	found = worker->progress.length > 0;
	if (found)
		memcpy(progress, &worker->progress, sizeof(*progress));
	worker->progress.length = 0;
	LWLockRelease(qml_shmem->lock);
	return found;
}
