/*
 * sandbox.c
 *		Keeps cursors and large objects apart between functions of different roles.
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
 * are allowed.  The check is made by object_access_hook, when an expression that calls
 * the function is initialized.
 *
 * Each of these is undone by the function that did it, in a PG_FINALLY: nothing here
 * outlives the (sub)transaction.
 */
#include "postgres.h"

#include "catalog/objectaccess.h"
#include "catalog/pg_proc.h"
#include "nodes/memnodes.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/portal.h"

#include "userfn/sandbox.h"

/* Names that portalmem.c gives; the second one is the identifier of the unnamed portal. */
#define TOP_CONTEXT "TopPortalContext"
#define UNNAMED		"<unnamed>"

static object_access_hook_type previous_access = NULL;
static bool forbidden = false;
static bool used_allowed = false; /* an expression was initialized while they were allowed */

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

/* ----- descriptors of large objects ----- */

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

/* object_access_hook: raises an error where a descriptor would be used and must not be. */
static void
check_access(ObjectAccessType access, Oid classid, Oid objectid, int subid, void *arg)
{
	if (previous_access)
		previous_access(access, classid, objectid, subid, arg);
	if (access != OAT_FUNCTION_EXECUTE || classid != ProcedureRelationId ||
		!takes_descriptor(objectid))
		return;
	if (!forbidden)
		used_allowed = true;
	else
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("a hook or middleware cannot use descriptors of large objects"),
				 errdetail("Other functions in the transaction could use them as well."),
				 errhint("Use lo_get() and lo_put() instead.")));
}

/* Forbids descriptors of large objects, or allows them; returns what held before. */
bool
qml_sandbox_forbid_lobjects(bool forbid)
{
	bool was = forbidden;

	forbidden = forbid;
	/*
	 * PL/pgSQL keeps initialized expressions until the transaction ends, and would run
	 * them without a check; not if their plans are invalid.
	 */
	if (forbid && used_allowed)
	{
		used_allowed = false;
		ResetPlanCache();
	}
	return was;
}

/* Called when the library is loaded. */
void
qml_sandbox_init(void)
{
	previous_access = object_access_hook;
	object_access_hook = check_access;
}
