/*
 * explain_queue.c
 *		Why a queue does not move: qml_explain_queue().
 *
 * The first ready jobs of the queue are looked at, in the order in which they are claimed.  Of each
 * method among them it is told why nobody takes its jobs, as for a job (work.c), and whose open
 * transactions have rows of them.  Jobs of the queue whose time has come, and claims that are over,
 * are told if nothing has happened to them since.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "common/spi.h"
#include "diagnosis/explain_queue.h"
#include "diagnosis/holder.h"
#include "diagnosis/status.h"
#include "diagnosis/work.h"
#include "ipc/fetches.h"
#include "ipc/session_claim.h"
#include "jobs/counts.h"
#include "jobs/ready_walk.h"
#include "model/catalog.h"
#include "model/columns.h"
#include "model/job.h"

/* Rows that are looked at, and methods among them that are told of. */
#define MOST_ROWS	 1000
#define MOST_METHODS 20

/* Jobs that are late that are counted. */
#define MOST_LATE 1000

/* What is due is done within this time. */
#define LATE_TIME USECS_PER_SEC

/* Ready jobs of a method. */
typedef struct Kind
{
	Datum method;
	Oid created_by; /* of the first one; it matters in qml's own queue, which is not explained */
	int count;
} Kind;

/* What is at the front of a queue. */
typedef struct Front
{
	int rows;
	bool more; /* not all rows were looked at */
	int ready;
	int running;
	int held; /* ready ones that others have */
	int over; /* running ones whose lease is over */
	int gone; /* running ones of sessions that have ended */
	QmlHolders holders;
	int nkinds;
	bool more_kinds;
	Kind kinds[MOST_METHODS];
	MemoryContext context; /* of their methods */
	TimestampTz late;	   /* what has been due since then is late */
} Front;

static void
add_kind(Front *front, TupleTableSlot *slot)
{
	Datum method = qml_job_live_method(slot);
	uint64 hash = qml_job_hash_method_long(method);
	MemoryContext oldcontext;
	bool isnull;
	Kind *kind;

	for (int i = 0; i < front->nkinds; i++)
	{
		if (qml_job_hash_method_long(front->kinds[i].method) == hash)
		{
			front->kinds[i].count++;
			return;
		}
	}
	if (front->nkinds == MOST_METHODS)
	{
		front->more_kinds = true;
		return;
	}
	oldcontext = MemoryContextSwitchTo(front->context);
	kind = &front->kinds[front->nkinds++];
	kind->method = PointerGetDatum(PG_DETOAST_DATUM_COPY(method));
	kind->created_by = DatumGetObjectId(slot_getattr(slot, LIVE_CREATED_BY, &isnull));
	kind->count = 1;
	MemoryContextSwitchTo(oldcontext);
}

/* Whether the claim of a running job is over. */
static void
look_at_claim(Front *front, TupleTableSlot *slot)
{
	bool no_lease;
	bool no_server;
	Datum lease = slot_getattr(slot, LIVE_LEASE_EXPIRES_AT, &no_lease);
	Datum server = slot_getattr(slot, LIVE_SERVER, &no_server);

	front->running++;
	if (!no_lease)
		front->over += DatumGetTimestampTz(lease) < front->late;
	else if (!no_server && !RecoveryInProgress())
	{
		char *id = TextDatumGetCString(server);

		front->gone += qml_session_claim_is_gone(id, (int) strlen(id));
		pfree(id);
	}
}

static bool
look_at_row(TupleTableSlot *slot, void *arg)
{
	Front *front = arg;

	if (qml_job_live_state(slot) != QML_ENQUEUED)
		look_at_claim(front, slot);
	else
	{
		front->ready++;
		if (qml_holder_note(&front->holders, slot))
			front->held++;
		else
			add_kind(front, slot);
	}
	front->more = ++front->rows >= MOST_ROWS;
	return !front->more;
}

/* What is known of jobs of the queue that wait for a time. */
typedef struct Delayed
{
	int64 count; /* -1: it is not known without reading jobs */
	bool any;
	int late; /* are due, but not ready */
	TimestampTz since;
} Delayed;

static int64
count_delayed(const QmlQueue *queue)
{
	QmlCounterRow *rows;
	int count;

	if (!qml_counts_of_queues(&rows, &count))
		return -1;
	for (int i = 0; i < count; i++)
	{
		if (rows[i].queue == queue->id)
			return Max(rows[i].counts[QML_SCHEDULED] + rows[i].counts[QML_AWAITING_RETRY], 0);
	}
	return 0;
}

/* Reads the first jobs that are late, and whether there are any others. */
static void
look_at_delayed(const QmlQueue *queue, TimestampTz late, Delayed *delayed)
{
	Oid types[] = {INT4OID, TIMESTAMPTZOID};
	Datum values[] = {Int32GetDatum(queue->id), TimestampTzGetDatum(late)};
	const char *table;
	bool isnull;
	QmlSpi spi;

	memset(delayed, 0, sizeof(*delayed));
	delayed->count = count_delayed(queue);
	if ((int) qml_queue_store(queue) >= qml_stores_in_use() || delayed->count == 0)
		return;
	table = quote_identifier(get_rel_name(qml_store(qml_queue_store(queue))->live));
	qml_spi_begin(&spi, qml_catalog()->owner);
	(void) qml_spi_execute_latest(
		psprintf("SELECT pg_catalog.count(*)::int4, pg_catalog.min(d.run_at), "
				 "EXISTS (SELECT FROM %s.%s o WHERE o.queue_id = $1 AND o.run_at IS NOT NULL) "
				 "FROM (SELECT l.run_at FROM %s.%s l WHERE l.run_at < $2 AND l.queue_id = $1 "
				 "LIMIT %d) d",
				 QML_SCHEMA, table, QML_SCHEMA, table, MOST_LATE),
		lengthof(types), types, values, NULL, SPI_OK_SELECT);
	delayed->late = DatumGetInt32(qml_spi_value(SPI_tuptable, 0, 1, INT4OID, NULL));
	delayed->since = DatumGetTimestampTz(
		qml_spi_value(SPI_tuptable, 0, 2, TIMESTAMPTZOID, &isnull));
	delayed->any = DatumGetBool(qml_spi_value(SPI_tuptable, 0, 3, BOOLOID, NULL));
	qml_spi_end(&spi);
}

/* What the kinds of jobs at the front need, and whatever may become ready. */
static int
find_needs(const QmlQueue *queue, const Front *front, const Delayed *delayed, QmlReasons *reasons)
{
	int needs = QML_NEEDS_CLAIM;

	for (int i = 0; i < front->nkinds; i++)
	{
		QmlCase about;

		qml_work_init(&about, queue, front->kinds[i].method, front->kinds[i].created_by, reasons);
		needs |= qml_work_needs(&about);
	}
	if (delayed->any || front->running > 0)
		needs |= QML_NEEDS_ADVANCE;
	return needs;
}

static void
explain_held(const Front *front, QmlReasons *reasons)
{
	List *groups = front->held == 0 ? NIL : qml_holder_groups(&front->holders);
	ListCell *lc;

	foreach(lc, groups)
	{
		const QmlHolderGroup *group = lfirst(lc);

		qml_finding_add_reason(reasons, "held by an open transaction",
							   psprintf("%s claimed, changed or locked by %s",
										list_length(groups) > 1 ?
											"some of its first ready jobs are" :
											qml_finding_count(front->held,
															  "of its first ready jobs is",
															  "of its first ready jobs are"),
										group->who),
							   group->remedy);
	}
}

/* Jobs that are due, and claims that are over: nothing has done what is to be done. */
static void
explain_late(const Front *front, const Delayed *delayed, QmlReasons *reasons)
{
	if (delayed->late > 0)
		qml_finding_add_reason(reasons, "due but not ready",
							   psprintf("%s%s, the first one for %s, and nothing has made %s ready",
										delayed->late == MOST_LATE ? "at least " : "",
										qml_finding_count(delayed->late, "job is due",
														  "jobs are due"),
										qml_finding_duration(GetCurrentTimestamp() -
															 delayed->since),
										delayed->late == 1 ? "it" : "them"),
							   qml_finding_call("qml_promote_due", ""));
	if (front->over > 0)
		qml_finding_add_reason(reasons, "lease is over",
							   psprintf("the lease of %s is over, and nothing has taken %s back",
										qml_finding_count(front->over, "running job",
														  "running jobs"),
										front->over == 1 ? "it" : "them"),
							   qml_finding_call("qml_reclaim", ""));
	if (front->gone > 0)
		qml_finding_add_reason(
			reasons, "worker is gone",
			psprintf("the session that had claimed %s has ended, and nothing has taken %s back",
					 qml_finding_count(front->gone, "running job", "running jobs"),
					 front->gone == 1 ? "it" : "them"),
			qml_finding_call("qml_reclaim", ""));
}

static void
explain_kinds(const QmlQueue *queue, const Front *front, QmlReasons *reasons)
{
	for (int i = 0; i < front->nkinds; i++)
	{
		QmlCase about;

		qml_work_init(&about, queue, front->kinds[i].method, front->kinds[i].created_by, reasons);
		qml_work_explain_handler(&about);
		qml_work_explain_fetches(&about);
		qml_work_explain_limits(&about);
		qml_work_explain_workers(&about);
	}
}

/* Nothing keeps it from moving. */
static void
explain_moving(const QmlQueue *queue, const Front *front, QmlReasons *reasons)
{
	TimestampTz last = qml_fetches_of_queue(queue->id, false).last;

	qml_finding_add_reason(reasons, "moving",
						   psprintf("%s%s ready, and %d in work%s", front->more ? "at least " : "",
									qml_finding_count(front->ready, "job is", "jobs are"),
									front->running,
									last == 0 ? "" :
												psprintf("; the last fetch was %s ago",
														 qml_finding_duration(
															 GetCurrentTimestamp() - last))),
						   NULL);
}

static void
explain_empty(const Front *front, const Delayed *delayed, QmlReasons *reasons)
{
	qml_finding_add_reason(reasons, "no ready jobs",
						   delayed->count < 0 ?
							   psprintf("no job is ready, and %d in work", front->running) :
							   psprintf("no job is ready, %d in work, and %s for its time",
										front->running,
										qml_finding_count(delayed->count, "waits", "wait")),
						   NULL);
}

/* Adds the reasons why a queue does not move. */
void
qml_explain_queue_reasons(const QmlQueue *queue, QmlReasons *reasons)
{
	Front front = {.context = CurrentMemoryContext, .late = GetCurrentTimestamp() - LATE_TIME};
	QmlCase about = {.queue = queue, .reasons = reasons};
	Delayed delayed;

	look_at_delayed(queue, front.late, &delayed);
	qml_session_claim_begin_search();
	(void) qml_ready_walk(queue, NULL, look_at_row, &front);
	qml_work_explain_pause(&about);
	qml_status_explain(find_needs(queue, &front, &delayed, reasons), reasons);
	explain_held(&front, reasons);
	explain_late(&front, &delayed, reasons);
	explain_kinds(queue, &front, reasons);
	if (front.ready == 0)
		explain_empty(&front, &delayed, reasons);
	else if (reasons->count == 0)
		explain_moving(queue, &front, reasons);
}
