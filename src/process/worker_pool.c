/*
 * worker_pool.c
 *		Which worker the launcher starts next.
 *
 * Schedulers ask for workers, one more for a role at a time.  The database with the
 * fewest comes first, then the role with the fewest, then who has waited longest.  A
 * role that has none at all, and cannot get one because its database or the server
 * is full, takes the place of another: of a worker that is idle, of one of a
 * database or role that has more, or else of one that has been at work for a while.
 * That one ends after its job, and asks again, so that they take turns.
 *
 * What is wanted is lost with the launcher's memory; schedulers ask again.
 */
#include "postgres.h"

#include "nodes/pg_list.h"
#include "utils/memutils.h"

#include "common/guc.h"
#include "ipc/dispatch.h"
#include "ipc/slots.h"
#include "process/worker_pool.h"

/* Milliseconds. */
#define TURN		1000
#define RETRY_FIRST 1000
#define MAX_BACKOFF 60000

/* What the place of a worker that is idle is worth: see worth(). */
#define WORTH_IDLE 3

static List *wanted_list = NIL;

static QmlWanted *
find(Oid database, Oid role)
{
	ListCell *lc;

	foreach(lc, wanted_list)
	{
		QmlWanted *wanted = lfirst(lc);

		if (wanted->database == database && wanted->role == role)
			return wanted;
	}
	return NULL;
}

static QmlWanted *
find_or_add(Oid database, Oid role)
{
	QmlWanted *wanted = find(database, role);
	MemoryContext oldcontext;

	if (wanted)
		return wanted;
	oldcontext = MemoryContextSwitchTo(TopMemoryContext);
	wanted = palloc0(sizeof(QmlWanted));
	wanted->database = database;
	wanted->role = role;
	wanted_list = lappend(wanted_list, wanted);
	MemoryContextSwitchTo(oldcontext);
	return wanted;
}

/* A round begins: takes what schedulers asked for. */
void
qml_worker_pool_poll(int64 now)
{
	QmlRequest requests[QML_MAX_REQUESTS];
	int count = qml_dispatch_take_requests(requests);
	ListCell *lc;

	foreach(lc, wanted_list)
		((QmlWanted *) lfirst(lc))->tried = false;
	for (int i = 0; i < count; i++)
	{
		QmlWanted *wanted = find_or_add(requests[i].database, requests[i].role);

		if (!wanted->open)
			wanted->since = now;
		wanted->open = true;
	}
}

/* Whether a comes before b. */
static bool
comes_first(const QmlWanted *a, const QmlWanted *b)
{
	int difference = qml_slots_count_workers(a->database, InvalidOid) -
					 qml_slots_count_workers(b->database, InvalidOid);

	if (difference == 0)
		difference = qml_slots_count_workers(a->database, a->role) -
					 qml_slots_count_workers(b->database, b->role);
	return difference != 0 ? difference < 0 : a->since < b->since;
}

/* The one to start next; NULL: none.  Its database may be full. */
QmlWanted *
qml_worker_pool_next(int64 now)
{
	QmlWanted *first = NULL;
	ListCell *lc;

	foreach(lc, wanted_list)
	{
		QmlWanted *wanted = lfirst(lc);

		if (wanted->open && !wanted->tried && wanted->not_before <= now &&
			(first == NULL || comes_first(wanted, first)))
			first = wanted;
	}
	return first;
}

static void
forget(QmlWanted *wanted)
{
	wanted_list = list_delete_ptr(wanted_list, wanted);
	pfree(wanted);
}

/* It has got its worker, or shall get none. */
void
qml_worker_pool_note_started(QmlWanted *wanted)
{
	wanted->open = false;
	if (wanted->failures == 0)
		forget(wanted);
}

/* A worker ended; one that could not connect, or work, is not tried again at once. */
void
qml_worker_pool_note_ended(Oid database, Oid role, QmlOutcome outcome, int64 now)
{
	QmlWanted *wanted;

	if (outcome != QML_ENDED_EARLY && outcome != QML_ENDED_FAILED)
	{
		wanted = find(database, role);
		if (wanted)
			wanted->failures = 0;
		if (wanted && !wanted->open)
			forget(wanted);
		return;
	}
	wanted = find_or_add(database, role);
	wanted->not_before = now + Min((int64) RETRY_FIRST << Min(wanted->failures, 10), MAX_BACKOFF);
	wanted->failures++;
	wanted->failed_at = GetCurrentTimestamp();
}

/*
 * A worker of the role, started at that time, has been at work for a while: others can
 * be, unless one that came later could not.
 */
void
qml_worker_pool_note_working(Oid database, Oid role, TimestampTz started_at)
{
	QmlWanted *wanted = find(database, role);

	if (wanted == NULL || started_at <= wanted->failed_at)
		return;
	wanted->failures = 0;
	if (!wanted->open)
		forget(wanted);
}

/*
 * How well a worker's place can be had: the higher the better, 0 not at all.  A
 * scheduler (wanted is NULL) need not wait for its turn.
 */
static int
worth(const QmlSlotView *slot, const QmlWanted *wanted, bool server_is_full)
{
	bool own = wanted && slot->database == wanted->database;

	if (slot->kind != QML_WORKER || slot->state != QML_SLOT_RUNNING || slot->leave)
		return 0;
	if (!server_is_full && !own)
		return 0;
	if (slot->idle)
		return WORTH_IDLE;
	if (qml_slots_count_workers(slot->database, own ? slot->role : InvalidOid) > 1)
		return 2;
	if (wanted == NULL)
		return 1;
	return GetCurrentTimestamp() - slot->started_at > TURN * INT64CONST(1000) ? 1 : 0;
}

/* Milliseconds until one can be tried again that failed. */
int64
qml_worker_pool_time_left(int64 now)
{
	int64 left = PG_INT64_MAX;
	ListCell *lc;

	foreach(lc, wanted_list)
	{
		QmlWanted *wanted = lfirst(lc);

		if (wanted->open && wanted->not_before > now)
			left = Min(left, wanted->not_before - now);
	}
	return left;
}

/*
 * Makes the worker leave whose place can be had best, if it is worth so much, unless
 * one was told to just now.  One that has long to go for its job does not hold the
 * others up.  Whether there is such a place, or will be.
 */
static bool
make_one_leave(const QmlWanted *wanted, bool server_is_full, int least, int64 now)
{
	static int64 told = PG_INT64_MIN / 2;
	QmlSlotView *slots = palloc(sizeof(QmlSlotView) * qml_shmem->nslots);
	int victim = -1;
	bool leaving = false;
	int best = least - 1;

	qml_slots_copy_all(slots);
	for (int i = 0; i < qml_shmem->nslots; i++)
	{
		const QmlSlotView *slot = &slots[i];
		int value = worth(slot, wanted, server_is_full);

		/* An idle one of its own has been told of the work. */
		if (least == WORTH_IDLE && slot->database == wanted->database && slot->role == wanted->role)
			continue;

		leaving = leaving ||
				  (slot->kind == QML_WORKER && slot->state == QML_SLOT_RUNNING && slot->leave);
		/* Of several the one that has been there for longest. */
		if (value > best ||
			(victim >= 0 && value == best && slot->started_at < slots[victim].started_at))
		{
			best = value;
			victim = i;
		}
	}
	if (victim >= 0 && !(leaving && now - told < TURN) &&
		qml_slots_ask_to_leave(&qml_shmem->slots[victim], slots[victim].generation))
		told = now;
	pfree(slots);
	return victim >= 0 || leaving;
}

/*
 * Makes a worker leave for one that is wanted by a role that has none.  A role that
 * has some gets the place of one that is idle; if there is none: false, it has to do
 * with those.
 */
bool
qml_worker_pool_make_room(QmlWanted *wanted, bool server_is_full, int64 now)
{
	bool has_some = qml_slots_count_workers(wanted->database, wanted->role) > 0;
	bool found = make_one_leave(wanted, server_is_full, has_some ? WORTH_IDLE : 1, now);

	if (has_some && !found)
		return false;
	/* It keeps its turn: nobody who comes later is started before it. */
	wanted->tried = true;
	return true;
}

/* Makes a worker leave for a scheduler, without which there are none in its database. */
void
qml_worker_pool_make_room_for_scheduler(int64 now)
{
	(void) make_one_leave(NULL, true, 1, now);
}
