/*
 * sweep.c
 *		Jobs whose time has come: promote those that are due, take back those that
 *		were lost.
 *
 * Any number of callers may do this at once.  None waits for a row that somebody
 * else is changing: it is passed over, and found by the next call if it still
 * needs anything.
 *
 * A pass is one subtransaction.  If it meets a job that cannot be changed (a row
 * that was edited by hand, a queue that is missing), it begins again with a
 * subtransaction for each job, and leaves out those that fail: no job can hide
 * the ones behind it.
 */
#include "postgres.h"

#include "access/genam.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "common/fault.h"
#include "common/log.h"
#include "common/subxact.h"
#include "compat.h"
#include "ipc/session_claim.h"
#include "ipc/shmem.h"
#include "jobs/transition.h"
#include "maintenance/sweep.h"
#include "model/catalog.h"

/* Attempts that a server may go down under. */
#define MAX_SERVERS_DOWN 3

typedef struct Pass
{
	bool (*wanted)(struct Pass *pass, TupleTableSlot *slot);
	void (*change)(struct Pass *pass, QmlJob *job);
	const char *server; /* whose jobs, or NULL */
	Oid role;			/* whose handlers' jobs */
	const QmlProblem *problem;
	const pg_uuid_t *ids; /* which jobs */
	int nids;
	int max;
	TimestampTz now;
	bool carefully; /* each job by itself */

	QmlWriter writer;
	MemoryContext row_context;
	TimestampTz next_lease; /* the earliest seen that is not over */
	int count;
	int failures;
	QmlFailure failure; /* the first of them */
	char *failed_id;
} Pass;

/* Changes the job in live.slot; false if somebody else is faster. */
static bool
change_row(Pass *pass, QmlWriter *writer)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(pass->row_context);
	QmlJob job;
	bool changed;

	qml_job_from_live(writer->live.slot, &job);
	pass->change(pass, &job);
	changed = qml_writer_put(writer, &job, false) == TM_Ok;
	MemoryContextSwitchTo(oldcontext);
	MemoryContextReset(pass->row_context);
	return changed;
}

typedef struct Single
{
	Pass *pass;
	ItemPointerData tid;
	bool changed;
} Single;

/* The same in a subtransaction, which needs a writer of its own. */
static void
change_single(void *arg)
{
	Single *single = arg;
	QmlWriter writer;

	qml_writer_open(&writer, false, true);
	single->changed = table_tuple_fetch_row_version(writer.live.rel, &single->tid,
													qml_writer_snapshot(&writer),
													writer.live.slot) &&
					  change_row(single->pass, &writer);
	qml_writer_close(&writer);
}

static char *
id_of(TupleTableSlot *slot)
{
	bool isnull;

	return qml_job_id_string(DatumGetUUIDP(slot_getattr(slot, LIVE_ID, &isnull)));
}

static bool
change_carefully(Pass *pass)
{
	Single single = {.pass = pass, .tid = pass->writer.live.slot->tts_tid};
	QmlFailure failure;

	if (qml_subxact_run(change_single, &single, &failure))
		return single.changed;
	MemoryContextReset(pass->row_context);
	if (pass->failures++ == 0)
	{
		pass->failure = failure;
		pass->failed_id = id_of(pass->writer.live.slot);
	}
	return false;
}

/* Handles the row in live.slot. */
static void
visit(Pass *pass)
{
	CHECK_FOR_INTERRUPTS();
	if (pass->carefully ? change_carefully(pass) : change_row(pass, &pass->writer))
		pass->count++;
}

static void
start_pass(Pass *pass)
{
	pass->count = 0;
	pass->next_lease = QML_NO_TIME;
	pass->row_context = AllocSetContextCreate(CurrentMemoryContext, "qml row",
											  ALLOCSET_DEFAULT_SIZES);
	qml_writer_open(&pass->writer, false, true);
	/* After the snapshot is taken, and so after all that it shows to have happened. */
	(void) qml_writer_snapshot(&pass->writer);
	pass->now = GetCurrentTimestamp();
}

/* Goes through the jobs that are due, the longest due first. */
static void
pass_over_due(void *arg)
{
	Pass *pass = arg;
	Relation due;
	IndexScanDesc scan;
	ScanKeyData key;

	start_pass(pass);
	due = index_open(qml_catalog()->live_due, RowExclusiveLock);
	scan = qml_index_beginscan(pass->writer.live.rel, due, qml_writer_snapshot(&pass->writer), 1);
	ScanKeyInit(&key, 1, BTLessEqualStrategyNumber, F_TIMESTAMPTZ_LE,
				TimestampTzGetDatum(pass->now));
	index_rescan(scan, &key, 1, NULL, 0);
	while (pass->count < pass->max &&
		   index_getnext_slot(scan, ForwardScanDirection, pass->writer.live.slot))
	{
		QML_FAULT("promote.after_select");
		visit(pass);
	}
	index_endscan(scan);
	index_close(due, NoLock);
	qml_writer_close(&pass->writer);
}

/*
 * Goes through all jobs, for those that are wanted.  Leases are in no index,
 * because a heartbeat would then not be a HOT update.
 */
static void
pass_over_all(void *arg)
{
	Pass *pass = arg;
	TableScanDesc scan;

	start_pass(pass);
	scan = table_beginscan(pass->writer.live.rel, qml_writer_snapshot(&pass->writer), 0, NULL);
	while (pass->count < pass->max &&
		   table_scan_getnextslot(scan, ForwardScanDirection, pass->writer.live.slot))
	{
		CHECK_FOR_INTERRUPTS();
		if (!pass->wanted(pass, pass->writer.live.slot))
			continue;
		QML_FAULT("reclaim.after_select");
		visit(pass);
	}
	table_endscan(scan);
	qml_writer_close(&pass->writer);
}

/* Goes through jobs by their ids, for those that are wanted. */
static void
pass_over_ids(void *arg)
{
	Pass *pass = arg;
	Relation pkey;
	IndexScanDesc scan;
	ScanKeyData key;

	start_pass(pass);
	pkey = index_open(qml_catalog()->live_pkey, RowExclusiveLock);
	scan = qml_index_beginscan(pass->writer.live.rel, pkey, qml_writer_snapshot(&pass->writer), 1);
	for (int i = 0; i < pass->nids; i++)
	{
		ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(&pass->ids[i]));
		index_rescan(scan, &key, 1, NULL, 0);
		if (index_getnext_slot(scan, ForwardScanDirection, pass->writer.live.slot) &&
			pass->wanted(pass, pass->writer.live.slot))
			visit(pass);
	}
	index_endscan(scan);
	index_close(pkey, NoLock);
	qml_writer_close(&pass->writer);
}

static int
run_pass(Pass *pass, void (*go)(void *arg))
{
	if (qml_subxact_run(go, pass, &pass->failure))
		return pass->count;
	pass->carefully = true;
	go(pass);
	if (pass->failures > 0 && qml_log_is_due(QML_LOG_JOBS))
		ereport(WARNING,
				(errcode(pass->failure.sqlerrcode),
				 errmsg_plural("%d job cannot be changed and is passed over",
							   "%d jobs cannot be changed and are passed over", pass->failures,
							   pass->failures),
				 errdetail("Job %s: %s (SQLSTATE %s).", pass->failed_id, pass->failure.message,
						   unpack_sql_state(pass->failure.sqlerrcode))));
	return pass->count;
}

static void
enqueue_again(Pass *pass, QmlJob *job)
{
	qml_transition_set(job, QML_ENQUEUED, pass->now);
}

/*
 * Enqueues up to max jobs that are due, the longest due first; returns how many.
 * *as_of becomes the time by which they were due.
 */
int
qml_sweep_promote(int max, TimestampTz *as_of)
{
	Pass pass = {.change = enqueue_again, .max = max};

	(void) qml_catalog_to_work();
	(void) run_pass(&pass, pass_over_due);
	QML_FAULT_AT_COMMIT("promote.before_commit");
	*as_of = pass.now;
	return pass.count;
}

/* Whether the session that a claim is bound to is no longer there. */
static bool
session_is_gone(Pass *pass, TupleTableSlot *slot)
{
	bool isnull;
	Datum value = slot_getattr(slot, LIVE_SERVER, &isnull);
	text *server;

	if (isnull || qml_job_live_state(slot) != QML_PROCESSING)
		return false;
	server = DatumGetTextPP(value);
	return qml_session_claim_is_gone(VARDATA_ANY(server), VARSIZE_ANY_EXHDR(server));
}

static bool
lease_is_over(Pass *pass, TupleTableSlot *slot)
{
	bool isnull;
	TimestampTz lease = DatumGetTimestampTz(slot_getattr(slot, LIVE_LEASE_EXPIRES_AT, &isnull));

	if (isnull)
		return session_is_gone(pass, slot);
	if (lease > pass->now && (pass->next_lease == QML_NO_TIME || lease < pass->next_lease))
		pass->next_lease = lease;
	return lease <= pass->now;
}

/* An attempt that did not end although its time was over, until its process did. */
static void
end_overdue(QmlJob *job, TimestampTz now)
{
	QmlJobError error = {.error = CStringGetTextDatum(qml_job_timeout_message(job)),
						 .error_type = CStringGetTextDatum(QML_TIMEOUT)};

	qml_transition_fail(job, &error, true, QML_NO_TIME, now);
}

/* It was not the one that its session ended under: the attempt does not count. */
static void
give_back(QmlJob *job, TimestampTz now)
{
	qml_transition_set(job, QML_ENQUEUED, now);
	job->uncounted++;
}

/*
 * A job whose server went down thrice under it is taken for the cause: it must not
 * do so for ever.
 */
static void
lose_with_session(QmlJob *job, TimestampTz now)
{
	char *server = TextDatumGetCString(job->server);
	QmlLoss loss = qml_session_claim_loss_of(server, &job->id, job->attempt);

	if (loss == QML_LOST_OVERDUE)
		end_overdue(job, now);
	else if (loss == QML_LOST_IN_GROUP)
	{
		/* The error keeps it out of groups from now on. */
		QmlJobError error = {.error = CStringGetTextDatum("session is gone"),
							 .error_type = CStringGetTextDatum("session_gone")};

		qml_job_add_error(job, &error, now);
		give_back(job, now);
	}
	else if (loss == QML_LOST_BESIDE)
		give_back(job, now);
	else if (!qml_session_claim_went_with_server(server))
		qml_transition_lose(job, "session is gone", "session_gone", now);
	else if (qml_job_count_errors(job, QML_SERVER_DOWN) < MAX_SERVERS_DOWN - 1)
		qml_transition_lose(job, "server went down", QML_SERVER_DOWN, now);
	else
		qml_transition_give_up(job, "server went down under each of several attempts",
							   QML_SERVER_DOWN, now);
}

static void
lose_claim(Pass *pass, QmlJob *job)
{
	if (job->lease_expires_at != QML_NO_TIME)
		qml_transition_lose(job, "lease expired", "lease_expired", pass->now);
	else
		lose_with_session(job, pass->now);
}

/*
 * Takes back up to max jobs whose lease is over, or whose session is gone; returns
 * how many.  *next becomes the earliest end of another lease, or QML_NO_TIME, if
 * fewer than max were taken.
 */
int
qml_sweep_reclaim(int max, TimestampTz *next)
{
	Pass pass = {.wanted = lease_is_over, .change = lose_claim, .max = max};

	(void) qml_catalog_to_work();
	(void) run_pass(&pass, pass_over_all);
	QML_FAULT_AT_COMMIT("reclaim.before_commit");
	*next = pass.next_lease;
	return pass.count;
}

/* Takes back those of some jobs whose session is gone; returns how many. */
int
qml_sweep_reclaim_ids(const pg_uuid_t *ids, int count)
{
	Pass pass = {.wanted = session_is_gone, .change = lose_claim, .ids = ids, .nids = count};

	(void) qml_catalog_to_work();
	(void) run_pass(&pass, pass_over_ids);
	QML_FAULT_AT_COMMIT("reclaim.before_commit");
	return pass.count;
}

/* The role whose handler a job is for; InvalidOid: it has none. */
Oid
qml_sweep_role_of(TupleTableSlot *slot)
{
	bool isnull;
	Datum method = slot_getattr(slot, LIVE_METHOD, &isnull);
	const QmlHandler *handler = qml_handler_of(method);

	return handler ? handler->run_as : InvalidOid;
}

/* Whether a ready job is for a handler of the role. */
static bool
is_for_role(Pass *pass, TupleTableSlot *slot)
{
	return qml_job_live_state(slot) == QML_ENQUEUED && qml_sweep_role_of(slot) == pass->role;
}

static void
reject(Pass *pass, QmlJob *job)
{
	QmlJobError error = {.error = CStringGetTextDatum(pass->problem->message),
						 .error_type = CStringGetTextDatum(
							 unpack_sql_state(pass->problem->sqlerrcode))};

	qml_job_add_error(job, &error, pass->now);
	qml_transition_set(job, QML_FAILED, pass->now);
}

/* Fails up to max ready jobs of a role that no worker can be; returns how many. */
int
qml_sweep_reject(Oid role, const QmlProblem *problem, int max)
{
	Pass pass = {.wanted = is_for_role,
				 .change = reject,
				 .max = max,
				 .role = role,
				 .problem = problem};

	(void) qml_catalog_to_work();
	return run_pass(&pass, pass_over_all);
}

static bool
belongs_to_server(Pass *pass, TupleTableSlot *slot)
{
	bool isnull;
	Datum value = slot_getattr(slot, LIVE_SERVER, &isnull);
	text *server;

	if (isnull || qml_job_live_state(slot) != QML_PROCESSING)
		return false;
	server = DatumGetTextPP(value);
	return VARSIZE_ANY_EXHDR(server) == strlen(pass->server) &&
		   memcmp(VARDATA_ANY(server), pass->server, strlen(pass->server)) == 0;
}

static void
lose_server(Pass *pass, QmlJob *job)
{
	qml_transition_lose(job, "server is gone", "server_gone", pass->now);
}

/* Takes back up to max jobs that workers of a server hold; returns how many. */
int
qml_sweep_reclaim_server(const char *server, int max)
{
	Pass pass = {.wanted = belongs_to_server, .change = lose_server, .max = max, .server = server};

	(void) run_pass(&pass, pass_over_all);
	QML_FAULT_AT_COMMIT("reclaim.before_commit");
	return pass.count;
}

static bool
is_processing(Pass *pass, TupleTableSlot *slot)
{
	return qml_job_live_state(slot) == QML_PROCESSING;
}

/* Enqueues all jobs again that are processing, their attempts counted. */
void
qml_sweep_requeue(void)
{
	Pass pass = {.wanted = is_processing, .change = enqueue_again, .max = INT_MAX};

	(void) run_pass(&pass, pass_over_all);
}

/* When the first job is due after a time; QML_NO_TIME: none is scheduled. */
TimestampTz
qml_sweep_next_due(TimestampTz after)
{
	return qml_table_first_after(qml_catalog()->live, qml_catalog()->live_due, after);
}
