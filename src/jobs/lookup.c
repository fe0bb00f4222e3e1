/*
 * lookup.c
 *		Looking at jobs: one by its id.
 *
 * Nothing is changed, and no lock is taken but AccessShareLock.  Callers see jobs as
 * their capabilities allow: not at all, an outline, or with payload, result and errors.
 */
#include "postgres.h"

#include "access/genam.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "common/table.h"
#include "compat.h"
#include "ipc/beats.h"
#include "jobs/history.h"
#include "jobs/lookup.h"
#include "model/catalog.h"

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
 * with one snapshot, which it gives back: a job that is moving between them is seen in exactly
 * one.
 */
static void
find_by_snapshot(const pg_uuid_t *id, Snapshot snapshot, void (*use)(const QmlJob *job, void *arg),
				 void *arg)
{
	bool found = false;

	for (int i = 0; !found && i < qml_stores_in_use(); i++)
	{
		QmlTable live;

		qml_table_open(&live, qml_store(i)->live, AccessShareLock);
		found = find_in_store(i, &live, id, snapshot, use, arg);
		qml_table_close(&live);
	}
	UnregisterSnapshot(snapshot);
}

/* The same with the snapshot of a caller. */
static void
find_job(const pg_uuid_t *id, void (*use)(const QmlJob *job, void *arg), void *arg)
{
	/* Who empties the table, or writes it anew, does so before the snapshot, or after the call. */
	LockRelationOid(qml_store(QML_STORE_LOGGED)->live, AccessShareLock);
	find_by_snapshot(id, qml_table_snapshot(), use, arg);
}

/*
 * The same for a job as it is now, at any isolation level.  No capability is asked for.  Nothing is
 * called if there is no such job.
 */
void
qml_lookup_latest(const pg_uuid_t *id, void (*use)(const QmlJob *job, void *arg), void *arg)
{
	LockRelationOid(qml_store(QML_STORE_LOGGED)->live, AccessShareLock);
	find_by_snapshot(id, qml_table_latest_snapshot(), use, arg);
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
	QmlAccess access = qml_job_visibility(job);

	if (access != QML_ACCESS_NONE)
		found->row = qml_job_expected_row(job, access, found->expected);
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

	found->visible = qml_job_visibility(job) != QML_ACCESS_NONE;
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

/*
 * False when there is no unfinished job of that id.  For qml itself: no capability is asked
 * for, and what is committed counts, at any isolation level.
 */
bool
qml_lookup_unfinished(const pg_uuid_t *id, QmlState *state)
{
	Snapshot snapshot = qml_table_latest_snapshot();
	bool found = false;

	for (int i = 0; !found && i < qml_stores_in_use(); i++)
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
