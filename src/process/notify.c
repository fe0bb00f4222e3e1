/*
 * notify.c
 *		NOTIFY for queues whose option says so.
 *
 * The scheduler sends it on the channel qml_<queue>, and not the session that enqueues:
 * the commit of a notification takes a lock that is one for the whole server, and a
 * transaction with one cannot be prepared.  A notification says that there are jobs to
 * fetch, not how many, and comes at most every 100 ms, however many jobs there are.
 *
 * A scheduler that leaves sends what it owes before, or leaves it to the next one
 * (ipc/dispatch.c).  After an error, and where no other scheduler has kept its state, all
 * queues with listeners are notified.  It is a hint all the same: a crash of the server loses
 * it, so listeners must also look at intervals.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/async.h"

#include "common/fault.h"
#include "ipc/dispatch.h"
#include "model/queue.h"
#include "process/notify.h"
#include "qml.h"

/* Sends the notification of one queue, if it still wants it. */
static void
notify_queue(const QmlQueue *queue)
{
	/* Options that were written by hand may ask for it where the name is too long. */
	if (queue && queue->options.notify && !queue->gone && !queue->dropped &&
		strlen(QML_CHANNEL_PREFIX) + strlen(queue->name) < NAMEDATALEN)
		Async_Notify(psprintf("%s%s", QML_CHANNEL_PREFIX, queue->name), "");
}

/*
 * In a transaction: notifies of the queues that have got ready jobs since the last time.
 * lost: which they were before that is not known any more.
 */
void
qml_notify_send(QmlSlot *scheduler, bool lost)
{
	int queues[QML_MAX_WAIT_QUEUES];
	int count;
	bool all = qml_dispatch_take_notify(scheduler, queues, &count) || lost;
	ListCell *lc;

	Assert(IsTransactionState());
	QML_FAULT("notify.after_take");
	for (int i = 0; i < count && !all; i++)
		notify_queue(qml_queue_by_id(queues[i]));
	if (!all)
		return;
	foreach(lc, qml_queue_all())
		notify_queue(lfirst(lc));
}
