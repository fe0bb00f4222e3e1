/*
 * worker_pool.c
 *		Which worker the launcher starts next.
 *
 * Schedulers ask for workers, one more for a role at a time.  The database with the
 * fewest workers comes first, then the role with the fewest, then the one that has
 * waited longest.  If its database or the server is full, a role without any worker gets
 * the slot of another one: of a worker that is idle, of one whose database or role has
 * more than one, or of one that has been at work for a while.  That worker ends after
 * its job and asks again, so that roles take turns.  A role that has some workers gets
 * only the slot of an idle one.
 *
 * As many workers are asked to leave as slots are needed, one that becomes idle at once, and
 * one more after each turn in which none has left, because jobs may be long.  When no slot is
 * needed any more, those that have not left stay.
 *
 * Called by the launcher only, whose memory it is in: what is wanted is lost with it, and
 * schedulers ask again.
 */
#include "postgres.h"

#include "nodes/pg_list.h"
#include "utils/memutils.h"

#include "common/guc.h"
#include "ipc/dispatch.h"
#include "ipc/slots.h"
#include "process/worker_pool.h"

/* Milliseconds.  A turn: how long a worker may go on when others wait for its slot. */
#define TURN		1000
#define RETRY_FIRST 1000
#define MAX_BACKOFF 60000

/* How readily the slot of a worker is taken for another: see rate_victim(). */
#define VICTIM_NOT	   0 /* not at all, or not now */
#define VICTIM_TURN	   1 /* it has had its turn */
#define VICTIM_SURPLUS 2 /* its database or role has others */
#define VICTIM_IDLE	   3 /* it has nothing to do */

static List *wanted_list = NIL;
static int needed = 0; /* slots, in this round */

static QmlWanted *
find_wanted(Oid database, Oid role)
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
find_or_add_wanted(Oid database, Oid role)
{
	QmlWanted *wanted = find_wanted(database, role);
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

/* At the begin of a round: takes what schedulers have asked for. */
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
		QmlWanted *wanted = find_or_add_wanted(requests[i].database, requests[i].role);

		if (!wanted->open)
			wanted->since = now;
		wanted->open = true;
	}
}

/* Whether a is to get a worker before b. */
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

/* In this round: how many roles of a database wait until there is room for one more worker. */
int
qml_worker_pool_count_waiting(Oid database)
{
	int count = 0;
	ListCell *lc;

	foreach(lc, wanted_list)
	{
		const QmlWanted *wanted = lfirst(lc);

		if (wanted->database == database && wanted->open && wanted->tried && qml_workers > 0)
			count++;
	}
	return count;
}

/* The role that gets a worker next, or NULL.  Its database may be full. */
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

/* Forgets what is known of a role; it is not wanted, and has no failures. */
static void
remove_wanted(QmlWanted *wanted)
{
	wanted_list = list_delete_ptr(wanted_list, wanted);
	pfree(wanted);
}

/* It has got its worker, or is to get none. */
void
qml_worker_pool_note_started(QmlWanted *wanted)
{
	Assert(wanted->open);
	wanted->open = false;
	if (wanted->failures == 0)
		remove_wanted(wanted);
}

/* A worker has ended.  If it could not connect or work, its role has to wait for the next. */
void
qml_worker_pool_note_ended(Oid database, Oid role, QmlOutcome outcome, int64 now)
{
	QmlWanted *wanted;

	if (outcome != QML_ENDED_EARLY && outcome != QML_ENDED_FAILED)
	{
		wanted = find_wanted(database, role);
		if (wanted)
			wanted->failures = 0;
		if (wanted && !wanted->open)
			remove_wanted(wanted);
		return;
	}
	wanted = find_or_add_wanted(database, role);
	wanted->not_before = now + Min((int64) RETRY_FIRST << Min(wanted->failures, 10), MAX_BACKOFF);
	wanted->failures++;
	wanted->failed_at = GetCurrentTimestamp();
}

/*
 * A worker of the role, started at that time, has been at work for a while.  So others
 * can be too, unless one has failed since it started.
 */
void
qml_worker_pool_note_working(Oid database, Oid role, TimestampTz started_at)
{
	QmlWanted *wanted = find_wanted(database, role);

	if (wanted == NULL || started_at <= wanted->failed_at)
		return;
	wanted->failures = 0;
	if (!wanted->open)
		remove_wanted(wanted);
}

/* What kept the workers of a database, or (InvalidOid) of all, from working may be gone. */
void
qml_worker_pool_retry(Oid database)
{
	ListCell *lc;

	foreach(lc, wanted_list)
	{
		QmlWanted *wanted = lfirst(lc);

		if (!OidIsValid(database) || wanted->database == database)
			wanted->not_before = 0;
	}
}

/*
 * How readily the slot is taken for what is wanted; for a scheduler (wanted is NULL) the
 * worker need not have had its turn.  If only the database is full, a slot of another database
 * is of no use.
 */
static int
rate_victim(const QmlSlotView *slot, const QmlWanted *wanted, bool server_is_full, int64 now)
{
	bool own = wanted && slot->database == wanted->database;

	if (slot->kind != QML_WORKER || slot->state != QML_SLOT_RUNNING || slot->leave)
		return VICTIM_NOT;
	if (!server_is_full && !own)
		return VICTIM_NOT;
	if (slot->idle)
		return VICTIM_IDLE;
	if (qml_slots_count_workers(slot->database, own ? slot->role : InvalidOid) > 1)
		return VICTIM_SURPLUS;
	if (wanted == NULL)
		return VICTIM_TURN;
	return now - slot->started_ms > TURN ? VICTIM_TURN : VICTIM_NOT;
}

/* Milliseconds until the first role that has to wait can be tried again. */
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
 * A slot is needed, also for those that were asked for in this round before: asks the worker to
 * leave whose slot is taken most readily, if it rates at least so high.  Returns whether a slot
 * is or will be free.
 */
static bool
make_one_leave(const QmlWanted *wanted, bool server_is_full, int least, int64 now)
{
	static int64 asked_at = PG_INT64_MIN / 2;
	QmlSlotView *slots = palloc(sizeof(QmlSlotView) * qml_shmem->nslots);
	int victim = -1;
	int leaving = 0;
	bool idle_leaves = false;
	int best = least - 1;
	bool found;
	bool ask;

	Assert(wanted != NULL || least != VICTIM_IDLE);
	qml_slots_copy_all(slots);
	for (int i = 0; i < qml_shmem->nslots; i++)
	{
		const QmlSlotView *slot = &slots[i];
		int value = rate_victim(slot, wanted, server_is_full, now);

		/* An idle worker of the role itself has been woken for the work. */
		if (least == VICTIM_IDLE && slot->database == wanted->database &&
			slot->role == wanted->role)
			continue;
		if (slot->kind == QML_WORKER && slot->state == QML_SLOT_RUNNING && slot->leave)
		{
			leaving++;
			idle_leaves = idle_leaves || slot->idle;
		}
		/* Of several the one that has been there longest. */
		if (value > best ||
			(victim >= 0 && value == best && slot->started_ms < slots[victim].started_ms))
		{
			best = value;
			victim = i;
		}
	}
	/* For one that gets an idle worker's slot only, the others that leave are of no use. */
	found = victim >= 0 || (least == VICTIM_IDLE ? idle_leaves : leaving > 0);
	if (found)
		needed++;
	ask = (best == VICTIM_IDLE && !idle_leaves) ||
		  (least != VICTIM_IDLE && (leaving < needed || now - asked_at >= TURN));
	if (victim >= 0 && ask &&
		qml_slots_ask_to_leave(&qml_shmem->slots[victim], slots[victim].generation))
	{
		asked_at = now;
		ereport(DEBUG1, (errmsg_internal("qml launcher: worker %d is asked to leave",
										 slots[victim].pid)));
	}
	pfree(slots);
	return found;
}

/*
 * At the end of a round: if no slot was needed, no worker has to leave any more.  If roles wait,
 * workers that become idle wake the launcher.
 */
void
qml_worker_pool_end_round(void)
{
	bool waiting = false;
	ListCell *lc;

	foreach(lc, wanted_list)
		waiting = waiting ||
				  (((QmlWanted *) lfirst(lc))->open && ((QmlWanted *) lfirst(lc))->tried);
	qml_dispatch_set_waiting(waiting);
	for (int i = 0; i < qml_shmem->nslots && needed == 0; i++)
	{
		QmlSlot *slot = &qml_shmem->slots[i];

		/* Read without the lock: the launcher alone reserves slots, and sets `leave`. */
		if (slot->kind == QML_WORKER && slot->state == QML_SLOT_RUNNING && slot->leave)
			qml_slots_let_stay(slot, slot->generation);
	}
	needed = 0;
}

/*
 * Makes room for a worker that is wanted.  Returns false if the role has workers already
 * and none of the others is idle: then it must make do with those.
 */
bool
qml_worker_pool_make_room(QmlWanted *wanted, bool server_is_full, int64 now)
{
	bool has_some = qml_slots_count_workers(wanted->database, wanted->role) > 0;
	bool found = make_one_leave(wanted, server_is_full, has_some ? VICTIM_IDLE : VICTIM_TURN, now);

	if (has_some && !found)
		return false;
	/* It keeps its place in the order. */
	wanted->tried = true;
	return true;
}

/* Makes room for a scheduler, without which its database gets no workers at all. */
void
qml_worker_pool_make_room_for_scheduler(int64 now)
{
	(void) make_one_leave(NULL, true, VICTIM_TURN, now);
}
