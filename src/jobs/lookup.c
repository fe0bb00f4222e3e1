/*
 * lookup.c
 *		Looking at jobs: one by its id, and how many there are.
 *
 * Nothing is changed, and no lock is taken but AccessShareLock.  Callers see jobs as
 * their capabilities allow: not at all, an outline, or with payload, result and errors.
 */
#include "postgres.h"

#include "access/genam.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "common/spi.h"
#include "common/table.h"
#include "compat.h"
#include "ipc/beats.h"
#include "jobs/history.h"
#include "jobs/lookup.h"
#include "model/acl.h"
#include "model/catalog.h"
#include "model/queue.h"

/* Most columns of a query below. */
#define MAX_COLUMNS 3

/* How much of the job the current user may see. */
static QmlAccess
access_to(const QmlJob *job)
{
	return qml_acl_access(qml_queue_require(job->queue_id)->name, job->created_by);
}

/* Finds an unfinished job in the table of a storage class; its values are in live's slot. */
bool
qml_lookup_live(QmlStoreId store, QmlTable *live, const pg_uuid_t *id, Snapshot snapshot,
				QmlJob *job)
{
	Relation pkey = index_open(qml_store(store)->live_pkey, AccessShareLock);
	IndexScanDesc scan = qml_index_beginscan(live->rel, pkey, snapshot, 1);
	ScanKeyData key;
	bool found;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(id));
	index_rescan(scan, &key, 1, NULL, 0);
	found = index_getnext_slot(scan, ForwardScanDirection, live->slot);
	if (found)
	{
		qml_job_from_live(live->slot, job);
		/* A heartbeat that could not be written counts. */
		if (job->lease_expires_at != QML_NO_TIME)
			job->lease_expires_at = qml_beats_end(&job->id, job->attempt, job->lease_expires_at);
	}
	index_endscan(scan);
	index_close(pkey, NoLock);
	return found;
}

/* Finds a job of a storage class and calls `use`, for which its values are valid. */
static bool
find_in_store(QmlStoreId store, QmlTable *live, const pg_uuid_t *id, Snapshot snapshot,
			  void (*use)(const QmlJob *job, void *arg), void *arg)
{
	QmlTable leaf;
	QmlJob job;

	if (qml_lookup_live(store, live, id, snapshot, &job))
	{
		use(&job, arg);
		return true;
	}
	if (!qml_history_find(store, id, snapshot, AccessShareLock, &leaf, &job))
		return false;
	use(&job, arg);
	qml_table_close(&leaf);
	return true;
}

/*
 * Finds a job and calls `use`, for which its values are valid.  All tables are searched
 * with one snapshot: a job that is moving between them is seen in exactly one.
 */
static void
find_job(const pg_uuid_t *id, void (*use)(const QmlJob *job, void *arg), void *arg)
{
	int count = qml_stores_in_use();
	QmlTable live[QML_STORES];
	Snapshot snapshot;
	bool found = false;

	for (int i = 0; i < count; i++)
		qml_table_open(&live[i], qml_store(i)->live, AccessShareLock);
	snapshot = qml_table_snapshot();
	for (int i = 0; i < count && !found; i++)
		found = find_in_store(i, &live[i], id, snapshot, use, arg);
	UnregisterSnapshot(snapshot);
	for (int i = 0; i < count; i++)
		qml_table_close(&live[i]);
}

typedef struct FoundRow
{
	TupleDesc expected;
	Datum row;
} FoundRow;

static void
use_row(const QmlJob *job, void *arg)
{
	FoundRow *found = arg;
	QmlAccess access = access_to(job);

	if (access != QML_ACCESS_NONE)
		found->row = qml_job_to_expected_row(job, access == QML_ACCESS_FULL, found->expected);
}

/*
 * A value of type qml.job, with the columns that the caller expects (qml_srf_expected()); 0
 * when there is no such job, or not for this user.
 */
Datum
qml_lookup_job(const pg_uuid_t *id, TupleDesc expected)
{
	FoundRow found = {.expected = expected};

	find_job(id, use_row, &found);
	return found.row;
}

typedef struct FoundState
{
	bool visible;
	QmlState state;
} FoundState;

static void
use_state(const QmlJob *job, void *arg)
{
	FoundState *found = arg;

	found->visible = access_to(job) != QML_ACCESS_NONE;
	found->state = job->state;
}

/* False when there is no such job, or not for this user. */
bool
qml_lookup_state(const pg_uuid_t *id, QmlState *state)
{
	FoundState found = {.visible = false};

	find_job(id, use_state, &found);
	*state = found.state;
	return found.visible;
}

/* How many jobs of a queue are ready.  Reads all of them, and those in work. */
int64
qml_lookup_depth(const QmlQueue *queue)
{
	const QmlStore *store = qml_store(qml_queue_store(queue));
	Relation ready;
	Snapshot snapshot;
	IndexScanDesc scan;
	ScanKeyData key;
	QmlTable live;
	int64 count = 0;

	qml_table_open(&live, store->live, AccessShareLock);
	ready = index_open(store->live_ready, AccessShareLock);
	snapshot = qml_table_snapshot();
	scan = qml_index_beginscan(live.rel, ready, snapshot, 1);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(queue->id));
	index_rescan(scan, &key, 1, NULL, 0);
	while (index_getnext_slot(scan, ForwardScanDirection, live.slot))
	{
		CHECK_FOR_INTERRUPTS();
		if (qml_job_live_state(live.slot) == QML_ENQUEUED)
			count++;
	}
	index_endscan(scan);
	UnregisterSnapshot(snapshot);
	index_close(ready, NoLock);
	qml_table_close(&live);
	return count;
}

/*
 * False when there is no unfinished job of that id.  For qml itself: no capability is asked
 * for, and what is committed counts, at any isolation level.
 */
bool
qml_lookup_unfinished(const pg_uuid_t *id, QmlState *state)
{
	int count = qml_stores_in_use();
	Snapshot snapshot = qml_table_latest_snapshot();
	bool found = false;

	for (int i = 0; i < count && !found; i++)
	{
		QmlTable live;
		QmlJob job;

		qml_table_open(&live, qml_store(i)->live, AccessShareLock);
		found = qml_lookup_live(i, &live, id, snapshot, &job);
		if (found)
			*state = job.state;
		qml_table_close(&live);
	}
	UnregisterSnapshot(snapshot);
	return found;
}

/* Runs a query as the owner of qml's tables, and puts its rows into the store. */
static void
store_query(Tuplestorestate *store, TupleDesc desc, const char *sql)
{
	QmlSpi spi;
	uint64 rows;

	if (desc->natts > MAX_COLUMNS)
		elog(ERROR, "unexpected number of columns: %d", desc->natts);
	qml_spi_begin(&spi, qml_catalog()->owner);
	rows = qml_spi_execute(sql, 0, NULL, NULL, NULL, SPI_OK_SELECT);
	for (uint64 i = 0; i < rows; i++)
	{
		Datum values[MAX_COLUMNS];
		bool nulls[MAX_COLUMNS];

		for (int a = 0; a < desc->natts; a++)
			values[a] = qml_spi_value(SPI_tuptable, i, a + 1, TupleDescAttr(desc, a)->atttypid,
									  &nulls[a]);
		tuplestore_putvalues(store, desc, values, nulls);
	}
	qml_spi_end(&spi);
}

/* Queue and state of every job that there is.  The tables may differ in columns of somebody's own. */
#define ALL_JOBS                                                        \
	"(SELECT l.queue_id, l.state FROM qml.live l UNION ALL "            \
	"SELECT h.queue_id, h.state FROM qml.history h "                    \
	"WHERE h.expires_at > pg_catalog.statement_timestamp() "            \
	"UNION ALL SELECT o.queue_id, o.state FROM qml.history_overflow o " \
	"WHERE o.expires_at > pg_catalog.statement_timestamp())"

/* state, count: every state, also those that no job is in.  Without qml's own queue. */
void
qml_lookup_counts(Tuplestorestate *store, TupleDesc desc)
{
	qml_acl_require_any(QML_CAN_MONITOR);
	store_query(
		store, desc,
		psprintf("SELECT s.state, COALESCE(c.count, 0) "
				 "FROM pg_catalog.unnest(pg_catalog.enum_range(NULL::qml.job_state)) s (state) "
				 "LEFT JOIN (SELECT j.state, pg_catalog.count(*) AS count FROM " ALL_JOBS " j "
				 "WHERE j.queue_id <> %d GROUP BY j.state) c USING (state) ORDER BY s.state",
				 qml_queue_own_id()));
}

/* queue, state, count: where there are jobs.  Without qml's own queue. */
void
qml_lookup_queue_counts(Tuplestorestate *store, TupleDesc desc)
{
	qml_acl_require_any(QML_CAN_MONITOR);
	store_query(
		store, desc,
		psprintf("SELECT q.name, c.state, c.count FROM (SELECT j.queue_id, j.state, "
				 "pg_catalog.count(*) AS count FROM " ALL_JOBS " j "
				 "WHERE j.queue_id <> %d "
				 "GROUP BY j.queue_id, j.state) c JOIN qml.queue_data q ON q.id = c.queue_id "
				 "ORDER BY q.name, c.state",
				 qml_queue_own_id()));
}
