/*
 * sandbox.c
 *		Keeps functions of different roles apart that share a session.
 *
 * Hooks, middleware and handlers of different roles run in one transaction.  Two things
 * of a transaction work with the rights of the role that opened them, no matter who uses
 * them: cursors, which are found by name, and descriptors of large objects, which are
 * found by number (0, 1, 2).
 *
 * Cursors are hidden by marking their portals as active: such a portal can neither be
 * fetched from nor closed, not even by CLOSE ALL.  The server has no function that lists
 * portals, but each has a memory context below TopPortalContext whose identifier is the
 * portal's name (CreatePortal).  A query of pg_cursors for each call of a hook would cost
 * more than most hooks.
 *
 * Descriptors cannot be hidden.  So hooks and middleware may not call the functions that
 * take one.  Functions that open and close a large object in one call, such as lo_get(),
 * are allowed.
 *
 * A hook runs in the transaction of a caller who did not ask for it, and may not leave
 * anything with that caller: no notification and no session-level advisory lock.  A
 * middleware is part of its job, and may.  Neither may SET CONSTRAINTS, which makes deferred
 * triggers of others fire at once, as the role of the hook or middleware.
 *
 * Functions are checked by object_access_hook, when an expression that calls one is
 * initialized; statements by ProcessUtility_hook.  What C code calls directly is seen by
 * neither.
 *
 * Each of these is undone by the function that did it, in a PG_FINALLY: nothing here
 * outlives the (sub)transaction.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_proc.h"
#include "nodes/memnodes.h"
#include "tcop/utility.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/portal.h"

#include "userfn/sandbox.h"

/* Names that portalmem.c gives; the second one is the identifier of the unnamed portal. */
#define TOP_CONTEXT "TopPortalContext"
#define UNNAMED		"<unnamed>"

static object_access_hook_type previous_access = NULL;
static ProcessUtility_hook_type previous_utility = NULL;
static QmlSandbox current = QML_SANDBOX_NONE;

/*
 * By the lowest sandbox that forbids it: a function was made ready to be called in this
 * transaction, since plans were made invalid for the last time.
 */
static bool used[QML_SANDBOX_HOOK + 1];
static bool any_used = false;

/* ----- cursors ----- */

/* The parent of the contexts of all portals; it exists as long as the session. */
static MemoryContext
find_top_context(void)
{
	static MemoryContext found = NULL;

	if (found)
		return found;
	for (MemoryContext context = TopMemoryContext->firstchild; context;
		 context = context->nextchild)
	{
		if (strcmp(context->name, TOP_CONTEXT) == 0)
			return found = context;
	}
	elog(ERROR, "there is no memory context \"%s\"", TOP_CONTEXT);
	return NULL;
}

/* The portal that a context belongs to; NULL when there is none. */
static Portal
find_portal(MemoryContext context)
{
	Portal portal;

	if (context->ident == NULL)
		return NULL;
	portal = GetPortalByName(context->ident);
	/* A cursor can have this very name, and then it is found instead of the unnamed one. */
	if (!(PortalIsValid(portal) && portal->portalContext == context) &&
		strcmp(context->ident, UNNAMED) == 0)
		portal = GetPortalByName("");
	return PortalIsValid(portal) && portal->portalContext == context ? portal : NULL;
}

/* All cursors that can be fetched from, in the current memory context. */
static List *
list_ready_portals(void)
{
	List *ready = NIL;

	for (MemoryContext context = find_top_context()->firstchild; context;
		 context = context->nextchild)
	{
		Portal portal = find_portal(context);

		if (PortalIsValid(portal) && portal->status == PORTAL_READY)
			ready = lappend(ready, portal);
	}
	return ready;
}

/*
 * Hides all cursors that can be fetched from, and returns them.
 * qml_sandbox_show_portals() must follow before the (sub)transaction ends.
 */
List *
qml_sandbox_hide_portals(void)
{
	List *ready = list_ready_portals();
	ListCell *lc;

	foreach(lc, ready)
	{
		Portal portal = lfirst(lc);

		portal->status = PORTAL_ACTIVE;
		portal->visible = false;
	}
	return ready;
}

/* Closes the cursors that were opened since the others were hidden. */
void
qml_sandbox_close_other_portals(void)
{
	ListCell *lc;

	foreach(lc, list_ready_portals())
		PortalDrop(lfirst(lc), false);
}

/* Shows the cursors again.  As active ones, they cannot have been closed. */
void
qml_sandbox_show_portals(List *hidden)
{
	ListCell *lc;

	foreach(lc, hidden)
	{
		Portal portal = lfirst(lc);

		Assert(portal->status == PORTAL_ACTIVE);
		portal->status = PORTAL_READY;
		portal->visible = true;
	}
}

/* ----- functions and statements ----- */

static bool
takes_descriptor(Oid function)
{
	switch (function)
	{
		case F_LO_OPEN:
		case F_LO_CLOSE:
		case F_LOREAD:
		case F_LOWRITE:
		case F_LO_LSEEK:
		case F_LO_LSEEK64:
		case F_LO_TELL:
		case F_LO_TELL64:
		case F_LO_TRUNCATE:
		case F_LO_TRUNCATE64:
			return true;
		default:
			return false;
	}
}

/* Takes an advisory lock that outlives the transaction, or gives one back. */
static bool
locks_session(Oid function)
{
	switch (function)
	{
		case F_PG_ADVISORY_LOCK_INT8:
		case F_PG_ADVISORY_LOCK_INT4_INT4:
		case F_PG_ADVISORY_LOCK_SHARED_INT8:
		case F_PG_ADVISORY_LOCK_SHARED_INT4_INT4:
		case F_PG_TRY_ADVISORY_LOCK_INT8:
		case F_PG_TRY_ADVISORY_LOCK_INT4_INT4:
		case F_PG_TRY_ADVISORY_LOCK_SHARED_INT8:
		case F_PG_TRY_ADVISORY_LOCK_SHARED_INT4_INT4:
		case F_PG_ADVISORY_UNLOCK_INT8:
		case F_PG_ADVISORY_UNLOCK_INT4_INT4:
		case F_PG_ADVISORY_UNLOCK_SHARED_INT8:
		case F_PG_ADVISORY_UNLOCK_SHARED_INT4_INT4:
		case F_PG_ADVISORY_UNLOCK_ALL:
			return true;
		default:
			return false;
	}
}

/* The lowest sandbox in which the function is forbidden; QML_SANDBOX_NONE: in no one. */
static QmlSandbox
forbidden_from(Oid function)
{
	if (takes_descriptor(function))
		return QML_SANDBOX_MIDDLEWARE;
	if (function == F_PG_NOTIFY || locks_session(function))
		return QML_SANDBOX_HOOK;
	return QML_SANDBOX_NONE;
}

static void
refuse_function(Oid function)
{
	if (takes_descriptor(function))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("a hook or middleware cannot use descriptors of large objects"),
				 errdetail("Other functions in the transaction could use them as well."),
				 errhint("Use lo_get() and lo_put() instead.")));
	if (locks_session(function))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("a hook cannot use session-level advisory locks"),
				 errdetail("They belong to the session that called the hook."),
				 errhint("Use pg_advisory_xact_lock() instead.")));
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("a hook cannot execute %s", "NOTIFY"),
			 errdetail("The notification would be part of the transaction that called the hook."),
			 errhint("Register the hook with the option {\"after_commit\": true}.")));
}

/* object_access_hook: raises an error where a function is called that is forbidden. */
static void
check_access(ObjectAccessType access, Oid classid, Oid objectid, int subid, void *arg)
{
	QmlSandbox from;

	if (previous_access)
		previous_access(access, classid, objectid, subid, arg);
	if (access != OAT_FUNCTION_EXECUTE || classid != ProcedureRelationId)
		return;
	from = forbidden_from(objectid);
	if (from == QML_SANDBOX_NONE)
		return;
	if (current >= from)
		refuse_function(objectid);
	used[from] = true;
	any_used = true;
}

/* It would also fire the triggers that others have deferred, with the rights of the function's role. */
static void
refuse_set_constraints(void)
{
	if (current == QML_SANDBOX_HOOK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("a hook cannot execute %s", "SET CONSTRAINTS"),
				 errdetail("It would hold for the rest of the transaction that called the hook.")));
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("a middleware cannot execute %s", "SET CONSTRAINTS"),
			 errdetail("Triggers that the handler has deferred would fire with the rights of the "
					   "middleware's role.")));
}

/* ProcessUtility_hook: the same for statements. */
static void
check_utility(PlannedStmt *statement, const char *query, bool readonly,
			  ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *environment,
			  DestReceiver *dest, QueryCompletion *completion)
{
	if (current == QML_SANDBOX_HOOK && IsA(statement->utilityStmt, NotifyStmt))
		refuse_function(F_PG_NOTIFY);
	if (current != QML_SANDBOX_NONE && IsA(statement->utilityStmt, ConstraintsSetStmt))
		refuse_set_constraints();
	(previous_utility ? previous_utility : standard_ProcessUtility)(statement, query, readonly,
																	context, params, environment,
																	dest, completion);
}

static void
forget_used(void)
{
	memset(used, 0, sizeof(used));
	any_used = false;
}

/* Nothing that is ready to be called outlives the transaction. */
static void
end_transaction(XactEvent event, void *arg)
{
	if (any_used &&
		(event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE))
		forget_used();
}

/* A function of this kind runs from now on; returns what held before. */
QmlSandbox
qml_sandbox_enter(QmlSandbox sandbox)
{
	QmlSandbox was = current;

	current = sandbox;
	/*
	 * PL/pgSQL keeps initialized expressions until the transaction ends, and would run
	 * them without a check; not if their plans are invalid.
	 */
	for (int from = 1; from <= (int) sandbox; from++)
	{
		if (!used[from])
			continue;
		forget_used();
		ResetPlanCache();
		break;
	}
	return was;
}

/* Called when the library is loaded. */
void
qml_sandbox_init(void)
{
	previous_access = object_access_hook;
	object_access_hook = check_access;
	previous_utility = ProcessUtility_hook;
	ProcessUtility_hook = check_utility;
	RegisterXactCallback(end_transaction, NULL);
}
