/*
 * portal.c
 *		Cursors that are out of reach for a while.
 *
 * A cursor reads with the rights of the role that opened it, whoever fetches, and is
 * found by its name alone.  One that counts as active can neither be fetched from
 * nor be closed, not even by CLOSE ALL.
 *
 * The server has no list of portals for others, but each has a memory context below
 * one of that name, whose identifier is the portal's name (CreatePortal).  To ask
 * pg_cursors for each call of a hook would cost more than most hooks.
 */
#include "postgres.h"

#include "nodes/memnodes.h"
#include "utils/memutils.h"
#include "utils/portal.h"

#include "userfn/portal.h"

#define TOP_CONTEXT "TopPortalContext"
#define UNNAMED		"<unnamed>"

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
 * Hides all cursors that could be fetched from; qml_portal_show() must follow before
 * the subtransaction ends.
 */
List *
qml_portal_hide(void)
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
qml_portal_close_others(void)
{
	ListCell *lc;

	foreach(lc, find_ready())
		PortalDrop(lfirst(lc), false);
}

/* They cannot have been closed meanwhile. */
void
qml_portal_show(List *hidden)
{
	ListCell *lc;

	foreach(lc, hidden)
	{
		Portal portal = lfirst(lc);

		portal->status = PORTAL_READY;
		portal->visible = true;
	}
}
