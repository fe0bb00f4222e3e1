/*
 * ready_note.c
 *		What a transaction does to ready jobs, told to their lists when it ends.
 *
 * A transaction notes each job that it makes ready, and each that was ready and that it takes
 * (claims, finishes, deletes or changes).
 *
 * - What it takes leaves the list at once: the claims of others need not step over its row.  When
 *   the transaction, or the subtransaction, is rolled back, the job is put back.  What changes a row
 *   by itself notes it before: others may see the change, and an error may come, at any moment
 *   after that.
 * - What it makes is added when it has committed.  The callback runs after the transaction has
 *   become visible, and before its client hears of the commit and sleepers are woken
 *   (wakeup.c).  So whoever is told of a job finds it.
 *
 * What was noted too much does no harm, because entries are hints: a job that was made and taken
 * by the same transaction is added, and whoever takes the entry finds that it is not ready.
 *
 * A transaction that makes or takes very many jobs remembers only the first key of each queue, and
 * lists end before that then.  What SQL does to qml.live, which only its owner and superusers can,
 * is not known by row: the database forgets its lists when such a transaction ends, and its own
 * claims do without them.  A trigger tells of it before the first row is written (sql_maintain.c).
 *
 * What a prepared transaction did is kept by prepared.c until it has ended, in the same form: its
 * jobs one by one, or the first key of each queue, or that it is not known.
 *
 * At and after the commit, nothing may raise an error: memory is reserved when jobs are noted.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "ipc/ready_list.h"
#include "ipc/ready_note.h"
#include "ipc/ready_queues.h"
#include "ipc/wakeup.h"

/* Jobs that a transaction remembers one by one. */
#define MOST_NOTES 8192

/* Queues of which it remembers the first key, if it has more. */
#define MOST_FIRSTS 64

/* A job that was made ready, or taken; its entry has the same number. */
typedef struct Note
{
	int queue;
	SubTransactionId subxact;
	bool made;
} Note;

/* Of a queue with jobs that are not remembered one by one. */
typedef struct First
{
	int queue;
	SubTransactionId last; /* that took one */
	bool has_made;
	bool has_taken;
	QmlReadyEntry made; /* without rows: the list is cut there */
	QmlReadyEntry taken;
} First;

/* Both in TopTransactionContext; NULL: none. */
static Note *notes = NULL;
static QmlReadyEntry *entries = NULL;
static int nnotes = 0;
static int room = 0;

static First firsts[MOST_FIRSTS];
static int nfirsts = 0;

/* The database forgets its lists when the transaction ends: what it did is not known. */
static bool has_sql = false;	  /* SQL has changed qml.live */
static bool is_countless = false; /* in more queues than can be remembered */

static bool has_made = false;
static bool has_taken = false;

/*
 * Entries that were taken, and whose rows are yet to be looked at: of each claim that is under way.
 * There may be several, because a function of a user, which an index calls, may claim jobs itself.
 * In TopTransactionContext; NULL: none.
 */
typedef struct Unsettled
{
	SubTransactionId subxact;
	int count;
} Unsettled;

static Unsettled *unsettled = NULL;
static int nunsettled = 0;
static int unsettled_room = 0;

static void
forget(void)
{
	notes = NULL;
	entries = NULL;
	nnotes = 0;
	room = 0;
	nfirsts = 0;
	has_sql = false;
	is_countless = false;
	has_made = false;
	has_taken = false;
	unsettled = NULL;
	nunsettled = 0;
	unsettled_room = 0;
}

/* ----- telling the lists ----- */

/* Adds the jobs of one kind that a subtransaction, or a child of it, noted. */
static void
add_noted(bool made, SubTransactionId mine)
{
	int i = 0;

	while (i < nnotes)
	{
		int first = i;

		while (i < nnotes && notes[i].made == made && notes[i].subxact >= mine &&
			   notes[i].queue == notes[first].queue)
			i++;
		if (i > first)
			qml_ready_list_add(notes[first].queue, &entries[first], i - first);
		else
			i++;
	}
}

/* The transaction has committed. */
static void
tell_committed(void)
{
	if (has_sql || is_countless)
	{
		qml_ready_queues_forget(MyDatabaseId);
		return;
	}
	for (int i = 0; i < nfirsts; i++)
	{
		if (firsts[i].has_made)
			qml_ready_list_add(firsts[i].queue, &firsts[i].made, 1);
	}
	if (has_made)
		add_noted(true, TopSubTransactionId);
}

/* Forgets the claims of a subtransaction, or a child of it; returns whether there were any. */
static bool
cut_claims_off(SubTransactionId mine)
{
	int before = nunsettled;

	while (nunsettled > 0 && unsettled[nunsettled - 1].subxact >= mine)
		nunsettled--;
	return nunsettled < before;
}

/* A subtransaction, or the transaction, was rolled back. */
static void
tell_rolled_back(SubTransactionId mine)
{
	bool is_cut_off = cut_claims_off(mine);

	if (has_sql || is_countless)
	{
		qml_ready_queues_forget(MyDatabaseId);
		return;
	}
	for (int i = 0; i < nfirsts; i++)
	{
		if (firsts[i].has_taken && firsts[i].last >= mine)
			qml_ready_list_add(firsts[i].queue, &firsts[i].taken, 1);
	}
	if (has_taken)
		add_noted(false, mine);
	/* A claim was cut off.  Whoever looked meanwhile has not found what it had taken, and sleeps. */
	if (is_cut_off)
		qml_wakeup_for_returned();
}

/* ----- callbacks of transactions ----- */

static void
at_transaction_end(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	if (event == XACT_EVENT_COMMIT)
		tell_committed();
	if (event == XACT_EVENT_ABORT)
	{
		qml_ready_list_cancel_fill();
		tell_rolled_back(TopSubTransactionId);
	}
	forget();
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	int kept = 0;

	if (event != SUBXACT_EVENT_ABORT_SUB)
		return;
	qml_ready_list_cancel_fill();
	tell_rolled_back(mine);
	for (int i = 0; i < nnotes; i++)
	{
		if (notes[i].subxact >= mine)
			continue;
		notes[kept] = notes[i];
		entries[kept++] = entries[i];
	}
	nnotes = kept;
}

/* Called while the server loads its preloaded libraries: otherwise there are no lists. */
void
qml_ready_note_init(void)
{
	RegisterXactCallback(at_transaction_end, NULL);
	RegisterSubXactCallback(at_subtransaction_end, NULL);
}

/* ----- noting ----- */

/* Makes room for so many notes, or for as many as are remembered. */
void
qml_ready_note_reserve(int count)
{
	int needed = Min(nnotes + count, MOST_NOTES);

	if (!qml_ready_queues_exist() || needed <= room)
		return;
	Assert(IsTransactionState());
	needed = Min(MOST_NOTES, Max(needed, Max(16, 2 * room)));
	if (notes == NULL)
	{
		notes = MemoryContextAlloc(TopTransactionContext, sizeof(Note) * needed);
		entries = MemoryContextAlloc(TopTransactionContext, sizeof(QmlReadyEntry) * needed);
	}
	else
	{
		notes = repalloc(notes, sizeof(Note) * needed);
		entries = repalloc(entries, sizeof(QmlReadyEntry) * needed);
	}
	room = needed;
}

/* Remembers the earlier one of two keys. */
static void
lower(bool *has, QmlReadyEntry *first, const QmlReadyEntry *entry)
{
	if (*has && qml_ready_compare(&first->key, &entry->key) <= 0)
		return;
	*first = *entry;
	ItemPointerSetInvalid(&first->root);
	*has = true;
}

/* A job for which there is no note: its queue is remembered, and where the list is to end. */
static void
note_first(int queue, const QmlReadyEntry *entry, bool made)
{
	First *first = NULL;

	for (int i = 0; i < nfirsts; i++)
	{
		if (firsts[i].queue == queue)
			first = &firsts[i];
	}
	if (first == NULL && nfirsts == MOST_FIRSTS)
	{
		is_countless = true;
		return;
	}
	if (first == NULL)
	{
		first = &firsts[nfirsts++];
		memset(first, 0, sizeof(*first));
		first->queue = queue;
	}
	if (made)
		lower(&first->has_made, &first->made, entry);
	else
	{
		lower(&first->has_taken, &first->taken, entry);
		first->last = Max(first->last, GetCurrentSubTransactionId());
	}
}

static void
note(int queue, const QmlReadyEntry *entry, bool made)
{
	Assert(IsTransactionState());
	if (made)
		has_made = true;
	else
		has_taken = true;
	if (nnotes == MOST_NOTES)
	{
		note_first(queue, entry, made);
		return;
	}
	Assert(nnotes < room);
	notes[nnotes].queue = queue;
	notes[nnotes].subxact = GetCurrentSubTransactionId();
	notes[nnotes].made = made;
	entries[nnotes++] = *entry;
}

/* A job is ready if the transaction commits. */
void
qml_ready_note_made(int queue, const QmlReadyEntry *entry)
{
	if (!qml_ready_queues_exist())
		return;
	qml_ready_note_reserve(1);
	note(queue, entry, true);
}

/* The latest note of a job that was taken; -1: none. */
static int
find_taken(int queue, const QmlReadyKey *key)
{
	int i = nnotes - 1;

	while (i >= 0 && (notes[i].made || notes[i].queue != queue ||
					  qml_ready_compare(&entries[i].key, key) != 0))
		i--;
	return i;
}

static void
remove_taken(int queue, const QmlReadyKey *key)
{
	int i = find_taken(queue, key);

	if (i < 0)
		return;
	nnotes--;
	memmove(&notes[i], &notes[i + 1], sizeof(Note) * (nnotes - i));
	memmove(&entries[i], &entries[i + 1], sizeof(QmlReadyEntry) * (nnotes - i));
}

/*
 * The row of a ready job is about to be changed: the job will be ready again if the transaction is
 * rolled back.  qml_ready_note_taken() follows, or qml_ready_note_left(), unless an error comes.
 */
void
qml_ready_note_taking(int queue, const QmlReadyEntry *entry)
{
	if (!qml_ready_queues_exist())
		return;
	qml_ready_note_reserve(1);
	note(queue, entry, false);
}

/* It was changed: others need not find it. */
void
qml_ready_note_taken(int queue, const QmlReadyEntry *entry)
{
	QmlReadyEntry removed;
	int i;

	/* Whoever has found the row by an index knows its root; if not, the list may. */
	if (!qml_ready_queues_exist() || !qml_ready_list_remove(queue, &entry->key, &removed) ||
		ItemPointerIsValid(&entry->root))
		return;
	i = find_taken(queue, &entry->key);
	if (i >= 0)
		entries[i] = removed;
}

/* It was not changed: its note, if there was room for one, would be one too much. */
void
qml_ready_note_left(int queue, const QmlReadyEntry *entry)
{
	if (qml_ready_queues_exist() && nnotes < MOST_NOTES)
		remove_taken(queue, &entry->key);
}

/* So many entries were taken by the claim that is under way. */
static void
add_unsettled(int count)
{
	SubTransactionId mine = GetCurrentSubTransactionId();

	if (count == 0)
		return;
	if (nunsettled == 0 || unsettled[nunsettled - 1].subxact != mine)
	{
		Assert(nunsettled < unsettled_room);
		unsettled[nunsettled].subxact = mine;
		unsettled[nunsettled++].count = 0;
	}
	unsettled[nunsettled - 1].count += count;
}

/* What became of the row of one of them is known.  A claim inside another one ends before it. */
static void
settle(void)
{
	Assert(nunsettled > 0 && unsettled[nunsettled - 1].count > 0);
	if (--unsettled[nunsettled - 1].count == 0)
		nunsettled--;
}

/* Makes room for a claim that takes so many. */
static void
reserve_claim(int count)
{
	qml_ready_note_reserve(count);
	if (nunsettled < unsettled_room)
		return;
	Assert(IsTransactionState());
	if (unsettled == NULL)
		unsettled = MemoryContextAlloc(TopTransactionContext, sizeof(Unsettled) * 4);
	else
		unsettled = repalloc(unsettled, sizeof(Unsettled) * 2 * unsettled_room);
	unsettled_room = unsettled_room == 0 ? 4 : 2 * unsettled_room;
}

/*
 * Takes entries out of the list of a queue (qml_ready_list_take).  Each is put back if the
 * transaction is rolled back, unless it is gone.
 */
QmlReadyAnswer
qml_ready_note_take(int queue, const QmlReadyPart *part, QmlReadyEntry *taken, int most)
{
	QmlReadyAnswer answer;

	reserve_claim(most);
	answer = qml_ready_list_take(queue, part, taken, most);
	for (int i = 0; i < answer.count; i++)
		note(queue, &taken[i], false);
	add_unsettled(answer.count);
	return answer;
}

/* The same for the entry with this key; false: it is not there any more. */
bool
qml_ready_note_take_one(int queue, QmlReadyEntry *entry)
{
	QmlReadyKey key = entry->key;

	reserve_claim(1);
	if (!qml_ready_list_remove(queue, &key, entry))
		return false;
	note(queue, entry, false);
	add_unsettled(1);
	return true;
}

/* The job of an entry that was taken is claimed. */
void
qml_ready_note_claimed(void)
{
	settle();
}

/* An entry that was taken is that of a job which is not ready. */
void
qml_ready_note_gone(int queue, const QmlReadyEntry *entry)
{
	settle();
	remove_taken(queue, &entry->key);
}

/* An entry that was taken is not needed, or cannot be had now. */
void
qml_ready_note_put_back(int queue, const QmlReadyEntry *entry)
{
	qml_ready_note_gone(queue, entry);
	qml_ready_list_add(queue, entry, 1);
}

/* SQL is going to change qml.live. */
void
qml_ready_note_sql(void)
{
	if (qml_ready_queues_exist())
		has_sql = true;
}

/* Whether the transaction has made jobs ready, or taken them, that it does not remember. */
bool
qml_ready_note_is_unknown(void)
{
	return has_sql || is_countless;
}

/*
 * The first one of the jobs that the transaction has made ready in a queue, which the list of that
 * has not yet.  False: none.
 */
bool
qml_ready_note_first_made(int queue, QmlReadyKey *key)
{
	QmlReadyEntry first;
	bool has = false;

	for (int i = 0; has_made && i < nnotes; i++)
	{
		if (notes[i].made && notes[i].queue == queue)
			lower(&has, &first, &entries[i]);
	}
	for (int i = 0; has_made && i < nfirsts; i++)
	{
		if (firsts[i].has_made && firsts[i].queue == queue)
			lower(&has, &first, &firsts[i].made);
	}
	if (has)
		*key = first.key;
	return has;
}

/* The lowest queue above `after` in which it has made jobs ready; 0: none. */
int
qml_ready_note_next_queue(int after)
{
	int next = 0;

	for (int i = 0; has_made && i < nnotes; i++)
	{
		if (notes[i].made && notes[i].queue > after && (next == 0 || notes[i].queue < next))
			next = notes[i].queue;
	}
	for (int i = 0; has_made && i < nfirsts; i++)
	{
		if (firsts[i].has_made && firsts[i].queue > after && (next == 0 || firsts[i].queue < next))
			next = firsts[i].queue;
	}
	return next;
}

/* ----- prepared transactions ----- */

/* Keeps a job; not alone: only the first one of its queue that was made, and that was taken. */
static void
keep_entry(QmlReadyKept *kept, int queue, bool made, const QmlReadyEntry *entry, bool alone)
{
	int at = kept->count;
	bool has = false;

	for (int i = 0; !alone && !has && i < kept->count; i++)
	{
		has = kept->queues[i] == queue && kept->made[i] == made;
		if (has)
			at = i;
	}
	if (at == QML_READY_KEPT)
	{
		kept->unknown = true;
		return;
	}
	if (at == kept->count)
		kept->count++;
	kept->queues[at] = queue;
	kept->made[at] = made;
	if (alone)
		kept->entries[at] = *entry;
	else
		lower(&has, &kept->entries[at], entry);
}

/*
 * What the transaction, which is being prepared, did to ready jobs: each of them, or if they are
 * too many, where lists are to end.  False: nothing.  This must not raise an error.
 */
bool
qml_ready_note_keep(QmlReadyKept *kept)
{
	bool alone = nnotes + 2 * nfirsts <= QML_READY_KEPT;

	kept->count = 0;
	kept->unknown = qml_ready_note_is_unknown();
	for (int i = 0; i < nnotes && !kept->unknown; i++)
		keep_entry(kept, notes[i].queue, notes[i].made, &entries[i], alone);
	for (int i = 0; i < nfirsts && !kept->unknown; i++)
	{
		if (firsts[i].has_made)
			keep_entry(kept, firsts[i].queue, true, &firsts[i].made, alone);
		if (firsts[i].has_taken && !kept->unknown)
			keep_entry(kept, firsts[i].queue, false, &firsts[i].taken, alone);
	}
	return kept->unknown || kept->count > 0;
}

/* It has ended, which can be seen: tells the lists. */
void
qml_ready_note_tell_kept(const QmlReadyKept *kept, bool committed)
{
	if (kept->unknown)
	{
		qml_ready_queues_forget(MyDatabaseId);
		return;
	}
	for (int i = 0; i < kept->count; i++)
	{
		if (kept->made[i] == committed)
			qml_ready_list_add(kept->queues[i], &kept->entries[i], 1);
	}
}
