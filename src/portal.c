/*
 * portal.c
 *		Cursors that are out of reach for a while.
 *
 * A cursor reads with the rights of the role that opened it, whoever fetches, and is
 * found by its name alone.  One that counts as active can neither be fetched from
 * nor be closed, not even by CLOSE ALL.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/portal.h"

#include "portal.h"
#include "spi.h"

/* Kept for as long as the session lives: it runs for each job. */
static SPIPlanPtr
plan_of(const char *sql)
{
	static SPIPlanPtr plan = NULL;
	SPIPlanPtr made;

	if (plan)
		return plan;
	made = SPI_prepare(sql, 0, NULL);
	if (made == NULL || SPI_keepplan(made) != 0)
		elog(ERROR, "\"%s\" cannot be prepared", sql);
	plan = made;
	return plan;
}

/* Names of all cursors that can be seen, in the current memory context. */
static List *
find_names(void)
{
	MemoryContext context = CurrentMemoryContext;
	List *names;
	QmlSpi spi;

	qml_spi_begin(&spi, GetUserId());
	if (SPI_execute_plan(plan_of("SELECT c.name FROM pg_catalog.pg_cursors c"), NULL, NULL, true,
						 0) != SPI_OK_SELECT)
		elog(ERROR, "the cursors cannot be listed");
	names = qml_spi_strings(context);
	qml_spi_end(&spi);
	return names;
}

/*
 * Hides all cursors that could be fetched from; qml_portal_show() must follow before
 * the subtransaction ends.
 */
List *
qml_portal_hide(void)
{
	List *hidden = NIL;
	ListCell *lc;

	foreach(lc, find_names())
	{
		Portal portal = GetPortalByName(lfirst(lc));

		if (!PortalIsValid(portal) || portal->status != PORTAL_READY)
			continue;
		portal->status = PORTAL_ACTIVE;
		portal->visible = false;
		hidden = lappend(hidden, portal);
	}
	return hidden;
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
