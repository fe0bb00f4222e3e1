/*
 * counter_notes.c
 *		What a transaction does to the numbers of jobs.
 *
 * Whoever writes rows of jobs notes how many go from which state to which, and when finished
 * ones expire.  The same change of several jobs is one note.  What a subtransaction noted is
 * forgotten when that is rolled back.  When the transaction has committed, the notes are added to
 * the numbers in shared memory (counters.c), before its client hears of the commit.  Until then
 * only the transaction itself adds them to what it reads.
 *
 * Notes are in the order of the subtransactions that they belong to, the innermost last.  When a
 * subtransaction is committed into its parent, its notes become those of the parent.
 *
 * SQL that writes qml.live is told by a trigger (sql_maintain.c).  What it did is not known, and
 * neither is what does not fit: the rows are counted anew then.
 *
 * The notes of a prepared transaction are kept by prepared.c.
 *
 * At and after the commit, nothing may raise an error: memory is reserved when changes are noted.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "ipc/counter_notes.h"
#include "ipc/counters.h"
#include "ipc/shmem.h"
#include "ipc/watch.h"
#include "ipc/watch_notes.h"

/* Without an allocation; before they are put in order, so that equal ones meet; and at most. */
#define FEW_NOTES  16
#define SOME_NOTES 1024
#define MOST_NOTES 65536

/* So many of the last notes are looked at for one that is the same. */
#define LOOK_BACK 6

typedef struct Note
{
	QmlCounterDelta delta;
	SubTransactionId subxact;
} Note;

static Note few[FEW_NOTES];
static Note *notes = few; /* or in TopTransactionContext */
static int nnotes = 0;
static int room = FEW_NOTES;
static bool is_unknown = false;
static bool is_announced = false;

static void
forget_notes(void)
{
	notes = few;
	room = FEW_NOTES;
	nnotes = 0;
	is_unknown = false;
}

/* Whether two changes differ at most in the number of jobs. */
static bool
is_same(const QmlCounterDelta *a, const QmlCounterDelta *b)
{
	return a->queue == b->queue && a->from == b->from && a->to == b->to &&
		   a->from_until == b->from_until && a->to_until == b->to_until;
}

/* Adds to one of the last notes from `first` on; false: none is the same. */
static bool
add_to_last(const QmlCounterDelta *delta, int first, int end)
{
	first = Max(first, end - LOOK_BACK);
	for (int i = end - 1; i >= first; i--)
	{
		if (is_same(&notes[i].delta, delta))
		{
			notes[i].delta.count += delta->count;
			return true;
		}
	}
	return false;
}

static int
compare_uint32(uint32 a, uint32 b)
{
	return a < b ? -1 : a > b;
}

/* By subtransaction, and then so that the same changes are neighbours. */
static int
compare_notes(const void *a, const void *b)
{
	const Note *one = a;
	const Note *other = b;
	int order = compare_uint32(one->subxact, other->subxact);

	if (order == 0)
		order = compare_uint32((uint32) one->delta.queue, (uint32) other->delta.queue);
	if (order == 0)
		order = compare_uint32(one->delta.from, other->delta.from);
	if (order == 0)
		order = compare_uint32(one->delta.to, other->delta.to);
	if (order == 0)
		order = compare_uint32(one->delta.from_until, other->delta.from_until);
	if (order == 0)
		order = compare_uint32(one->delta.to_until, other->delta.to_until);
	return order;
}

/* Makes one note of those that are the same. */
static void
join_notes(void)
{
	int kept = 0;

	qsort(notes, nnotes, sizeof(Note), compare_notes);
	for (int i = 1; i < nnotes; i++)
	{
		if (notes[i].subxact == notes[kept].subxact && is_same(&notes[i].delta, &notes[kept].delta))
			notes[kept].delta.count += notes[i].delta.count;
		else
			notes[++kept] = notes[i];
	}
	nnotes = kept + 1;
}

/* ----- callbacks of transactions ----- */

/* The transaction can be seen: who watches the database is told, after all else is done. */
static void
note_for_watchers(void)
{
	if (!qml_watch_is_on())
		return;
	if (is_unknown)
		qml_watch_note_everything();
	for (int i = 0; i < nnotes; i++)
	{
		if (i == 0 || notes[i].delta.queue != notes[i - 1].delta.queue)
			qml_watch_note_queue(notes[i].delta.queue);
	}
}

static void
tell_committed(void)
{
	TransactionId xid = GetTopTransactionIdIfAny();

	if (is_unknown)
		qml_counters_forget(MyDatabaseId);
	else
	{
		/* Those of a queue follow one another, so that readers see all of them or none. */
		if (nnotes > 2)
			join_notes();
		qml_counters_apply(xid, &notes[0].delta, sizeof(Note), nnotes);
	}
	note_for_watchers();
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			if (nnotes == 0 && !is_unknown)
				break;
			is_announced = true;
			(void) qml_counters_announce(GetTopTransactionIdIfAny());
			break;
		case XACT_EVENT_COMMIT:
			if (nnotes > 0 || is_unknown)
				tell_committed();
			break;
		default:
			break;
	}
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	if (is_announced)
		(void) qml_counters_announce(InvalidTransactionId);
	is_announced = false;
	/* Also if there are none any more: the memory of those that were rolled back is gone. */
	forget_notes();
}

/* The notes of a subtransaction, and of its own ones, which have ids above its own. */
static int
first_of(SubTransactionId mine)
{
	int first = nnotes;

	while (first > 0 && notes[first - 1].subxact >= mine)
		first--;
	return first;
}

/* They become those of the parent, and are added to its own where these are the same. */
static void
hand_up(SubTransactionId mine, SubTransactionId parent)
{
	int first = first_of(mine);
	int end = nnotes;
	int parents = first;

	while (parents > 0 && notes[parents - 1].subxact >= parent && parents > first - LOOK_BACK)
		parents--;
	nnotes = first;
	for (int i = first; i < end; i++)
	{
		Note note = notes[i];

		if (add_to_last(&note.delta, parents, nnotes))
			continue;
		note.subxact = parent;
		notes[nnotes++] = note;
	}
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	if (nnotes == 0)
		return;
	if (event == SUBXACT_EVENT_ABORT_SUB)
		nnotes = first_of(mine);
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
		hand_up(mine, parent);
}

/* Called while the server loads its preloaded libraries: otherwise there are no counters. */
void
qml_counter_notes_init(void)
{
	RegisterXactCallback(at_transaction_end, NULL);
	RegisterSubXactCallback(at_subtransaction_end, NULL);
}

/* ----- noting ----- */

/* Makes room for one more note; false: there is none. */
static bool
grow_notes(void)
{
	int wanted = Min(room * 4, MOST_NOTES);
	Note *more;

	if (nnotes >= SOME_NOTES)
		join_notes();
	if (nnotes < room / 2)
		return true;
	if (room == MOST_NOTES)
		return false;
	more = MemoryContextAlloc(TopTransactionContext, sizeof(Note) * wanted);
	memcpy(more, notes, sizeof(Note) * nnotes);
	if (notes != few)
		pfree(notes);
	notes = more;
	room = wanted;
	return true;
}

/* Notes what becomes of jobs if the transaction commits. */
void
qml_counter_notes_add(const QmlCounterDelta *delta)
{
	SubTransactionId mine;
	int first = nnotes;

	if (qml_shmem == NULL || is_unknown)
		return;
	Assert(IsTransactionState());
	mine = GetCurrentSubTransactionId();
	while (first > 0 && first > nnotes - LOOK_BACK && notes[first - 1].subxact >= mine)
		first--;
	if (add_to_last(delta, first, nnotes))
		return;
	if (nnotes == room && !grow_notes())
	{
		is_unknown = true;
		return;
	}
	notes[nnotes].delta = *delta;
	notes[nnotes++].subxact = mine;
}

/* SQL is going to change rows of jobs. */
void
qml_counter_notes_sql(void)
{
	if (qml_shmem)
		is_unknown = true;
}

/* Whether the transaction has changed jobs in a way that is not known. */
bool
qml_counter_notes_are_unknown(void)
{
	return is_unknown;
}

/* The notes one after the other, *place being 0 at first; false: there are no more. */
bool
qml_counter_notes_next(int *place, QmlCounterDelta *delta)
{
	if (*place >= nnotes)
		return false;
	*delta = notes[(*place)++].delta;
	return true;
}

/*
 * The notes of a transaction that is being prepared.  False: they are not known, or do not fit.
 * This must not raise an error.
 */
bool
qml_counter_notes_copy(QmlCounterDelta *deltas, int most, int *count)
{
	*count = 0;
	if (is_unknown)
		return false;
	if (nnotes > 2)
		join_notes();
	if (nnotes > most)
		return false;
	for (int i = 0; i < nnotes; i++)
		deltas[(*count)++] = notes[i].delta;
	return true;
}
