/*
 * sandbox.c
 *		What functions of users must not share with others of their transaction:
 *		cursors, and large objects by descriptor.
 *
 * A cursor reads with the rights of the role that opened it, whoever fetches, and is
 * found by its name alone.  One that counts as active can neither be fetched from
 * nor be closed, not even by CLOSE ALL.
 *
 * The server has no list of portals for others, but each has a memory context below
 * one of that name, whose identifier is the portal's name (CreatePortal).  To ask
 * pg_cursors for each call of a hook would cost more than most hooks.
 *
 * A descriptor of a large object belongs to the transaction, reads and writes with the
 * rights of the role that opened it, whoever uses it, and is found by its number alone:
 * 0, 1, 2.  So hooks and middleware, which run in the transactions of others, cannot use
 * any.  What opens and closes a large object in one call, such as lo_get(), needs none.
 * A function is looked at when an expression that calls it is made ready.
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

#define TOP_CONTEXT "TopPortalContext"
#define UNNAMED		"<unnamed>"

static object_access_hook_type previous_access = NULL;
static bool forbidden = false;
static bool was_ready = false; /* an expression may be that was made ready while it was not */

/* ----- cursors ----- */

/* The parent of the contexts of all portals, which is there as long as the session. */
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

/* The portal of a context; NULL when it is of something else. */
static Portal
portal_of(MemoryContext context)
{
	Portal portal;

	if (context->ident == NULL)
		return NULL;
	portal = GetPortalByName(context->ident);
	/* Somebody may have given one the name that stands for none. */
	if (!(PortalIsValid(portal) && portal->portalContext == context) &&
		strcmp(context->ident, UNNAMED) == 0)
		portal = GetPortalByName("");
	return PortalIsValid(portal) && portal->portalContext == context ? portal : NULL;
}

/* All cursors that could be fetched from, in the current memory context. */
static List *
find_ready(void)
{
	List *ready = NIL;

	for (MemoryContext context = find_top_context()->firstchild; context;
		 context = context->nextchild)
	{
		Portal portal = portal_of(context);

		if (PortalIsValid(portal) && portal->status == PORTAL_READY)
			ready = lappend(ready, portal);
	}
	return ready;
}

/*
 * Hides all cursors that could be fetched from; qml_sandbox_show_portals() must follow before
 * the subtransaction ends.
 */
List *
qml_sandbox_hide_portals(void)
{
	List *ready = find_ready();
	ListCell *lc;

	foreach(lc, ready)
	{
		Portal portal = lfirst(lc);

		portal->status = PORTAL_ACTIVE;
		portal->visible = false;
	}
	return ready;
}

/* Closes what was opened since the others were hidden. */
void
qml_sandbox_close_other_portals(void)
{
	ListCell *lc;

	foreach(lc, find_ready())
		PortalDrop(lfirst(lc), false);
}

/* They cannot have been closed meanwhile. */
void
qml_sandbox_show_portals(List *hidden)
{
	ListCell *lc;

	foreach(lc, hidden)
	{
		Portal portal = lfirst(lc);

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

static void
look_at_access(ObjectAccessType access, Oid classid, Oid objectid, int subid, void *arg)
{
	if (previous_access)
		previous_access(access, classid, objectid, subid, arg);
	if (access != OAT_FUNCTION_EXECUTE || classid != ProcedureRelationId ||
		!takes_descriptor(objectid))
		return;
	if (!forbidden)
		was_ready = true;
	else
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("a hook or middleware cannot use descriptors of large objects"),
				 errdetail("Others in the transaction could use them, too."),
				 errhint("Use lo_get() and lo_put().")));
}

/* From now on, or no longer; returns what it was. */
bool
qml_sandbox_forbid_lobjects(bool forbid)
{
	bool was = forbidden;

	forbidden = forbid;
	/* PL/pgSQL keeps those to the end of the transaction, as long as their plans hold. */
	if (forbid && was_ready)
	{
		was_ready = false;
		ResetPlanCache();
	}
	return was;
}

void
qml_sandbox_init(void)
{
	previous_access = object_access_hook;
	object_access_hook = look_at_access;
}
