/*
 * counter_notes.c
 *		What a transaction does to the numbers of jobs.
 *
 * Whoever writes rows of jobs notes how many go from which state to which, and when finished
 * ones expire.  The same change of several jobs is one note (common/note_list.c).  When the
 * transaction has committed, the notes are added to the numbers in shared memory (counters.c),
 * before its client hears of the commit.  Until then only the transaction itself adds them to what
 * it reads.
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

#include "common/note_list.h"
#include "ipc/counter_notes.h"
#include "ipc/counters.h"
#include "ipc/shmem.h"
#include "ipc/watch.h"
#include "ipc/watch_notes.h"

/* At most; when half of these are different ones, there is no room for more. */
#define MOST_NOTES 65536

typedef struct Note
{
	SubTransactionId subxact;
	QmlCounterDelta delta;
} Note;

/* Whether two changes differ at most in the number of jobs. */
static bool
is_same(const void *note, const void *other)
{
	const QmlCounterDelta *a = &((const Note *) note)->delta;
	const QmlCounterDelta *b = &((const Note *) other)->delta;

	return a->queue == b->queue && a->from == b->from && a->to == b->to &&
		   a->from_until == b->from_until && a->to_until == b->to_until;
}

static void
add_count(void *note, const void *other)
{
	((Note *) note)->delta.count += ((const Note *) other)->delta.count;
}

static int
compare_uint32(uint32 a, uint32 b)
{
	return a < b ? -1 : a > b;
}

static int
compare_changes(const void *note, const void *other)
{
	const QmlCounterDelta *a = &((const Note *) note)->delta;
	const QmlCounterDelta *b = &((const Note *) other)->delta;
	int order = compare_uint32((uint32) a->queue, (uint32) b->queue);

	if (order == 0)
		order = compare_uint32(a->from, b->from);
	if (order == 0)
		order = compare_uint32(a->to, b->to);
	if (order == 0)
		order = compare_uint32(a->from_until, b->from_until);
	if (order == 0)
		order = compare_uint32(a->to_until, b->to_until);
	return order;
}

static const QmlNoteKind kind = {.size = sizeof(Note),
								 .part = 2,
								 .is_same = is_same,
								 .add = add_count,
								 .compare = compare_changes};
static Note few[QML_FEW_NOTES];
static QmlNoteList list = QML_NOTE_LIST(&kind, few);
static bool is_unknown = false;
static bool is_announced = false;

static Note *
note_at(int i)
{
	return (Note *) list.notes + i;
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
	for (int i = 0; i < list.count; i++)
	{
		if (i == 0 || note_at(i)->delta.queue != note_at(i - 1)->delta.queue)
			qml_watch_note_queue(note_at(i)->delta.queue);
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
		if (list.count > 2)
			qml_note_list_join(&list);
		qml_counters_apply(xid, &note_at(0)->delta, sizeof(Note), list.count);
	}
	note_for_watchers();
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			if (list.count == 0 && !is_unknown)
				break;
			is_announced = true;
			(void) qml_counters_announce(GetTopTransactionIdIfAny());
			break;
		case XACT_EVENT_COMMIT:
			if (list.count > 0 || is_unknown)
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
	qml_note_list_forget(&list);
	is_unknown = false;
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	qml_note_list_end_subxact(&list, event, mine, parent);
}

/* Called while the server loads its preloaded libraries: otherwise there are no counters. */
void
qml_counter_notes_init(void)
{
	RegisterXactCallback(at_transaction_end, NULL);
	RegisterSubXactCallback(at_subtransaction_end, NULL);
}

/* ----- noting ----- */

/* Notes what becomes of jobs if the transaction commits. */
void
qml_counter_notes_add(const QmlCounterDelta *delta)
{
	Note note = {.delta = *delta};

	if (qml_shmem == NULL || is_unknown)
		return;
	Assert(IsTransactionState());
	is_unknown = !qml_note_list_add(&list, &note, MOST_NOTES);
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
	if (*place >= list.count)
		return false;
	*delta = note_at((*place)++)->delta;
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
	if (list.count > 2)
		qml_note_list_join(&list);
	if (list.count > most)
		return false;
	for (int i = 0; i < list.count; i++)
		deltas[(*count)++] = note_at(i)->delta;
	return true;
}
