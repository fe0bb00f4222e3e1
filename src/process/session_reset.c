/*
 * session_reset.c
 *		Between two jobs the session is made as it was: settings, cursors, temporary
 *		tables, prepared statements, advisory locks, currval(), large objects.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "commands/prepare.h"
#include "commands/sequence.h"
#include "libpq/be-fsstubs.h"
#include "storage/lock.h"
#include "tcop/utility.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/portal.h"

#include "compat.h"
#include "process/session_reset.h"

/*
 * Jobs that may have made temporary objects, until what the caches keep of those is
 * thrown away: that somebody looked in vain for the statistics of a column, and such.
 */
#define MAX_TEMPORARY 250

static ProcessUtility_hook_type previous_utility = NULL;
static int temporary_jobs = 0; /* since the caches were emptied */
static bool constraints_set = false;

/* SET CONSTRAINTS holds to the end of the transaction: no other job shall be in it. */
static void
utility(PlannedStmt *statement, const char *query, bool readonly, ProcessUtilityContext context,
		ParamListInfo params, QueryEnvironment *environment, DestReceiver *dest,
		QueryCompletion *completion)
{
	if (IsA(statement->utilityStmt, ConstraintsSetStmt))
		constraints_set = true;
	(previous_utility ? previous_utility : standard_ProcessUtility)(statement, query, readonly,
																	context, params, environment,
																	dest, completion);
}

/* What the end of a transaction leaves in the session, in whichever way it ended. */
void
qml_session_reset_outside(void)
{
	PortalHashTableDeleteAll();
	DropAllPreparedStatements();
	ResetSequenceCaches();
	LockReleaseSession(USER_LOCKMETHOD);
	/* What setseed() made known before. */
	(void) DirectFunctionCall1(setseed, Float8GetDatum(qml_random() * 2 - 1));
	if (MyXactFlags & XACT_FLAGS_ACCESSEDTEMPNAMESPACE)
		temporary_jobs++;
}

/* In the transaction of a job that has ended well: nothing of it stays behind. */
void
qml_session_reset_session(void)
{
	qml_session_reset_outside();
	/* As at the end of the transaction: the next job could read what is open. */
	AtEOXact_LargeObject(true);
	if (MyXactFlags & XACT_FLAGS_ACCESSEDTEMPNAMESPACE)
		ResetTempTableNamespace();
}

/* In a transaction: after a procedure, which may have committed what it set and made. */
void
qml_session_reset_committed(void)
{
	qml_session_reset_outside();
	ResetAllOptions();
	/* Those that ResetAllOptions() leaves out. */
	SetPGVariable("session_authorization", NIL, false);
	SetPGVariable("role", NIL, false);
	ResetTempTableNamespace();
	temporary_jobs++;
}

/* In a transaction that has just begun. */
void
qml_session_reset_begin(void)
{
	constraints_set = false;
	if (temporary_jobs < MAX_TEMPORARY)
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
	ProcessUtility_hook = utility;
}
