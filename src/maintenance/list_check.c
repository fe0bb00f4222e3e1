/*
 * list_check.c
 *		Ready jobs that are missing in the list of their queue.
 *
 * No ready job should ever be missing (ipc/ready_list.c).  If one is all the same, because of
 * a defect, or because somebody wrote qml.live in a way that no trigger sees, nobody would claim
 * it until its list is forgotten.  So the scheduler goes through the index now and then, in
 * pieces, as far as the lists reach.
 *
 * A job that a claim has just taken out of its list, and not changed yet, looks the same.  So
 * those that seem to be missing are looked at again in the next piece, at least a second later.
 * Then they are added, which never does harm, and told in the log.
 */
#include "postgres.h"

#include "access/genam.h"
#include "miscadmin.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "common/log.h"
#include "ipc/prepared.h"
#include "ipc/ready_queues.h"
#include "ipc/wakeup.h"
#include "jobs/claim_list.h"
#include "jobs/ready_index.h"
#include "jobs/ready_row.h"
#include "maintenance/list_check.h"
#include "model/catalog.h"
#include "model/queue.h"

/* Index entries, and queues, of one piece. */
#define MOST_ENTRIES 2000
#define MOST_QUEUES	 200

/* How often it is told that lists are of no use, in milliseconds. */
#define TELL_INTERVAL (3600 * 1000)

/* One piece. */
typedef struct Piece
{
	QmlListCheck *check;
	QmlWriter writer;
	Relation ready; /* of the tables that the writer works on */
	int entries;
} Piece;

/* Goes to the tables of a storage class. */
static void
turn_to_store(Piece *piece, QmlStoreId store)
{
	if (piece->ready)
		index_close(piece->ready, NoLock);
	qml_writer_turn(&piece->writer, store);
	piece->ready = index_open(qml_store(store)->live_ready, AccessShareLock);
}

/* Goes to the tables that have the jobs of a queue; false: claims do not use lists for these. */
static bool
turn_to_queue(Piece *piece, int id)
{
	const QmlQueue *queue = qml_queue_by_id(id);
	QmlStoreId store = queue ? qml_queue_store(queue) : QML_STORE_LOGGED;

	if (store == piece->writer.store)
		return true;
	turn_to_store(piece, store);
	return qml_claim_list_usable(&piece->writer);
}

/* The lowest id of a queue above `after` that an index has an entry for; 0: none. */
static int
next_queue(Piece *piece, int after)
{
	int lowest = 0;

	for (int i = 0; i < qml_stores_in_use(); i++)
	{
		int id;

		turn_to_store(piece, i);
		id = qml_ready_index_next_queue(&piece->writer, piece->ready, after);
		if (id != 0 && (lowest == 0 || id < lowest))
			lowest = id;
	}
	return lowest;
}

/* Adds the jobs that are still missing. */
static void
settle_suspects(Piece *piece)
{
	QmlListCheck *check = piece->check;

	for (int i = 0; i < check->nsuspects; i++)
	{
		char *id;
		const QmlReadyEntry *suspect = &check->suspects[i];
		const QmlQueue *queue = qml_queue_by_id(check->queues[i]);

		if (!turn_to_queue(piece, check->queues[i]) ||
			!qml_claim_list_read(&piece->writer, check->queues[i], suspect) ||
			qml_table_row_fate(piece->writer.live->slot) != TM_Ok ||
			qml_ready_list_find(check->queues[i], &suspect->key) != QML_READY_MISSING)
			continue;
		id = DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&suspect->key.id)));
		qml_ready_list_add(check->queues[i], suspect, 1);
		qml_writer_note_free(&piece->writer);
		ereport(LOG,
				(errmsg("a ready job was missing in the list of its queue, and was added"),
				 errdetail("Its id is %s, in queue \"%s\".", id,
						   queue ? queue->name : "?"),
				 errhint("If nobody has changed qml.live by hand, this may be a defect of qml.  "
						 "Please report it, unless the server stood still for a second.")));
	}
	check->nsuspects = 0;
}

/* Looks at the job in live.slot; false: the list does not reach so far. */
static bool
look_at_job(Piece *piece)
{
	QmlListCheck *check = piece->check;
	QmlTable *live = piece->writer.live;
	QmlReadyFound found;

	check->key = qml_ready_row_place(live->slot);
	check->has_key = true;
	if (qml_job_live_state(live->slot) != QML_ENQUEUED)
		return true;
	found = qml_ready_list_find(check->queue, &check->key);
	if (found == QML_READY_MISSING && qml_table_row_fate(live->slot) == TM_Ok &&
		check->nsuspects < QML_MAX_SUSPECTS)
	{
		check->queues[check->nsuspects] = check->queue;
		(void) qml_ready_row_read(live->slot, live->root, &check->suspects[check->nsuspects++]);
	}
	return found != QML_READY_BEYOND;
}

/* Goes on in a queue by these keys; false: it is over, because the piece or the list is. */
static bool
walk(Piece *piece, ScanKey keys, int nkeys, bool *through)
{
	IndexScanDesc scan = qml_ready_index_begin(&piece->writer, piece->ready, piece->check->queue,
											   keys, nkeys);
	bool goes_on = true;

	while (goes_on && qml_table_next(piece->writer.live, scan))
	{
		CHECK_FOR_INTERRUPTS();
		*through = !look_at_job(piece);
		goes_on = !*through && ++piece->entries < MOST_ENTRIES;
	}
	index_endscan(scan);
	return goes_on;
}

/* Goes on in a queue; returns whether it is through. */
static bool
check_queue(Piece *piece)
{
	const QmlListCheck *check = piece->check;
	QmlReadyKey from = check->key;
	ScanKeyData keys[QML_READY_INDEX_KEYS];
	bool through = false;

	if (!check->has_key)
		return walk(piece, keys, 1, &through) || through;
	if (!walk(piece, keys, qml_ready_index_rest(keys, &from, false), &through))
		return through;
	return walk(piece, keys, qml_ready_index_below(keys, &from), &through) || through;
}

/* Whoever wonders why fetches have become slow must find the reason. */
static void
tell_of_triggers(void)
{
	for (int i = 0; i < qml_stores_in_use(); i++)
	{
		const QmlStore *store = qml_store(i);

		if (OidIsValid(store->live) && !TransactionIdIsValid(store->live_trigger_version) &&
			qml_log_is_due_after(QML_LOG_TRIGGER, TELL_INTERVAL))
			ereport(LOG,
					(errmsg("claims search the index, because the trigger that tells of SQL on \"%s\" "
							"is not there or not enabled for all sessions",
							get_rel_name(store->live)),
					 errhint("Call qml_adopt(), which enables the trigger note_sql.")));
	}
}

/*
 * A piece of a check, in the caller's transaction.  True: it is through, and nothing is left to be
 * looked at again.
 */
bool
qml_list_check_step(QmlListCheck *check)
{
	Piece piece = {.check = check};
	bool over = false;

	/* What they made ready may be missing, if an extension has ended them without a statement. */
	qml_prepared_settle(true);
	if (qml_ready_queues_exist())
		tell_of_triggers();
	/* Nobody claims from lists here. */
	if (!OidIsValid(qml_ready_queues_table(0)))
		return true;
	qml_wakeup_read_rules();
	qml_writer_open_to_read(&piece.writer);
	turn_to_store(&piece, QML_STORE_LOGGED);
	if (qml_claim_list_usable(&piece.writer))
	{
		settle_suspects(&piece);
		for (int queues = 0; !over && queues < MOST_QUEUES && piece.entries < MOST_ENTRIES;
			 queues++)
		{
			if (check->queue != 0 && turn_to_queue(&piece, check->queue) && !check_queue(&piece))
				break;
			check->queue = next_queue(&piece, check->queue);
			check->has_key = false;
			over = check->queue == 0;
		}
	}
	else
		over = true;
	index_close(piece.ready, NoLock);
	qml_writer_close_after_read(&piece.writer);
	return over && check->nsuspects == 0;
}
