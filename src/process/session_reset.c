/*
 * session_reset.c
 *		Making the session as it was, between two jobs.
 *
 * A worker runs the jobs of a role one after the other in one session.  None may find
 * what another left there: settings, cursors, temporary tables, prepared statements,
 * advisory locks, currval(), open large objects, the seed of random(), a replication
 * origin, temporary replication slots.  DISCARD ALL would do most of this, but is not
 * allowed in a transaction, and would throw away the plans that make short jobs fast.
 *
 *	 after a job in a transaction	leftovers, large objects, temporary tables; its
 *									settings are undone by the caller's level of them
 *	 after a procedure				leftovers, all settings, temporary tables: it may have
 *									committed what it set and made
 *	 after an error					leftovers: the rest was rolled back
 *
 * Nothing here is shared: a process that ends needs no reset.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "commands/prepare.h"
#include "commands/sequence.h"
#include "common/pg_prng.h"
#include "libpq/be-fsstubs.h"
#include "replication/origin.h"
#include "replication/slot.h"
#include "storage/lock.h"
#include "tcop/utility.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "process/session_reset.h"

/*
 * After so many jobs that may have made temporary objects the caches are emptied: they
 * keep an entry for each lookup that found nothing, such as the statistics of a column.
 */
#define MAX_TEMPORARY_JOBS 250

static ProcessUtility_hook_type previous_utility = NULL;
static int temporary_jobs = 0;		 /* since the caches were emptied */
static bool constraints_set = false; /* in this transaction */

/* SET CONSTRAINTS holds to the end of the transaction: no other job may share it. */
static void
watch_utility(PlannedStmt *statement, const char *query, bool readonly,
			  ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *environment,
			  DestReceiver *dest, QueryCompletion *completion)
{
	if (IsA(statement->utilityStmt, ConstraintsSetStmt))
		constraints_set = true;
	(previous_utility ? previous_utility : standard_ProcessUtility)(statement, query, readonly,
																	context, params, environment,
																	dest, completion);
}

/*
 * As the end of a session does.  With an origin, the commits of the next job and of qml would
 * be taken for those of another server.  A slot that an error left acquired is in the way of
 * all others.
 */
static void
reset_replication(void)
{
	if (replorigin_session_origin != InvalidRepOriginId)
	{
		replorigin_session_reset();
		replorigin_session_origin = InvalidRepOriginId;
		replorigin_session_origin_lsn = InvalidXLogRecPtr;
		replorigin_session_origin_timestamp = 0;
	}
	if (MyReplicationSlot)
		ReplicationSlotRelease();
	qml_replication_slots_drop_temporary();
}

/* What the end of a transaction leaves in the session, whether it committed or not. */
void
qml_session_reset_leftovers(void)
{
	PortalHashTableDeleteAll();
	DropAllPreparedStatements();
	ResetSequenceCaches();
	LockReleaseSession(USER_LOCKMETHOD);
	reset_replication();
	/* A job may know what follows the seed that it has set. */
	(void) DirectFunctionCall1(setseed,
							   Float8GetDatum(pg_prng_double(&pg_global_prng_state) * 2 - 1));
	if (MyXactFlags & XACT_FLAGS_ACCESSEDTEMPNAMESPACE)
		temporary_jobs++;
}

/* Dropping reads catalogs whose values may be toasted, which needs a snapshot. */
static void
drop_temporary_objects(void)
{
	PushActiveSnapshot(GetTransactionSnapshot());
	ResetTempTableNamespace();
	PopActiveSnapshot();
}

/* In the transaction of a job that has ended well, and that others may share. */
void
qml_session_reset_after_function(void)
{
	Assert(IsTransactionState());
	qml_session_reset_leftovers();
	/* As at the end of the transaction: the next job could read what is open. */
	AtEOXact_LargeObject(true);
	if (MyXactFlags & XACT_FLAGS_ACCESSEDTEMPNAMESPACE)
		drop_temporary_objects();
}

/* In a transaction: after a procedure, which may have committed what it set and made. */
void
qml_session_reset_after_procedure(void)
{
	Assert(IsTransactionState());
	qml_session_reset_leftovers();
	ResetAllOptions();
	/* Those that ResetAllOptions() leaves out. */
	SetPGVariable("session_authorization", NIL, false);
	SetPGVariable("role", NIL, false);
	drop_temporary_objects();
	temporary_jobs++;
}

/* In a transaction that has just begun. */
void
qml_session_reset_at_begin(void)
{
	Assert(IsTransactionState());
	constraints_set = false;
	if (temporary_jobs < MAX_TEMPORARY_JOBS)
		return;
	InvalidateSystemCaches();
	temporary_jobs = 0;
}

/* Whether a job of the transaction has said when constraints are checked. */
bool
qml_session_reset_constraints_set(void)
{
	return constraints_set;
}

void
qml_session_reset_init(void)
{
	previous_utility = ProcessUtility_hook;
	ProcessUtility_hook = watch_utility;
}
