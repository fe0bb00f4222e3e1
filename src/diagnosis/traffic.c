/*
 * traffic.c
 *		Checks of the jobs on their way: queues that nobody serves, claims and
 *		locks that are about to end, servers that fall silent, alerts.
 *
 * All of it comes from shared memory and small tables; no job is read.  Whether a queue has jobs
 * that nobody takes is known by the numbers of jobs, by the lists of ready jobs, which have the
 * methods, and by what was fetched lately.  qml_explain_queue() reads jobs, and knows better.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

#include "common/guc.h"
#include "common/spi.h"
#include "diagnosis/names.h"
#include "diagnosis/served.h"
#include "diagnosis/traffic.h"
#include "ipc/lease_table.h"
#include "ipc/ready_list.h"
#include "jobs/counts.h"
#include "maintenance/alert_rows.h"
#include "maintenance/stats_query.h"
#include "model/acl.h"
#include "model/catalog.h"
#include "model/queue.h"
#include "userfn/handler.h"

/* Queues with ready jobs that are looked at. */
#define MOST_QUEUES 1000

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

/* Ready jobs at the front of a queue whose methods are looked at. */
#define MOST_LOOKED 64

/*
 * Whether nobody takes some of the jobs of a queue that has ready ones.  Where there are handlers,
 * the list of the queue tells of which methods its jobs are; without a list it cannot be told.
 */
static bool
is_unserved(const QmlQueue *queue)
{
	QmlReadyEntry entries[MOST_LOOKED];
	QmlReadyPart part = {.match = has_no_handler};
	QmlReadyAnswer answer;

	qml_handler_know_hashes(InvalidOid);
	answer = qml_ready_list_look(queue->id, &part, entries, MOST_LOOKED);
	for (int i = 0; i < answer.count; i++)
	{
		if (!qml_served_perhaps(queue, entries[i].method))
			return true;
	}
	if (answer.count > 0 || qml_handler_exist())
		return false;
	return !qml_served_at_all(queue);
}

void
qml_traffic_check_queues(QmlFinding *finding)
{
	QmlCounterRow *rows;
	QmlNameList unserved;
	int own = qml_queue_own_id();
	int looked = 0;
	int count;

	if (!qml_counts_of_queues(&rows, &count))
	{
		qml_finding_leave(finding,
						  qml_shmem ? "the numbers of jobs are not known in shared memory yet" :
									  "without qml in shared_preload_libraries it is not known who "
									  "fetches");
		return;
	}
	qml_names_init(&unserved);
	for (int i = 0; i < count && looked < MOST_QUEUES; i++)
	{
		const QmlQueue *queue = qml_queue_by_id(rows[i].queue);

		if (queue == NULL || queue->id == own || queue->paused ||
			rows[i].counts[QML_ENQUEUED] <= 0 || !qml_acl_see_queue(queue->name))
			continue;
		looked++;
		/* Whoever works on its jobs will come back. */
		if (rows[i].counts[QML_PROCESSING] <= 0 && is_unserved(queue))
			qml_names_add(&unserved, queue->name,
						  psprintf("%s, no fetch of them %s",
								   qml_finding_count(rows[i].counts[QML_ENQUEUED], "ready job",
													 "ready jobs"),
								   qml_served_since(queue)));
	}
	if (unserved.count > 0)
		qml_finding_fail(
			finding,
			psprintf("Start a worker that fetches from the queue, or register handlers; "
					 "see: SELECT * FROM %s(<queue>);",
					 qml_acl_qualify("qml_explain_queue")),
			"nobody takes jobs of %s: %s", qml_finding_count(unserved.count, "queue", "queues"),
			qml_names_text(&unserved));
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
