/*
 * explain_queue.c
 *		Why a queue does not move: qml_explain_queue().
 *
 * The first ready jobs of the queue are looked at, in the order in which they are claimed.  Of each
 * method among them it is told why nobody takes its jobs, as for a job (work.c), and whose open
 * transactions have rows of them.
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "diagnosis/explain_queue.h"
#include "diagnosis/holder.h"
#include "diagnosis/status.h"
#include "diagnosis/work.h"
#include "ipc/fetches.h"
#include "jobs/counts.h"
#include "jobs/ready_walk.h"
#include "model/columns.h"
#include "model/job.h"

/* Rows that are looked at, and methods among them that are told of. */
#define MOST_ROWS	 1000
#define MOST_METHODS 20

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
	QmlHolders holders;
	int nkinds;
	bool more_kinds;
	Kind kinds[MOST_METHODS];
	MemoryContext context; /* of their methods */
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

static bool
look_at_row(TupleTableSlot *slot, void *arg)
{
	Front *front = arg;

	if (qml_job_live_state(slot) != QML_ENQUEUED)
		front->running++;
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

/* How many jobs of the queue wait for a time; -1: it is not known without reading jobs. */
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

/* What the kinds of jobs at the front need, and whatever may become ready. */
static int
find_needs(const QmlQueue *queue, const Front *front, int64 delayed, QmlReasons *reasons)
{
	int needs = QML_NEEDS_CLAIM;

	for (int i = 0; i < front->nkinds; i++)
	{
		QmlCase about;

		qml_work_init(&about, queue, front->kinds[i].method, front->kinds[i].created_by, reasons);
		needs |= qml_work_needs(&about);
	}
	if (delayed > 0 || front->running > 0)
		needs |= QML_NEEDS_ADVANCE;
	return needs;
}

static void
explain_held(const Front *front, QmlReasons *reasons)
{
	int pid;
	char *who;

	if (front->held == 0)
		return;
	who = qml_holder_describe(&front->holders, &pid);
	qml_finding_add_reason(reasons, "held by an open transaction",
						   psprintf("%s claimed, changed or locked by %s",
									qml_finding_count(front->held, "of its first ready jobs is",
													  "of its first ready jobs are"),
									who),
						   pid == 0 ? NULL : psprintf("SELECT pg_terminate_backend(%d);", pid));
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
explain_empty(const Front *front, int64 delayed, QmlReasons *reasons)
{
	qml_finding_add_reason(reasons, "no ready jobs",
						   delayed < 0 ?
							   psprintf("no job is ready, and %d in work", front->running) :
							   psprintf("no job is ready, %d in work, and %s for its time",
										front->running,
										qml_finding_count(delayed, "waits", "wait")),
						   NULL);
}

/* Adds the reasons why a queue does not move. */
void
qml_explain_queue_reasons(const QmlQueue *queue, QmlReasons *reasons)
{
	Front front = {.context = CurrentMemoryContext};
	QmlCase about = {.queue = queue, .reasons = reasons};
	int64 delayed = count_delayed(queue);

	(void) qml_ready_walk(queue, 0, look_at_row, &front);
	qml_work_explain_pause(&about);
	qml_status_explain(find_needs(queue, &front, delayed, reasons), reasons);
	explain_held(&front, reasons);
	explain_kinds(queue, &front, reasons);
	if (front.ready == 0)
		explain_empty(&front, delayed, reasons);
	else if (reasons->count == 0)
		explain_moving(queue, &front, reasons);
}
