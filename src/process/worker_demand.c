/*
 * worker_demand.c
 *		Asking for workers for the roles that have work: what a scheduler does about
 *		ready jobs that no worker is free for.
 *
 * Commits that make jobs ready leave the roles of their handlers in the scheduler's slot
 * (ipc/dispatch.c).  The scheduler also searches all ready jobs when it starts, now and
 * then, when the list was too short, and when no worker can run as one of the roles: the
 * search fails their jobs, and says why (maintenance/reject.c).  For each role with work
 * that is found it asks the launcher for one more worker.
 *
 * A search is made in pieces, each a transaction, so that it holds up no other step and
 * ends however many jobs there are.  What becomes ready behind it is left in the slot.  Jobs
 * come as often as they like for roles that need a search, so the next one begins only some
 * times as long after the last one as that took.
 *
 * Rows of jobs are not waited for.  What is taken from the slot and lost with a process or
 * an error is found by a search.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "common/clock.h"
#include "ipc/dispatch.h"
#include "maintenance/reject.h"
#include "process/worker_demand.h"
#include "userfn/handler.h"
#include "userfn/hook.h"

/* Jobs that a piece of a search fails at most. */
#define REJECT_BATCH 1000

/*
 * The part of the time, one in so many, that searches may take which are made because the
 * list of roles was too short: those roles wait for a worker.
 */
#define URGENT_SHARE 10

static List *served = NIL; /* by the search; roles, each once, in TopMemoryContext */

/* A search is to be made, and the next one may take one in so many parts of the time. */
static void
want_search(QmlWorkerDemand *demand, int share)
{
	demand->share = demand->wanted ? Min(demand->share, share) : share;
	demand->wanted = true;
}

/* Does a piece of the search. */
static void
search_piece(QmlWorkerDemand *demand, QmlSlot *scheduler)
{
	int64 begun = qml_clock_monotonic_ms();
	List *roles;
	bool over = qml_reject_search(&demand->walk, qml_hook_batch_size(REJECT_BATCH), &roles);
	ListCell *lc;

	foreach(lc, roles)
	{
		MemoryContext oldcontext;

		if (list_member_oid(served, lfirst_oid(lc)))
			continue;
		qml_dispatch_serve_role(scheduler, lfirst_oid(lc));
		oldcontext = MemoryContextSwitchTo(TopMemoryContext);
		served = lappend_oid(served, lfirst_oid(lc));
		MemoryContextSwitchTo(oldcontext);
	}
	demand->running = !over;
	demand->ended = qml_clock_monotonic_ms();
	demand->worked += demand->ended - begun;
}

/* Milliseconds until the search that is wanted may begin. */
static int64
time_left(const QmlWorkerDemand *demand)
{
	return Max(demand->ended + Max(demand->worked, 1) * demand->share - qml_clock_monotonic_ms(),
			   0);
}

/*
 * In a transaction: serves the roles that have work.  look: searches all ready jobs, also
 * if a search is running, which may have passed over what is meant.  Returns in how many
 * milliseconds it is to be called again (0: for the next piece of a search); PG_INT64_MAX:
 * when there is more work.
 */
int64
qml_worker_demand_serve(QmlWorkerDemand *demand, QmlSlot *scheduler, bool look)
{
	Oid roles[QML_MAX_ROLES];
	int nroles;

	Assert(IsTransactionState() && scheduler->kind == QML_SCHEDULER);
	if (look)
		want_search(demand, 0);
	if (qml_dispatch_take_roles(scheduler, roles, &nroles))
		want_search(demand, URGENT_SHARE);
	for (int i = 0; i < nroles; i++)
	{
		QmlProblem problem;

		if (qml_handler_role_usable(roles[i], &problem))
			qml_dispatch_serve_role(scheduler, roles[i]);
		else
			want_search(demand, QML_WALK_SHARE);
	}
	if (!demand->running && demand->wanted && time_left(demand) == 0)
	{
		demand->wanted = false;
		demand->running = true;
		demand->worked = 0;
		memset(&demand->walk, 0, sizeof(demand->walk));
		list_free(served);
		served = NIL;
	}
	if (demand->running)
		search_piece(demand, scheduler);
	if (demand->running)
		return 0;
	return demand->wanted ? time_left(demand) : PG_INT64_MAX;
}
