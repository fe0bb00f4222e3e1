/*
 * worker_demand.c
 *		Workers for the roles that have work: what a scheduler does about ready jobs
 *		that no worker is free for.
 *
 * It learns of them at commit (ipc/dispatch.c), and looks itself when it starts, now and
 * then, and when it was not told which.  For each role it asks the launcher for one
 * more worker; when no worker can be the role, its ready jobs fail and say why.
 */
#include "postgres.h"

#include "access/tableam.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/snapmgr.h"

#include "common/guc.h"
#include "common/table.h"
#include "compat.h"
#include "ipc/dispatch.h"
#include "maintenance/reject.h"
#include "model/catalog.h"
#include "model/job.h"
#include "process/worker_demand.h"
#include "userfn/handler.h"
#include "userfn/hook.h"

/* All roles whose handlers have ready jobs, by looking at them. */
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

static void
serve(QmlSlot *scheduler, Oid role)
{
	QmlProblem problem;
	int batch = qml_hook_batch(INT_MAX);

	if (qml_handler_role_usable(role, &problem))
		qml_dispatch_find_worker(scheduler, role);
	else if (qml_reject_jobs(role, &problem, batch) == batch)
		qml_dispatch_recheck_all();
}

/* In a transaction: sees to the roles that have work; look: also to those not told of. */
void
qml_worker_demand_serve(QmlSlot *scheduler, bool look)
{
	Oid roles[QML_MAX_ROLES];
	int nroles;
	bool any = qml_dispatch_take_roles(scheduler, roles, &nroles);
	ListCell *lc;

	if (any || look)
	{
		foreach(lc, find_roles())
			serve(scheduler, lfirst_oid(lc));
	}
	else
	{
		for (int i = 0; i < nroles; i++)
			serve(scheduler, roles[i]);
	}
}
