/*
 * served.c
 *		Whether anybody outside the database takes the jobs of a queue.
 *
 * A worker outside does so if it has fetched such jobs within qml.dead_server_timeout, the time
 * after which a server that is silent is given up, or if it waits for them (qml_wait).  What is
 * known of fetches is in shared memory (ipc/fetches.c): without it nothing is known.
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

bool
qml_served_is_recent(TimestampTz fetched_at)
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

static bool
was_fetched(const QmlQueue *queue, uint32 method)
{
	return qml_served_is_recent(qml_fetches_last(queue->id, method));
}

/* Whether jobs of a method that has no handler are taken. */
bool
qml_served_outside(const QmlQueue *queue, Datum method)
{
	return was_fetched(queue, QML_FETCHES_UNNAMED) ||
		   was_fetched(queue, qml_fetches_method(qml_job_hash_method_long(method))) ||
		   is_awaited(queue, qml_job_hash_method(method), false, false);
}

/* The same, or perhaps, by the hash that lists of ready jobs have of a method. */
bool
qml_served_perhaps(const QmlQueue *queue, uint64 hash)
{
	return was_fetched(queue, QML_FETCHES_UNNAMED) ||
		   was_fetched(queue, qml_fetches_method(hash)) || is_awaited(queue, 0, false, true);
}

/* Whether jobs of a method are taken by workers that name it, which they may if it has a handler. */
bool
qml_served_by_name(const QmlQueue *queue, Datum method)
{
	return was_fetched(queue, qml_fetches_method(qml_job_hash_method_long(method))) ||
		   is_awaited(queue, qml_job_hash_method(method), true, false);
}

/* Whether anybody fetches from the queue, or waits for jobs of it. */
bool
qml_served_at_all(const QmlQueue *queue)
{
	return was_fetched(queue, QML_FETCHES_ANY) || is_awaited(queue, 0, false, true);
}

/* For how long nobody has fetched from the queue, as the end of a sentence. */
char *
qml_served_since(const QmlQueue *queue)
{
	TimestampTz last = qml_fetches_last(queue->id, QML_FETCHES_ANY);
	TimestampTz since = qml_fetches_since();
	TimestampTz now = GetCurrentTimestamp();

	if (last != 0)
		return psprintf("for %s", qml_finding_duration(now - last));
	return psprintf("since the server started %s ago", qml_finding_duration(now - since));
}
