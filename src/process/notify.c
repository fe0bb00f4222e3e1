/*
 * notify.c
 *		NOTIFY for queues whose option says so.
 *
 * The scheduler sends it, on the channel qml_<queue>, not who enqueues: the commit of
 * a notification takes a lock that is one for the whole server, and cannot be
 * prepared.  So it says that there is something to fetch, not how much, and comes
 * seldom, however many jobs there are.  It is a hint: who listens also looks now and
 * then.
 */
#include "postgres.h"

#include "commands/async.h"

#include "ipc/dispatch.h"
#include "model/queue.h"
#include "process/notify.h"
#include "qml.h"

static void
announce(const QmlQueue *queue)
{
	/* Whoever writes options by hand may have one that has no channel. */
	if (queue && queue->options.notify && !queue->gone && !queue->dropped &&
		strlen(QML_CHANNEL_PREFIX) + strlen(queue->name) < NAMEDATALEN)
		Async_Notify(psprintf("%s%s", QML_CHANNEL_PREFIX, queue->name), "");
}

/* In a transaction: tells of the queues that have ready jobs since the last time. */
void
qml_notify_send(QmlSlot *scheduler)
{
	int queues[QML_MAX_WAIT_QUEUES];
	int count;
	bool all = qml_dispatch_take_notify(scheduler, queues, &count);
	ListCell *lc;

	for (int i = 0; i < count && !all; i++)
		announce(qml_queue_find(queues[i]));
	if (!all)
		return;
	foreach(lc, qml_queue_all())
		announce(lfirst(lc));
}
