/*
 * watching.c
 *		Sessions that watch what changes in their database.
 *
 * What is told of, and how none of it is lost: ipc/watch.c.  A session watches what its role may
 * monitor:
 * - the queues that the capability was granted on, and what belongs to no queue.  It is not told
 *   of others, nor by a version, nor by when it is told.  Queues are told apart by id, modulo
 *   QML_WATCH_QUEUES.
 * - all queues but qml's own, if it was granted on all; the owner of the extension that one, too.
 * Rights are read again before each look, so what is revoked ends with the next change.
 *
 * Each look is a transaction of its own, and the sleep is in one that has no snapshot and no lock
 * (session_sleep.c).
 */
#include "postgres.h"

#include "executor/spi.h"
#include "storage/ipc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "common/cache.h"
#include "common/clock.h"
#include "common/fault.h"
#include "common/wait_event.h"
#include "compat.h"
#include "ipc/watch.h"
#include "ipc/watch_notes.h"
#include "jobs/session_sleep.h"
#include "jobs/watching.h"
#include "model/acl.h"
#include "model/queue.h"

/* Milliseconds: who was woken and has found nothing rests, because that may go on. */
#define REST_AFTER_LOOK 100

/* One call. */
typedef struct Watching
{
	const int64 *since;
	int64 deadline; /* monotonic, milliseconds */
	int64 rest_end; /* the same: no look before */
	QmlWatchSet set;
	bool has_set;
	int64 rights_at; /* a version: the set is what may be seen since then, or later */
	int64 version;
} Watching;

/* ----- what changes ----- */

/* QmlCache: the session has written rows of one of the small tables. */
static void
note_written(Oid relid, int32 id)
{
	const char *table;

	if (id >= 0)
	{
		/* It may be new, and its name one that a right was granted on. */
		qml_watch_note_queue(id);
		qml_watch_note_rights();
		return;
	}
	table = get_rel_name(relid);
	if (table && strcmp(table, "acl_data") == 0)
		qml_watch_note_rights();
	else if (table && strcmp(table, "queue_data") == 0)
		qml_watch_note_everything();
	else
		qml_watch_note_common();
}

void
qml_watching_init(void)
{
	qml_cache_report_writes(note_written);
}

/* Something of a queue has changed that its name stands for, also if there is no such queue. */
void
qml_watching_note_queue(const char *name)
{
	const QmlQueue *queue = qml_queue_by_name_or_dropped(name);

	if (queue)
		qml_watch_note_queue(queue->id);
	else
		qml_watch_note_unknown_queue();
}

/* ----- what a role sees ----- */

static void
add_granted(QmlWatchSet *set)
{
	ListCell *lc;

	qml_watch_add(set, QML_WATCH_COMMON);
	qml_watch_add(set, QML_WATCH_RIGHTS);
	foreach(lc, qml_acl_queues(QML_CAN_MONITOR))
	{
		/* Of one that is dropped, it is told that it was. */
		const QmlQueue *queue = qml_queue_by_name_or_dropped(lfirst(lc));

		if (queue)
			qml_watch_add(set, qml_watch_cell_of(queue->id));
	}
}

/*
 * Reads what the current user may monitor; raises 42501 if nothing.  True: it is not what it was
 * at the last look.
 */
static bool
read_rights(Watching *watching)
{
	QmlWatchSet before = watching->set;

	/* A change of rights that is told after this has a higher version. */
	watching->rights_at = qml_watch_take_rights();
	qml_acl_require_any(QML_CAN_MONITOR);
	qml_watch_set_own_queue(qml_queue_own_id());
	memset(&watching->set, 0, sizeof(watching->set));
	if (qml_acl_allow(QML_CAN_MONITOR, NULL))
		qml_watch_add(&watching->set, QML_WATCH_ALL);
	else
		add_granted(&watching->set);
	if (qml_acl_is_owner())
		qml_watch_add(&watching->set, QML_WATCH_OWN);
	if (watching->has_set && memcmp(&before, &watching->set, sizeof(before)) != 0)
		return true;
	watching->has_set = true;
	return false;
}

/* ----- waiting ----- */

/* Sleeps until this time, or the deadline; if it may be woken, until then. */
static void
sleep_until(const Watching *watching, int64 end, bool may_be_woken)
{
	static uint32 wait_event = 0;

	if (wait_event == 0)
		wait_event = qml_wait_event("QmlWatch");
	end = Min(end, watching->deadline);
	for (;;)
	{
		int64 left = end - qml_clock_monotonic_ms();

		if (left <= 0 || (may_be_woken && qml_watch_is_woken()))
			return;
		qml_session_sleep(left, wait_event);
	}
}

/* Looks, in a transaction that ends with the look; the session is woken by what comes later. */
static QmlWatchFound
look(Watching *watching)
{
	bool others = read_rights(watching);
	QmlWatchFound found;

	qml_watch_expect(&watching->set);
	QML_FAULT("watch.before_look");
	found = qml_watch_look(&watching->set, watching->since, watching->rights_at,
						   &watching->version);
	SPI_commit();
	QML_FAULT("watch.before_sleep");
	return others ? QML_WATCH_CHANGED : found;
}

/* Looks and sleeps in turn; true: something has changed. */
static bool
look_and_sleep(Watching *watching)
{
	MemoryContext call = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(call, "qml look", ALLOCSET_DEFAULT_SIZES);

	bool woken = false;

	for (;;)
	{
		QmlWatchFound found;
		int64 now = qml_clock_monotonic_ms();

		if (now < watching->rest_end)
		{
			sleep_until(watching, watching->rest_end, false);
			now = qml_clock_monotonic_ms();
			if (now < watching->rest_end)
				return false;
		}
		MemoryContextSwitchTo(context);
		found = look(watching);
		MemoryContextSwitchTo(call);
		MemoryContextReset(context);
		if (found == QML_WATCH_CHANGED)
			return true;
		if (now >= watching->deadline)
			return false;
		if (found == QML_WATCH_ASK_RIGHTS)
			continue;
		if (woken)
			watching->rest_end = now + REST_AFTER_LOOK;
		else
			sleep_until(watching, watching->deadline, true);
		woken = !woken;
	}
}

/* Also called when the process exits. */
static void
end_watching(int code, Datum arg)
{
	qml_watch_end();
}

/*
 * Waits until something has changed since a version (NULL: that is so) that the current user may
 * monitor, for at most `timeout` microseconds.  True: it has, and *version is the one to go on
 * with.
 */
bool
qml_watching_wait(const int64 *since, int64 timeout, int64 *version)
{
	Watching watching = {.since = since};
	int64 now = qml_clock_monotonic_ms();
	bool changed;

	watching.deadline = now + (timeout + 999) / 1000;
	if (since)
		watching.rest_end = now + qml_watch_rest(*since);
	qml_session_begin_call();
	PG_ENSURE_ERROR_CLEANUP(end_watching, (Datum) 0);
	{
		if (!qml_watch_begin())
			ereport(ERROR,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("sessions watch too many databases"),
					 errhint("Try again when fewer databases are watched at the same time.")));
		SPI_commit();
		changed = look_and_sleep(&watching);
	}
	PG_END_ENSURE_ERROR_CLEANUP(end_watching, (Datum) 0);
	end_watching(0, (Datum) 0);
	qml_session_end_call();
	*version = watching.version;
	return changed;
}
