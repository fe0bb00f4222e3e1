/*
 * ready_list.c
 *		The next ready jobs of each queue, in shared memory.
 *
 * A claim takes jobs from the list of a queue, and goes straight to their rows.  So it walks
 * over no index entries of jobs that are finished or running, whatever keeps vacuum from removing
 * them.  An entry is a hint: whoever takes it looks whether the row is that of the job,
 * and still ready (jobs/claim_list.c).  What must never happen is that a ready job stays out of
 * the list that claims are content with.  A list has a bound for that:
 *
 *		Each committed ready job before the bound has an entry, or was taken by a transaction
 *		that is under way, or became ready in one that is about to add it.
 *
 * The bound is a key, or the end of the queue.  Whatever cannot be had otherwise, because there
 * is no room or too much to remember, lowers it, which is always right.  It is kept so:
 *
 * - A transaction that makes jobs ready adds them after it has become visible, and before its
 *   client hears of it (ready_note.c).  Those behind the bound are left to whoever walks there.
 * - One that takes entries puts them back when it is rolled back, and so does a claim with those
 *   that it does not want.
 * - Behind the bound, one session at a time fills the list up by a walk over the index, with a
 *   snapshot that is taken after it has announced that.  A job that it does not see is added
 *   later, by a transaction that knows of the fill and notes the key.  The fill ends before
 *   that key.
 * - Whoever changes qml.live by SQL makes the database forget all of its lists, when the change
 *   has become visible and when it was rolled back (ready_queues.c).
 *
 * All of it is lost in a crash, and nothing of it is written to disk.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "ipc/ready_list.h"
#include "ipc/ready_queues.h"

/* Fewer entries than these, and the list is filled up. */
#define LOW 32

/* Entries of the first fill; each one that follows has twice as many, up to these. */
#define FIRST_FILL 64
#define LAST_FILL  512

/* The fill of this session; number 0: none. */
static QmlReadyFill my_fill;

/* A list, with its store locked. */
typedef struct Place
{
	QmlReadyStore *store;
	QmlReadyDatabase *database; /* NULL: it has no lists, and so this is none */
	QmlReadyList *list;			/* NULL: none */
} Place;

/* Locks the list of a queue, if it has one; make: if not, begins one that promises nothing. */
static Place
lock_list(int queue, bool make)
{
	Place place = {.store = qml_ready_store_lock(MyDatabaseId, queue)};
	uint32 generation;

	place.database = qml_ready_queues_mine();
	if (place.database == NULL)
		return place;
	place.list = qml_ready_store_find(place.store, MyDatabaseId, queue);
	if (place.list == NULL && make)
		place.list = qml_ready_store_make(place.store, MyDatabaseId, queue);
	generation = pg_atomic_read_u32(&place.database->generation);
	if (place.list && place.list->generation != generation)
	{
		qml_ready_store_clear(place.store, place.list);
		place.list->generation = generation;
	}
	return place;
}

/* Unlocks it, after it was changed: tells whether the queue may have ready jobs. */
static void
unlock_list(const Place *place)
{
	const QmlReadyList *list = place->list;

	if (list && list->bound.reach == QML_REACH_ALL && list->count == 0)
		qml_ready_queues_clear(place->database, list->queue);
	else if (list)
		qml_ready_queues_set(place->database, list->queue);
	qml_ready_store_unlock(place->store);
}

/* What a list has given of those that were wanted, of a part of it or of all. */
static QmlReadyAnswer
answer(const QmlReadyList *list, int count, int wanted, bool partly)
{
	QmlReadyAnswer result = {.count = count, .is_low = true};

	if (list == NULL)
		return result;
	result.has = list->count;
	result.bound = list->bound;
	result.all = list->bound.reach == QML_REACH_ALL;
	/* If none is wanted of those that it has, it takes more of them as long as there is room. */
	result.is_low = !result.all &&
					(list->count < Max(LOW, 2 * wanted) ||
					 (count == 0 && !partly && list->count + LAST_FILL <= QML_READY_MOST));
	return result;
}

typedef int (*Give)(QmlReadyStore *store, QmlReadyList *list, const QmlReadyPart *part,
					QmlReadyEntry *entries, int most);

static QmlReadyAnswer
give(Give how, int queue, const QmlReadyPart *part, QmlReadyEntry *entries, int most)
{
	Place place = lock_list(queue, false);
	int count = 0;
	QmlReadyAnswer result;

	if (place.list)
		count = how(place.store, place.list, part, entries, most);
	result = answer(place.list, count, most, part->before != NULL);
	unlock_list(&place);
	return result;
}

/* Takes up to `most` entries of a part out of a list. */
QmlReadyAnswer
qml_ready_list_take(int queue, const QmlReadyPart *part, QmlReadyEntry *entries, int most)
{
	return give(qml_ready_store_take, queue, part, entries, most);
}

/* The same for entries that stay in the list. */
QmlReadyAnswer
qml_ready_list_look(int queue, const QmlReadyPart *part, QmlReadyEntry *entries, int most)
{
	return give(qml_ready_store_look, queue, part, entries, most);
}

/* Where the entry of a ready job is; a queue without a list must be known to have some. */
QmlReadyFound
qml_ready_list_find(int queue, const QmlReadyKey *key)
{
	Place place = lock_list(queue, false);
	QmlReadyFound found = QML_READY_BEYOND;

	if (place.list && qml_ready_is_before(key, &place.list->bound))
		found = qml_ready_store_has(place.store, place.list, key) ? QML_READY_LISTED :
																	QML_READY_MISSING;
	else if (place.list == NULL && place.database && !qml_ready_queues_has(place.database, queue))
		found = QML_READY_MISSING;
	unlock_list(&place);
	return found;
}

/* Whether a queue is known to have no ready jobs. */
bool
qml_ready_list_is_empty(int queue)
{
	Place place = lock_list(queue, false);
	bool empty = place.database && !qml_ready_queues_has(place.database, queue);

	if (place.list)
		empty = place.list->bound.reach == QML_REACH_ALL && place.list->count == 0;
	unlock_list(&place);
	return empty;
}

/* A job from behind the bound has become ready. */
static void
note_late(QmlReadyList *list, const QmlReadyKey *key)
{
	if (list->fill == 0 || (list->has_late && qml_ready_compare(&list->late, key) <= 0))
		return;
	list->has_late = true;
	list->late = *key;
}

/*
 * Jobs have become ready, or are so again: adds those that the list must have.  One whose row
 * is not known lowers the bound.
 */
void
qml_ready_list_add(int queue, const QmlReadyEntry *entries, int count)
{
	Place place = lock_list(queue, false);
	QmlReadyList *list = place.list;

	for (int i = 0; list && i < count; i++)
	{
		if (!qml_ready_is_before(&entries[i].key, &list->bound))
			note_late(list, &entries[i].key);
		else if (ItemPointerIsValid(&entries[i].root))
			qml_ready_store_insert(place.store, list, &entries[i]);
		else
			qml_ready_store_cut(place.store, list, &entries[i].key);
	}
	if (place.database && list == NULL)
		qml_ready_queues_set(place.database, queue);
	unlock_list(&place);
}

/* Somebody takes a job that may be in the list: removes its entry, and gives it. */
bool
qml_ready_list_remove(int queue, const QmlReadyKey *key, QmlReadyEntry *removed)
{
	Place place = lock_list(queue, false);
	bool found = place.list && qml_ready_store_remove(place.store, place.list, key, removed);

	unlock_list(&place);
	return found;
}

/*
 * Begins to add what is behind the bound of a list.  False: it has everything, or somebody else
 * is at it.  The caller takes a snapshot after this, walks from fill->from on, and ends the fill;
 * if it cannot, it is canceled when the transaction is rolled back.
 */
bool
qml_ready_list_begin_fill(int queue, QmlReadyFill *fill)
{
	Place place = lock_list(queue, true);
	QmlReadyList *list = place.list;
	bool begins = list && list->bound.reach != QML_REACH_ALL && list->fill == 0;

	Assert(my_fill.number == 0);
	if (begins)
	{
		list->fill = qml_ready_store_number(place.store);
		list->has_late = false;
		fill->queue = queue;
		fill->number = list->fill;
		fill->from = list->bound;
		list->last_fill = Min(LAST_FILL, Max(FIRST_FILL, 2 * list->last_fill));
		fill->most = list->last_fill;
		my_fill = *fill;
	}
	unlock_list(&place);
	return begins;
}

/* The list of a fill, unless it was forgotten or cut since that began. */
static QmlReadyList *
list_of_fill(const Place *place, const QmlReadyFill *fill)
{
	return place->list && place->list->fill == fill->number ? place->list : NULL;
}

/*
 * Ends a fill: these are the ready jobs from where it began up to the bound.  Of what became
 * ready meanwhile only the first key is known, so the list ends there.
 */
void
qml_ready_list_end_fill(const QmlReadyFill *fill, const QmlReadyEntry *entries, int count,
						const QmlReadyBound *bound)
{
	Place place = lock_list(fill->queue, false);
	QmlReadyList *list = list_of_fill(&place, fill);

	my_fill.number = 0;
	if (list)
	{
		list->bound = *bound;
		if (list->has_late && qml_ready_is_before(&list->late, bound))
		{
			list->bound.reach = QML_REACH_KEY;
			list->bound.key = list->late;
		}
		list->fill = 0;
		list->has_late = false;
	}
	/* One that finds no room lowers the bound. */
	for (int i = 0; list && i < count; i++)
	{
		if (qml_ready_is_before(&entries[i].key, &list->bound))
			qml_ready_store_insert(place.store, list, &entries[i]);
	}
	unlock_list(&place);
}

/* The fill that this session has begun and not ended, if any, will not be ended. */
void
qml_ready_list_cancel_fill(void)
{
	Place place;
	QmlReadyList *list;

	if (my_fill.number == 0)
		return;
	place = lock_list(my_fill.queue, false);
	list = list_of_fill(&place, &my_fill);
	my_fill.number = 0;
	if (list)
	{
		list->fill = 0;
		list->has_late = false;
	}
	unlock_list(&place);
}
