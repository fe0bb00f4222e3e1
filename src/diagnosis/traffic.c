/*
 * traffic.c
 *		Checks of the jobs on their way: queues that nobody serves, claims and
 *		locks that are about to end, servers that fall silent, alerts.
 *
 * Nearly all of it comes from shared memory and small tables.  Whether a queue has jobs that nobody
 * takes is known by the numbers of jobs, by the lists of ready jobs, which have the methods, and by
 * what was fetched lately.  Where a list does not tell, as after a start of the server, the first
 * rows of the queue are read, of so many queues and so many rows; what is not known then is not
 * called well.  qml_explain_queue() reads more of them, and knows better.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"

#include "common/guc.h"
#include "common/spi.h"
#include "diagnosis/names.h"
#include "diagnosis/processes.h"
#include "diagnosis/served.h"
#include "diagnosis/traffic.h"
#include "ipc/lease_table.h"
#include "ipc/ready_list.h"
#include "jobs/counts.h"
#include "jobs/ready_walk.h"
#include "maintenance/alert_rows.h"
#include "maintenance/stats_query.h"
#include "maintenance/triggers.h"
#include "model/acl.h"
#include "model/catalog.h"
#include "model/job.h"
#include "model/queue.h"
#include "userfn/handler.h"

/* Queues with ready jobs that are looked at. */
#define MOST_QUEUES 10000

/*
 * Ready jobs at the front of a queue whose methods are looked at.  Where rows are read for that:
 * entries of the index for one queue, and for all.
 */
#define MOST_LOOKED	 64
#define MOST_ENTRIES 2000
#define MOST_READ	 40000

/* What ends in so short a time is about to end; what is over for so long should be taken back. */
#define SOON (5 * USECS_PER_SEC)
#define LATE (10 * USECS_PER_SEC)

/* ----- queues that nobody serves ----- */

/* A QmlReadyMatch. */
static bool
has_no_handler(uint64 method, void *arg)
{
	return !qml_handler_has_hash(method);
}

/* Gives what is served least of all. */
static void
add_served(QmlServed *least, QmlServed served)
{
	*least = Min(*least, served);
}

/* What the first rows of a queue say. */
typedef struct FrontRows
{
	const QmlQueue *queue;
	int ready;
	int running;	  /* in work, by background workers */
	bool outside;	  /* one is in work by a worker outside */
	uint64 last;	  /* method that was judged last, as */
	QmlServed judged; /* - this */
	QmlServed least;  /* of the ready ones */
	int entries;	  /* that may still be looked at, for all queues */
} FrontRows;

static bool
look_at_row(TupleTableSlot *slot, void *arg)
{
	FrontRows *front = arg;
	Datum method = qml_job_live_method(slot);
	uint64 hash = qml_job_hash_method_long(method);
	bool has_handler = qml_handler_has_hash(hash);

	if (qml_job_live_state(slot) != QML_ENQUEUED)
	{
		if (has_handler)
			front->running++;
		else
			front->outside = true;
		return true;
	}
	if (!has_handler)
	{
		if (front->last != hash)
			front->judged = qml_served_outside(front->queue, method);
		front->last = hash;
		add_served(&front->least, front->judged);
	}
	return ++front->ready < MOST_LOOKED;
}

/* Reads the first rows of a queue; false: there are more. */
static bool
read_front(const QmlQueue *queue, FrontRows *front)
{
	int most = Min(MOST_ENTRIES, front->entries);
	int room = most;
	bool all;

	front->queue = queue;
	front->ready = 0;
	front->running = 0;
	front->outside = false;
	front->last = 0;
	front->least = QML_SERVED;
	if (most <= 0)
		return false;
	all = qml_ready_walk(queue, &room, look_at_row, front);
	front->entries -= most - Max(room, 0);
	return all;
}

/*
 * Whether somebody takes the jobs of a queue, but for those who work on some of them: by the list
 * of the queue, which says of which methods they are, or else by its first rows.
 */
static QmlServed
judge_jobs(const QmlQueue *queue, FrontRows *front)
{
	QmlReadyEntry entries[MOST_LOOKED];
	QmlReadyPart part = {.match = has_no_handler};
	QmlReadyAnswer answer;
	QmlServed least = QML_SERVED;

	answer = qml_ready_list_look(queue->id, &part, entries, MOST_LOOKED);
	for (int i = 0; i < answer.count; i++)
	{
		if (i == 0 || entries[i].method != entries[i - 1].method)
			add_served(&least, qml_served_hash(queue, entries[i].method));
	}
	if (answer.has > 0 || answer.all)
		return least;
	/* It says nothing of what is ready. */
	if (!read_front(queue, front) && front->ready == 0)
		return QML_SERVED_PERHAPS;
	return front->least;
}

/*
 * Whether somebody works on jobs of a queue who will come back for those that nobody fetches now.
 * Background workers do not.
 */
static QmlServed
judge_work(const QmlQueue *queue, int64 processing, FrontRows *front)
{
	bool all;

	if (processing <= 0)
		return QML_SERVED_NOT;
	if (!qml_handler_exist())
		return QML_SERVED;
	all = read_front(queue, front);
	if (front->outside)
		return QML_SERVED;
	return all || front->running >= processing ? QML_SERVED_NOT : QML_SERVED_PERHAPS;
}

/* Whether somebody takes the jobs of a queue that has ready ones. */
static QmlServed
judge_queue(const QmlQueue *queue, int64 processing, FrontRows *front)
{
	QmlServed served;

	if (qml_served_unnamed(queue) == QML_SERVED)
		return QML_SERVED;
	/* Without a handler all are for workers outside, and nothing need be read if there are none. */
	served = qml_handler_exist() ? QML_SERVED : qml_served_at_all(queue);
	if (served != QML_SERVED_NOT)
		served = judge_jobs(queue, front);
	if (served == QML_SERVED)
		return served;
	return Max(served, judge_work(queue, processing, front));
}

/* Why the numbers of jobs are not known in shared memory. */
static const char *
describe_no_numbers(void)
{
	if (qml_shmem == NULL)
		return "without qml in shared_preload_libraries it is not known who fetches";
	if (RecoveryInProgress())
		return "jobs are fetched on the primary, which knows";
	if (!qml_triggers_tell_of_jobs())
		return "the numbers of jobs are not known, because qml is not told of jobs that SQL writes";
	if (!qml_processes_may_work() || !qml_scheduler_enabled)
		return "the numbers of jobs are not known, because no background process counts them here";
	return "the numbers of jobs are not known yet: see the check \"counters\"";
}

void
qml_traffic_check_queues(QmlFinding *finding)
{
	FrontRows front = {.entries = MOST_READ};
	QmlCounterRow *rows;
	QmlNameList unserved;
	QmlNameList unknown;
	int own = qml_queue_own_id();
	bool more = false;
	int looked = 0;
	int count;

	/* On a standby memory has nothing to say. */
	if (RecoveryInProgress() || !qml_counts_of_queues(&rows, &count))
	{
		qml_finding_leave(finding, "%s", describe_no_numbers());
		return;
	}
	qml_names_init(&unserved);
	qml_names_init(&unknown);
	qml_handler_know_hashes(InvalidOid);
	for (int i = 0; i < count && !more; i++)
	{
		const QmlQueue *queue = qml_queue_by_id(rows[i].queue);
		QmlServed served;

		if (queue == NULL || queue->id == own || queue->paused ||
			rows[i].counts[QML_ENQUEUED] <= 0 || !qml_acl_see_queue(queue->name))
			continue;
		more = ++looked == MOST_QUEUES;
		served = judge_queue(queue, rows[i].counts[QML_PROCESSING], &front);
		if (served == QML_SERVED_NOT)
			qml_names_add(&unserved, queue->name,
						  psprintf("%s, no fetch of them %s",
								   qml_finding_count(rows[i].counts[QML_ENQUEUED], "ready job",
													 "ready jobs"),
								   qml_served_since(queue)));
		else if (served == QML_SERVED_PERHAPS)
			qml_names_add(&unknown, queue->name, NULL);
	}
	if (unserved.count > 0)
		qml_finding_fail(
			finding,
			psprintf("Start a worker that fetches from the queue, or register handlers; %s(queue) "
					 "tells more.",
					 qml_acl_qualify("qml_explain_queue")),
			"nobody takes jobs of %s%s: %s", more ? "at least " : "",
			qml_finding_count(unserved.count, "queue", "queues"), qml_names_text(&unserved));
	else if (unknown.count > 0)
		qml_finding_leave(finding,
						  "of %s with ready jobs it is not known whether somebody takes them; "
						  "%s(queue) reads them: %s",
						  qml_finding_count(unknown.count, "queue", "queues"),
						  qml_acl_qualify("qml_explain_queue"), qml_names_text(&unknown));
	else if (more)
		qml_finding_leave(finding,
						  "somebody takes jobs of the first %d queues that have ready ones; others "
						  "were not looked at",
						  looked);
	else
		qml_finding_pass(finding, "%s ready jobs, and somebody to take them",
						 qml_finding_count(looked, "queue has", "queues have"));
}

/* ----- what is about to end ----- */

/* Servers that may be given up. */
void
qml_traffic_check_servers(QmlFinding *finding)
{
	MemoryContext context = CurrentMemoryContext;
	TimestampTz now = GetCurrentTimestamp();
	Oid type = TIMESTAMPTZOID;
	Datum silent_since = TimestampTzGetDatum(now - qml_served_window() / 2);
	QmlNameList silent;
	int64 alive;
	List *ids;
	ListCell *lc;
	QmlSpi spi;

	qml_names_init(&silent);
	qml_spi_begin(&spi, qml_catalog()->owner);
	(void) qml_spi_execute_latest("SELECT pg_catalog.count(*) FROM qml.server_data s "
								  "WHERE s.dead_at IS NULL",
								  0, NULL, NULL, NULL, SPI_OK_SELECT);
	alive = DatumGetInt64(qml_spi_value(SPI_tuptable, 0, 1, INT8OID, NULL));
	(void) qml_spi_execute_latest("SELECT s.id FROM qml.server_data s "
								  "WHERE s.dead_at IS NULL AND s.heartbeat_at < $1 ORDER BY s.id",
								  1, &type, &silent_since, NULL, SPI_OK_SELECT);
	ids = qml_spi_strings(context);
	qml_spi_end(&spi);
	foreach(lc, ids)
		qml_names_add(&silent, lfirst(lc), NULL);
	if (silent.count > 0)
		qml_finding_fail(finding,
						 psprintf("Let its workers call %s(id), or end it: SELECT %s(%s);",
								  qml_acl_qualify("qml_heartbeat_server"),
								  qml_acl_qualify("qml_unregister_server"),
								  qml_finding_quote(linitial(ids))),
						 "%s sent no heartbeat for %s; after %s it counts as dead: %s",
						 qml_finding_count(silent.count, "server has", "servers have"),
						 qml_finding_duration(qml_served_window() / 2),
						 qml_finding_duration(qml_served_window()), qml_names_text(&silent));
	else
		qml_finding_pass(finding, "%s registered, and none is silent",
						 qml_finding_count(alive, "server is", "servers are"));
}

void
qml_traffic_check_leases(QmlFinding *finding)
{
	TimestampTz now = GetCurrentTimestamp();
	int over;
	int soon;

	if (qml_shmem == NULL)
	{
		qml_finding_leave(finding, "without qml in shared_preload_libraries claims are known from "
								   "the jobs only");
		return;
	}
	qml_lease_table_count_ends(now - LATE, now + SOON, &over, &soon);
	if (over > 0)
		qml_finding_fail(finding, qml_finding_call("qml_reclaim", ""),
						 "%s over for %s, and its job was not taken back",
						 qml_finding_count(over, "claim is", "claims are"),
						 qml_finding_duration(LATE));
	else if (soon > 0)
		qml_finding_fail(finding,
						 psprintf("Let workers call %s() in time, or fetch with a longer lease.",
								  qml_acl_qualify("qml_heartbeat")),
						 "%s within %s, unless its worker sends a heartbeat",
						 qml_finding_count(soon, "lease ends", "leases end"),
						 qml_finding_duration(SOON));
	else
		qml_finding_pass(finding, "no lease is about to end");
}

void
qml_traffic_check_locks(QmlFinding *finding)
{
	MemoryContext context = CurrentMemoryContext;
	TimestampTz now = GetCurrentTimestamp();
	Oid types[] = {TIMESTAMPTZOID, TIMESTAMPTZOID};
	Datum values[] = {TimestampTzGetDatum(now), TimestampTzGetDatum(now + SOON)};
	QmlNameList locks;
	List *names;
	ListCell *lc;
	QmlSpi spi;

	qml_names_init(&locks);
	qml_spi_begin(&spi, qml_catalog()->owner);
	(void) qml_spi_execute_latest("SELECT l.resource FROM qml.lock_data l "
								  "WHERE l.expires_at > $1 AND l.expires_at < $2 "
								  "ORDER BY l.resource",
								  2, types, values, NULL, SPI_OK_SELECT);
	names = qml_spi_strings(context);
	qml_spi_end(&spi);
	foreach(lc, names)
		qml_names_add(&locks, lfirst(lc), NULL);
	if (locks.count > 0)
		qml_finding_fail(finding,
						 psprintf("Let its owner call %s() again in time, or take it for longer.",
								  qml_acl_qualify("qml_try_lock")),
						 "%s within %s: %s",
						 qml_finding_count(locks.count, "lock ends", "locks end"),
						 qml_finding_duration(SOON), qml_names_text(&locks));
	else
		qml_finding_pass(finding, "no named lock is about to end");
}

/* ----- alerts ----- */

/* Alerts that are active, and may be seen by the current user. */
void
qml_traffic_check_alerts(QmlFinding *finding)
{
	QmlNameList alerts;
	ListCell *lc;

	qml_names_init(&alerts);
	foreach(lc, qml_alert_rows_active())
	{
		const QmlAlert *alert = lfirst(lc);

		if (qml_stats_query_may_see(alert->queue))
			qml_names_add(&alerts, alert->kind, alert->detail);
	}
	if (alerts.count > 0)
		qml_finding_fail(finding, pstrdup("SELECT * FROM qml.alert WHERE until IS NULL;"),
						 "%s active: %s", qml_finding_count(alerts.count, "alert is", "alerts are"),
						 qml_names_text(&alerts));
	else
		qml_finding_pass(finding, "no alert is active");
}
