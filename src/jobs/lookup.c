/*
 * lookup.c
 *		Looking at jobs: one by its id, and how many there are.
 */
#include "postgres.h"

#include "access/genam.h"
#include "executor/executor.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "common/spi.h"
#include "common/table.h"
#include "compat.h"
#include "jobs/history.h"
#include "jobs/lookup.h"
#include "model/acl.h"
#include "model/catalog.h"
#include "model/queue.h"

/* The job as the current user sees it; 0 when he does not. */
static Datum
show(const QmlJob *job)
{
	QmlAccess access = qml_acl_access(qml_queue_by_id(job->queue_id)->name, job->created_by);

	return access == QML_ACCESS_NONE ? (Datum) 0 : qml_job_to_row(job, access == QML_ACCESS_FULL);
}

static bool
find_live(QmlTable *live, const pg_uuid_t *id, Snapshot snapshot, QmlJob *job)
{
	Relation pkey = index_open(qml_catalog()->live_pkey, AccessShareLock);
	IndexScanDesc scan = qml_index_beginscan(live->rel, pkey, snapshot, 1);
	ScanKeyData key;
	bool found;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(id));
	index_rescan(scan, &key, 1, NULL, 0);
	found = index_getnext_slot(scan, ForwardScanDirection, live->slot);
	if (found)
		qml_job_from_live(live->slot, job);
	index_endscan(scan);
	index_close(pkey, NoLock);
	return found;
}

/* Finds a job that the current user may see, and gives it to `use` while it is there. */
static void
find(const pg_uuid_t *id, void (*use)(const QmlJob *job, void *arg), void *arg)
{
	/* One snapshot for both tables: a job on its way is in one of them. */
	Snapshot snapshot;
	QmlTable live;
	QmlTable leaf;
	QmlJob job;

	qml_table_open(&live, qml_catalog()->live, AccessShareLock);
	snapshot = qml_table_snapshot();
	if (find_live(&live, id, snapshot, &job))
		use(&job, arg);
	else if (qml_history_find(id, snapshot, AccessShareLock, &leaf, &job))
	{
		use(&job, arg);
		qml_table_close(&leaf);
	}
	UnregisterSnapshot(snapshot);
	qml_table_close(&live);
}

static void
use_row(const QmlJob *job, void *arg)
{
	*(Datum *) arg = show(job);
}

/* A value of type qml.job; 0 when there is no such job, or not for this user. */
Datum
qml_lookup_job(const pg_uuid_t *id)
{
	Datum row = (Datum) 0;

	find(id, use_row, &row);
	return row;
}

typedef struct State
{
	bool visible;
	QmlState state;
} State;

static void
use_state(const QmlJob *job, void *arg)
{
	State *state = arg;

	state->visible = qml_acl_access(qml_queue_by_id(job->queue_id)->name, job->created_by) !=
					 QML_ACCESS_NONE;
	state->state = job->state;
}

/* False when there is no such job, or not for this user. */
bool
qml_lookup_state(const pg_uuid_t *id, QmlState *state)
{
	State found = {.visible = false};

	find(id, use_state, &found);
	*state = found.state;
	return found.visible;
}

static void
read_into(Tuplestorestate *store, TupleDesc desc, const char *sql)
{
	QmlSpi spi;
	int natts = desc->natts;
	uint64 rows;

	qml_spi_begin(&spi, qml_catalog()->owner);
	rows = qml_spi_execute(sql, 0, NULL, NULL, NULL, SPI_OK_SELECT);
	for (uint64 i = 0; i < rows; i++)
	{
		Datum values[4];
		bool nulls[4];

		for (int a = 0; a < natts; a++)
			values[a] = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, a + 1,
									  &nulls[a]);
		tuplestore_putvalues(store, desc, values, nulls);
	}
	qml_spi_end(&spi);
}

/* state, count: every state, also those that no job is in. */
void
qml_lookup_counts(Tuplestorestate *store, TupleDesc desc)
{
	qml_acl_require_any(QML_CAN_MONITOR);
	read_into(store, desc,
			  "SELECT s.state, COALESCE(c.count, 0) "
			  "FROM pg_catalog.unnest(pg_catalog.enum_range(NULL::qml.job_state)) s (state) "
			  "LEFT JOIN (SELECT j.state, pg_catalog.count(*) AS count FROM "
			  "(SELECT l.state FROM qml.live l UNION ALL SELECT h.state FROM qml.history h "
			  "WHERE h.expires_at > pg_catalog.statement_timestamp()) j "
			  "GROUP BY j.state) c USING (state) ORDER BY s.state");
}

/* queue, state, count: where there are jobs. */
void
qml_lookup_queue_counts(Tuplestorestate *store, TupleDesc desc)
{
	qml_acl_require_any(QML_CAN_MONITOR);
	read_into(store, desc,
			  "SELECT q.name, c.state, c.count FROM (SELECT j.queue_id, j.state, "
			  "pg_catalog.count(*) AS count FROM "
			  "(SELECT l.queue_id, l.state FROM qml.live l UNION ALL "
			  "SELECT h.queue_id, h.state FROM qml.history h "
			  "WHERE h.expires_at > pg_catalog.statement_timestamp()) j "
			  "GROUP BY j.queue_id, j.state) c JOIN qml.queue q ON q.id = c.queue_id "
			  "ORDER BY q.name, c.state");
}
