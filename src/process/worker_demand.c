/*
 * worker_demand.c
 *		Asking for workers for the roles that have work: what a scheduler does about
 *		ready jobs that no worker is free for.
 *
 * Commits that make jobs ready leave the roles of their handlers in the scheduler's slot
 * (ipc/dispatch.c).  The scheduler also reads all ready jobs when it starts, now and then,
 * and when the list was too short.  For each role it asks the launcher for one more
 * worker.  If no worker can run as the role, its ready jobs fail, and say why.
 *
 * Rows of jobs are not waited for.  What is taken from the slot and lost with a process or
 * an error is found by reading.
 */
#include "postgres.h"

#include "access/tableam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "utils/snapmgr.h"

#include "common/table.h"
#include "ipc/dispatch.h"
#include "maintenance/reject.h"
#include "model/catalog.h"
#include "model/job.h"
#include "process/worker_demand.h"
#include "userfn/handler.h"
#include "userfn/hook.h"

/* All roles whose handlers have ready jobs, by reading the jobs. */
static List *
find_roles(void)
{
	Snapshot snapshot = qml_table_snapshot();
	List *roles = NIL;
	QmlTable live;
	TableScanDesc scan;

	qml_table_open(&live, qml_catalog()->live, AccessShareLock);
	scan = table_beginscan(live.rel, snapshot, 0, NULL);
	while (table_scan_getnextslot(scan, ForwardScanDirection, live.slot))
	{
		CHECK_FOR_INTERRUPTS();
		if (qml_job_live_state(live.slot) == QML_ENQUEUED)
			roles = list_append_unique_oid(roles, qml_reject_role_of(live.slot));
	}
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	qml_table_close(&live);
	return list_delete_oid(roles, InvalidOid);
}

/* Wakes a worker of the role, or asks for one; or fails its ready jobs. */
static void
serve_role(QmlSlot *scheduler, Oid role)
{
	QmlProblem problem;
	int batch = qml_hook_batch_size(INT_MAX);

	if (qml_handler_role_usable(role, &problem))
		qml_dispatch_serve_role(scheduler, role);
	else if (qml_reject_jobs(role, &problem, batch) == batch)
		qml_dispatch_recheck_all();
}

/* In a transaction: serves the roles that have work; look: reads the jobs to find all. */
void
qml_worker_demand_serve(QmlSlot *scheduler, bool look)
{
	Oid roles[QML_MAX_ROLES];
	int nroles;
	bool any = qml_dispatch_take_roles(scheduler, roles, &nroles);
	ListCell *lc;

	Assert(IsTransactionState() && scheduler->kind == QML_SCHEDULER);
	if (any || look)
	{
		foreach(lc, find_roles())
			serve_role(scheduler, lfirst_oid(lc));
	}
	else
	{
		for (int i = 0; i < nroles; i++)
			serve_role(scheduler, roles[i]);
	}
}
