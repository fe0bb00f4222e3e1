/*
 * served.c
 *		Whether anybody outside the database takes the jobs of a queue.
 *
 * A worker outside does so if it has fetched such jobs within qml.dead_server_timeout, the time
 * after which a server that is silent is given up, or if it waits for them (qml_wait).  What is
 * known of fetches is in shared memory (ipc/fetches.c): without it nothing is known, and where more
 * queues and methods are fetched from than it has room for, some of it is not known any more.
 */
#include "postgres.h"

#include "common/guc.h"
#include "diagnosis/finding.h"
#include "diagnosis/served.h"
#include "ipc/fetches.h"
#include "ipc/waiters.h"
#include "model/job.h"

/* For so long a fetch counts. */
int64
qml_served_window(void)
{
	return qml_dead_server_timeout * USECS_PER_SEC;
}

static bool
is_recent(TimestampTz fetched_at)
{
	return fetched_at != 0 && fetched_at > GetCurrentTimestamp() - qml_served_window();
}

/*
 * Whether a session waits for jobs of the queue; method: by the hash that sessions have, any: of
 * whichever methods.
 */
static bool
is_awaited(const QmlQueue *queue, uint32 method, bool handled, bool any)
{
	QmlReadyJobs jobs = {.queue = queue->id,
						 .name = queue->name_hash,
						 .method = method,
						 .handled = handled,
						 .count = 1};

	return qml_shmem && qml_waiters_expect(&jobs, any);
}

static QmlServed
judge(QmlFetched fetched)
{
	if (is_recent(fetched.last))
		return QML_SERVED;
	return is_recent(fetched.perhaps) ? QML_SERVED_PERHAPS : QML_SERVED_NOT;
}

/* Whether jobs of whichever method that has no handler are fetched. */
QmlServed
qml_served_unnamed(const QmlQueue *queue)
{
	return judge(qml_fetches_of_queue(queue->id, true));
}

/* Whether jobs of a method are fetched without names, or by its name. */
static QmlServed
judge_method(const QmlQueue *queue, uint64 hash)
{
	QmlServed unnamed = qml_served_unnamed(queue);

	return unnamed == QML_SERVED ? unnamed :
								   Max(unnamed, judge(qml_fetches_of_method(queue->id, hash)));
}

/* Whether jobs of a method that has no handler are taken. */
QmlServed
qml_served_outside(const QmlQueue *queue, Datum method)
{
	QmlServed served = judge_method(queue, qml_job_hash_method_long(method));

	return served != QML_SERVED && is_awaited(queue, qml_job_hash_method(method), false, false) ?
			   QML_SERVED :
			   served;
}

/*
 * The same by the hash that lists of ready jobs have of a method.  A session that waits for jobs of
 * other methods counts, too.
 */
QmlServed
qml_served_hash(const QmlQueue *queue, uint64 hash)
{
	QmlServed served = judge_method(queue, hash);

	return served != QML_SERVED && is_awaited(queue, 0, false, true) ? QML_SERVED : served;
}

/* Whether jobs of a method are taken by workers that name it, which they may if it has a handler. */
QmlServed
qml_served_by_name(const QmlQueue *queue, Datum method)
{
	QmlServed served = judge(qml_fetches_of_method(queue->id, qml_job_hash_method_long(method)));

	return served != QML_SERVED && is_awaited(queue, qml_job_hash_method(method), true, false) ?
			   QML_SERVED :
			   served;
}

/* Whether anybody fetches from the queue, or waits for jobs of it. */
QmlServed
qml_served_at_all(const QmlQueue *queue)
{
	QmlServed served = judge(qml_fetches_of_queue(queue->id, false));

	return served != QML_SERVED && is_awaited(queue, 0, false, true) ? QML_SERVED : served;
}

/* For how long nobody has fetched from the queue, as the end of a sentence. */
char *
qml_served_since(const QmlQueue *queue)
{
	TimestampTz last = qml_fetches_of_queue(queue->id, false).last;
	TimestampTz since = qml_fetches_since();
	TimestampTz now = GetCurrentTimestamp();

	if (last != 0)
		return psprintf("for %s", qml_finding_duration(now - last));
	return psprintf("since the server started %s ago", qml_finding_duration(now - since));
}
