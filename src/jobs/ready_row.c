/*
 * ready_row.c
 *		Rows of qml.live as entries of the lists of ready jobs.
 *
 * Whatever writes a row of a ready job into qml.live without SQL notes it here, or no claim finds
 * the job.
 */
#include "postgres.h"

#include "ipc/ready_note.h"
#include "ipc/ready_queues.h"
#include "jobs/ready_row.h"
#include "model/catalog.h"
#include "model/job.h"

/* The key of a job.  All have the same pass: see ipc/ready_store.h. */
QmlReadyKey
qml_ready_row_key(int priority, const pg_uuid_t *id)
{
	return (QmlReadyKey){.priority = priority, .pass = 0, .id = *id};
}

/* The key of the job in a row. */
QmlReadyKey
qml_ready_row_place(TupleTableSlot *slot)
{
	int priority;
	pg_uuid_t id;

	qml_job_live_place(slot, &priority, &id);
	return qml_ready_row_key(priority, &id);
}

/* Makes the entry of a row with this root; returns the queue. */
int
qml_ready_row_read(TupleTableSlot *slot, ItemPointerData root, QmlReadyEntry *entry)
{
	bool isnull;

	entry->key = qml_ready_row_place(slot);
	entry->root = root;
	entry->method = qml_job_hash_method_long(qml_job_live_method(slot));
	return DatumGetInt32(slot_getattr(slot, LIVE_QUEUE_ID, &isnull));
}

/* A row was written, and is that of a ready job if the transaction commits. */
void
qml_ready_row_note_made(TupleTableSlot *slot, ItemPointerData root)
{
	QmlReadyEntry entry;
	int queue;

	if (!qml_ready_queues_exist() || qml_job_live_state(slot) != QML_ENQUEUED ||
		!slot_attisnull(slot, LIVE_RUN_AT))
		return;
	queue = qml_ready_row_read(slot, root, &entry);
	qml_ready_note_made(queue, &entry);
}
