/*
 * peek.c
 *		Looking at the jobs that would be given out next.
 *
 * They are found by the index, in the order in which a queue gives its jobs out, whatever their
 * method: also those that a background worker would take.  Nothing is claimed, changed or locked,
 * so it works on a standby, too.  A row that another transaction is changing is passed over, as
 * whoever claims does.  Like that one, a look steps over the entries of jobs that run.
 */
#include "postgres.h"

#include "access/genam.h"
#include "miscadmin.h"

#include "common/table.h"
#include "jobs/peek.h"
#include "jobs/ready_index.h"
#include "jobs/writer.h"
#include "model/acl.h"
#include "model/catalog.h"
#include "model/queue.h"

/* One call. */
typedef struct Peek
{
	QmlWriter writer;
	Relation indexes[QML_STORES]; /* live_ready; NULL: not open */
	int left;
	QmlPeekTake take;
	void *arg;
} Peek;

/* Goes to the tables of a storage class. */
static void
turn_to(Peek *peek, QmlStoreId store)
{
	qml_writer_turn(&peek->writer, store);
	if (peek->indexes[store] == NULL)
		peek->indexes[store] = index_open(qml_store(store)->live_ready, AccessShareLock);
}

/* Whether the job in the slot is ready, and nobody is changing it. */
static bool
is_ready(TupleTableSlot *slot)
{
	return qml_job_live_state(slot) == QML_ENQUEUED && qml_table_row_fate(slot) == TM_Ok;
}

/* Shows the jobs of a queue. */
static void
look_at_queue(Peek *peek, const QmlQueue *queue)
{
	ScanKeyData keys[QML_READY_INDEX_KEYS];
	QmlStoreId store = qml_queue_store(queue);
	IndexScanDesc scan;

	/* A standby has no unlogged jobs. */
	if ((int) store >= qml_stores_in_use())
		return;
	turn_to(peek, store);
	scan = qml_ready_index_begin(&peek->writer, peek->indexes[store], queue->id, keys, 1);
	while (peek->left > 0 && qml_table_next(peek->writer.live, scan))
	{
		QmlJob job;

		CHECK_FOR_INTERRUPTS();
		if (!is_ready(peek->writer.live->slot))
			continue;
		qml_job_from_live(peek->writer.live->slot, &job);
		peek->take(&job, peek->arg);
		peek->left--;
	}
	index_endscan(scan);
}

/* The lowest queue id above `after` that an index has an entry for; 0: none. */
static int
next_queue(Peek *peek, int after)
{
	int lowest = 0;

	for (int i = 0; i < qml_stores_in_use(); i++)
	{
		int id;

		turn_to(peek, i);
		id = qml_ready_index_next_queue(&peek->writer, peek->indexes[i], after);
		if (id != 0 && (lowest == 0 || id < lowest))
			lowest = id;
	}
	return lowest;
}

/* Shows the jobs of all queues that the caller monitors. */
static void
look_at_all(Peek *peek)
{
	int id = 0;

	while (peek->left > 0 && (id = next_queue(peek, id)) != 0)
	{
		const QmlQueue *queue = qml_queue_by_id(id);

		CHECK_FOR_INTERRUPTS();
		if (queue && !queue->paused && !queue->own && qml_acl_allow(QML_CAN_MONITOR, queue->name))
			look_at_queue(peek, queue);
	}
}

/* Whether a queue is named before. */
static bool
is_repeated(char **queues, int at)
{
	for (int i = 0; i < at; i++)
	{
		if (strcmp(queues[i], queues[at]) == 0)
			return true;
	}
	return false;
}

/*
 * Passes up to `limit` jobs to `take`: of these queues, in this order, on each of which the
 * current user must have the capability "monitor"; NULL: of all that it has it on.  A queue that
 * is paused gives none out.
 */
void
qml_peek_jobs(char **queues, int nqueues, int limit, QmlPeekTake take, void *arg)
{
	Peek peek = {.left = limit, .take = take, .arg = arg};

	for (int i = 0; queues && i < nqueues; i++)
		qml_acl_require(QML_CAN_MONITOR, queues[i]);
	if (qml_catalog()->paused)
		return;
	qml_writer_open_to_read(&peek.writer);
	if (queues == NULL)
		look_at_all(&peek);
	for (int i = 0; queues && i < nqueues; i++)
	{
		const QmlQueue *queue = qml_queue_by_name(queues[i]);

		if (queue && !queue->paused && !is_repeated(queues, i))
			look_at_queue(&peek, queue);
	}
	for (int i = 0; i < QML_STORES; i++)
	{
		if (peek.indexes[i])
			index_close(peek.indexes[i], NoLock);
	}
	qml_writer_close_after_read(&peek.writer);
}
