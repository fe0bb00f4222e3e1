/*
 * claim_list.c
 *		Claiming the ready jobs of a queue from its list in shared memory.
 *
 * An entry of the list (ipc/ready_list.c) is taken out first, and then a snapshot is taken.  So the
 * snapshot sees everything because of which the entry was there.  If the row that it finds is not
 * that of the job, or not ready, the entry is of the past and is dropped: whoever makes the job
 * ready again adds another one.  If another transaction has the row, it is put back when the call
 * ends.  So a claim looks at each entry once.
 *
 * When the list has no more, it is filled up from the index, by one session at a time; others
 * walk over the index themselves.  So do all where lists are of no use: qml is not preloaded, the
 * transaction keeps its snapshot, or the trigger that tells of SQL does not tell of all of it.
 *
 * What the transaction has made ready itself is in no list yet.  A pass ends before the first one of
 * these, and a walk over the index goes on from there.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "utils/inval.h"
#include "utils/rel.h"

#include "common/fault.h"
#include "common/guc.h"
#include "compat.h"
#include "ipc/ready_note.h"
#include "ipc/ready_queues.h"
#include "ipc/wakeup.h"
#include "jobs/claim_list.h"
#include "jobs/ready_index.h"
#include "jobs/ready_row.h"
#include "model/catalog.h"
#include "model/queue.h"

/* Entries that are taken at once. */
#define MOST_TAKEN 128

/* Entries that are looked at before it is known whether they are wanted. */
#define LOOKED_AT_ONCE 16

/* Entries that a peek looks at. */
#define MOST_LOOKED 100

StaticAssertDecl(QML_STORES <= QML_READY_TABLES, "a database has lists of each storage class");

/*
 * Whether claims of this transaction use the lists of the database, for queues whose jobs are in
 * the tables that the writer works on.  Without one (NULL) only what lists say of emptiness counts,
 * which holds also where a table has got another file.
 */
bool
qml_claim_list_usable(const QmlWriter *writer)
{
	int count = qml_stores_in_use();
	QmlReadyTable tables[QML_STORES];

	if (!qml_ready_queues_exist() || !qml_ready_lists || IsolationUsesXactSnapshot() ||
		RecoveryInProgress() || qml_ready_note_is_unknown())
		return false;
	for (int i = 0; i < count; i++)
	{
		const QmlStore *store = qml_store(i);

		if (!TransactionIdIsValid(store->live_trigger_version))
			return false;
		tables[i].live = store->live;
		tables[i].trigger = store->live_trigger_version;
		tables[i].file = writer && i == (int) writer->store ? qml_relation_file(writer->live->rel) :
															  InvalidOid;
	}
	return writer ? qml_ready_queues_open(tables, count) : qml_ready_queues_know(tables, count);
}

/* Begins to go through the list of a queue; match: whether a job may be wanted, by its method. */
void
qml_claim_list_begin(QmlClaimList *list, QmlWriter *writer, Relation ready, int queue,
					 QmlListPass pass, QmlReadyMatch match, void *arg)
{
	memset(list, 0, sizeof(*list));
	list->writer = writer;
	list->ready = ready;
	list->queue = queue;
	list->match = match;
	list->arg = arg;
	list->pass = pass;
	/* A background worker is told of what it has made itself when that is committed. */
	list->has_end = pass != QML_LIST_CHOOSE && qml_ready_note_first_made(queue, &list->end);
}

/* ----- filling a list up ----- */

/* What one fill has found. */
typedef struct Found
{
	QmlReadyEntry *entries;
	int count;
	int most;
	QmlReadyBound bound; /* all until it is full */
} Found;

/* Gathers ready jobs by these keys; false: it is full. */
static bool
gather(QmlClaimList *list, ScanKey keys, int nkeys, Found *found)
{
	QmlTable *live = list->writer->live;
	IndexScanDesc scan = qml_ready_index_begin(list->writer, list->ready, list->queue, keys, nkeys);
	bool has_room = true;

	while (has_room && qml_table_next(live, scan))
	{
		CHECK_FOR_INTERRUPTS();
		QML_FAULT("list.fill_row");
		/*
		 * Who has claimed it puts it back if it comes to nothing.  What this transaction has made
		 * ready is added when it commits.
		 */
		if (qml_job_live_state(live->slot) != QML_ENQUEUED || qml_table_row_is_own(live->slot) ||
			qml_table_row_is_replaced(live->slot))
			continue;
		if (found->count == found->most)
		{
			found->bound.reach = QML_REACH_KEY;
			found->bound.key = qml_ready_row_place(live->slot);
			has_room = false;
			continue;
		}
		(void) qml_ready_row_read(live->slot, live->root, &found->entries[found->count++]);
	}
	index_endscan(scan);
	return has_room;
}

/* Whether the tables that are being read have the jobs of the queue. */
static bool
is_stored_here(const QmlClaimList *list)
{
	const QmlQueue *queue;

	AcceptInvalidationMessages();
	if (qml_stores_in_use() == 1)
		return true;
	queue = qml_queue_by_id(list->queue);
	return queue == NULL || qml_queue_store(queue) == list->writer->store;
}

/* Fills the list up from its bound on; false: it has everything, or somebody else does it. */
static bool
fill_up(QmlClaimList *list)
{
	Found found = {.bound.reach = QML_REACH_ALL};
	ScanKeyData keys[QML_READY_INDEX_KEYS];
	QmlReadyFill fill;

	if (!qml_ready_list_begin_fill(list->queue, &fill))
		return false;
	QML_FAULT("list.fill_begun");
	/* The storage class of an empty queue may be changed: who has done so meanwhile is heard now. */
	if (!is_stored_here(list))
	{
		qml_ready_list_cancel_fill();
		return false;
	}
	/* Whoever commits from now on knows of the fill. */
	(void) qml_writer_new_snapshot(list->writer);
	found.most = fill.most;
	found.entries = palloc(sizeof(QmlReadyEntry) * found.most);
	if (fill.from.reach == QML_REACH_NOTHING)
		(void) gather(list, keys, 1, &found);
	else
	{
		const QmlReadyKey *from = &fill.from.key;

		if (gather(list, keys, qml_ready_index_rest(keys, from, true), &found))
			(void) gather(list, keys, qml_ready_index_below(keys, from), &found);
	}
	QML_FAULT("list.fill_walked");
	qml_ready_list_end_fill(&fill, found.entries, found.count, &found.bound);
	pfree(found.entries);
	return true;
}

/*
 * A queue that is not there may have ready jobs: begins its list, so that claims do not look for it
 * again if it has none.
 */
void
qml_claim_list_look_once(QmlWriter *writer, Relation ready, int queue)
{
	QmlClaimList list;

	qml_claim_list_begin(&list, writer, ready, queue, QML_LIST_PEEK, NULL, NULL);
	(void) fill_up(&list);
}

/* ----- going through a list ----- */

/*
 * Takes the next entries, or looks at them; false: there are none.  One who has claimed none yet
 * begins anew each time: what has come in meanwhile is not to be passed by.
 */
static bool
take_more(QmlClaimList *list, int wanted)
{
	bool takes = list->pass == QML_LIST_TAKE;
	QmlReadyPart part = {.match = list->match, .arg = list->arg};
	QmlReadyAnswer answer;

	if (list->has_after && (!takes || list->claimed > 0))
		part.after = &list->after;
	if (list->has_end)
		part.before = &list->end;
	if (list->entries == NULL)
	{
		list->room = takes ? Min(wanted, MOST_TAKEN) : Max(LOOKED_AT_ONCE, Min(wanted, MOST_TAKEN));
		list->entries = palloc(sizeof(QmlReadyEntry) * list->room);
	}
	list->next = 0;
	list->count = 0;
	if (takes)
		answer = qml_ready_note_take(list->queue, &part, list->entries, Min(wanted, list->room));
	else
		answer = qml_ready_list_look(list->queue, &part, list->entries, list->room);
	list->count = answer.count;
	list->all = answer.all;
	list->is_low = answer.is_low;
	list->bound = answer.bound;
	if (list->count == 0)
		return false;
	list->after = list->entries[list->count - 1].key;
	list->has_after = true;
	QML_FAULT("list.taken");
	/* It sees what made them ready, and the claims that this call has made. */
	(void) qml_writer_new_snapshot(list->writer);
	return true;
}

/*
 * Reads the row of an entry into live.slot, and returns whether it is that of the job, and ready.
 */
bool
qml_claim_list_read(QmlWriter *writer, int queue, const QmlReadyEntry *entry)
{
	TupleTableSlot *slot = writer->live->slot;
	QmlReadyKey key;
	bool isnull;

	if (!qml_table_fetch(writer->live, &entry->root, qml_writer_snapshot(writer), writer->room) ||
		qml_job_live_state(slot) != QML_ENQUEUED)
		return false;
	key = qml_ready_row_place(slot);
	return qml_ready_compare(&key, &entry->key) == 0 &&
		   DatumGetInt32(slot_getattr(slot, LIVE_QUEUE_ID, &isnull)) == queue &&
		   slot_attisnull(slot, LIVE_RUN_AT);
}

/* Reads the row of an entry; false: its job is not ready.  Unless in a peek, it is dropped then. */
static bool
read_entry(QmlClaimList *list, QmlReadyEntry *entry)
{
	list->is_taken = list->pass == QML_LIST_TAKE;
	if (qml_claim_list_read(list->writer, list->queue, entry))
		return true;
	if (list->pass == QML_LIST_CHOOSE)
	{
		/* It may be ready again since it was looked at: what holds is seen when it is taken. */
		if (!qml_ready_note_take_one(list->queue, entry))
			return false;
		list->is_taken = true;
		(void) qml_writer_new_snapshot(list->writer);
		if (qml_claim_list_read(list->writer, list->queue, entry))
			return true;
	}
	if (!list->is_taken)
		return false;
	/* The queue was empty, and its storage class has changed since: the row is elsewhere. */
	if (is_stored_here(list))
		qml_ready_note_gone(list->queue, entry);
	else
	{
		qml_ready_note_put_back(list->queue, entry);
		list->has_moved = true;
	}
	return false;
}

/* Whether the list has no more before the end of the pass, so that there is no use in filling it. */
static bool
is_at_end(const QmlClaimList *list)
{
	return list->all || (list->has_end && qml_ready_is_before(&list->end, &list->bound));
}

/* Nothing of the queue was seen that counts: it is to be looked at from the beginning. */
static bool
give_up_pass(QmlClaimList *list)
{
	list->all = false;
	list->bound.reach = QML_REACH_NOTHING;
	return false;
}

/* What the pass has been through ends before a job that no list has. */
static bool
end_pass(QmlClaimList *list)
{
	if (list->has_end)
		list->all = false;
	if (list->has_end && qml_ready_is_before(&list->end, &list->bound))
	{
		list->bound.reach = QML_REACH_KEY;
		list->bound.key = list->end;
	}
	return false;
}

/*
 * Reads the next ready job into live.slot; qml_claim_list_judge() must follow.  wanted: how many
 * the caller still wants.  False: there is none in the list, which may not have all.
 */
bool
qml_claim_list_next(QmlClaimList *list, int wanted)
{
	bool is_filled = false;

	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (list->next < list->count)
		{
			if (read_entry(list, &list->entries[list->next++]))
			{
				list->writer->is_taken = list->is_taken;
				return true;
			}
			if (list->has_moved)
				return give_up_pass(list);
		}
		else if (list->pass == QML_LIST_PEEK && (list->looked += list->count) > MOST_LOOKED)
			return give_up_pass(list); /* it is not through */
		else if (take_more(list, wanted))
			is_filled = false;
		else if (is_at_end(list) || is_filled || !list->is_low || !fill_up(list))
			return end_pass(list);
		else
			is_filled = true;
	}
}

/*
 * What became of the job that was read last: TM_Ok if it was claimed.  If its entry was taken, one
 * that another transaction has goes back into the list; so does one that was left
 * (TM_Invisible).
 */
void
qml_claim_list_judge(QmlClaimList *list, TM_Result result)
{
	const QmlReadyEntry *entry = &list->entries[list->next - 1];

	list->writer->is_taken = false;
	if (!list->is_taken)
		return;
	if (result == TM_Ok)
	{
		qml_ready_note_claimed();
		list->claimed++;
		return;
	}
	if (result != TM_BeingModified && result != TM_Invisible)
	{
		qml_ready_note_gone(list->queue, entry);
		return;
	}
	if (list->nheld == list->held_room)
	{
		list->held_room = Max(16, 2 * list->held_room);
		if (list->held == NULL)
			list->held = palloc(sizeof(QmlReadyEntry) * list->held_room);
		else
			list->held = repalloc(list->held, sizeof(QmlReadyEntry) * list->held_room);
	}
	list->held[list->nheld++] = *entry;
}

/*
 * Some were held, and went back.  Sessions that looked meanwhile have not found them, and would
 * sleep: who has the row of one may give it back without telling anybody.
 */
static void
wake_for_held(QmlClaimList *list)
{
	(void) qml_writer_new_snapshot(list->writer);
	for (int i = 0; i < list->nheld; i++)
	{
		TM_Result fate = TM_Deleted;

		if (qml_claim_list_read(list->writer, list->queue, &list->held[i]))
			fate = qml_table_row_fate(list->writer->live->slot);
		if (fate == TM_Ok || fate == TM_BeingModified)
			qml_writer_note_free(list->writer);
	}
}

/*
 * Ends the pass; returns whether all ready jobs of the queue were seen.  A list that has become
 * low is filled up for the claims that follow.
 */
bool
qml_claim_list_end(QmlClaimList *list)
{
	for (int i = list->next; list->pass == QML_LIST_TAKE && i < list->count; i++)
		qml_ready_note_put_back(list->queue, &list->entries[i]);
	for (int i = 0; i < list->nheld; i++)
		qml_ready_note_put_back(list->queue, &list->held[i]);
	if (list->nheld > 0)
		wake_for_held(list);
	if (list->is_low && list->pass != QML_LIST_PEEK)
		(void) fill_up(list);
	if (list->entries)
		pfree(list->entries);
	if (list->held)
		pfree(list->held);
	return list->all;
}
