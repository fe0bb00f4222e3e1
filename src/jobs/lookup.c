/*
 * lookup.c
 *		Looking at jobs: one by its id, and how many there are.
 *
 * Nothing is changed, and no lock is taken but AccessShareLock.  Callers see jobs as
 * their capabilities allow: not at all, an outline, or with payload, result and errors.
 */
#include "postgres.h"

#include "access/genam.h"
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

/* Most columns of a query below. */
#define MAX_COLUMNS 3

/* How much of the job the current user may see. */
static QmlAccess
access_to(const QmlJob *job)
{
	return qml_acl_access(qml_queue_require(job->queue_id)->name, job->created_by);
}

/* Finds an unfinished job; its values are in live's slot. */
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

/*
 * Finds a job and calls `use`, for which its values are valid.  Both tables are searched
 * with one snapshot: a job that is moving between them is seen in exactly one.
 */
static void
find_job(const pg_uuid_t *id, void (*use)(const QmlJob *job, void *arg), void *arg)
{
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
	QmlAccess access = access_to(job);

	if (access != QML_ACCESS_NONE)
		*(Datum *) arg = qml_job_to_row(job, access == QML_ACCESS_FULL);
}

/* A value of type qml.job; 0 when there is no such job, or not for this user. */
Datum
qml_lookup_job(const pg_uuid_t *id)
{
	Datum row = (Datum) 0;

	find_job(id, use_row, &row);
	return row;
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

/* Runs a query as the owner of qml's tables, and puts its rows into the store. */
static void
store_query(Tuplestorestate *store, TupleDesc desc, const char *sql)
{
	QmlSpi spi;
	uint64 rows;

	Assert(desc->natts <= MAX_COLUMNS);
	qml_spi_begin(&spi, qml_catalog()->owner);
	rows = qml_spi_execute(sql, 0, NULL, NULL, NULL, SPI_OK_SELECT);
	for (uint64 i = 0; i < rows; i++)
	{
		Datum values[MAX_COLUMNS];
		bool nulls[MAX_COLUMNS];

		for (int a = 0; a < desc->natts; a++)
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
	store_query(store, desc,
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
	store_query(store, desc,
				"SELECT q.name, c.state, c.count FROM (SELECT j.queue_id, j.state, "
				"pg_catalog.count(*) AS count FROM "
				"(SELECT l.queue_id, l.state FROM qml.live l UNION ALL "
				"SELECT h.queue_id, h.state FROM qml.history h "
				"WHERE h.expires_at > pg_catalog.statement_timestamp()) j "
				"GROUP BY j.queue_id, j.state) c JOIN qml.queue_data q ON q.id = c.queue_id "
				"ORDER BY q.name, c.state");
}
