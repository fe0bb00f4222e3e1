/*
 * wait_event.c
 *		Names of what processes of qml wait for.
 *
 * Never raises an error: a process waits also after errors, where nothing would catch one.
 */
#include "postgres.h"

#include "storage/lwlock.h"
#include "utils/wait_event.h"

#include "common/fault.h"
#include "common/wait_event.h"
#include "compat.h"

/*
 * The wait event of a name, for pg_stat_activity.  The server has room for some; when other
 * extensions have used that up, it is the one that all extensions share.  Called once by
 * each function that waits.
 */
uint32
qml_wait_event(const char *name)
{
	MemoryContext context = CurrentMemoryContext;
	volatile uint32 event = PG_WAIT_EXTENSION;

	PG_TRY();
	{
		QML_FAULT("wait_event.new");
		event = qml_wait_event_new(name);
	}
	PG_CATCH();
	{
		/* The server raises the error while it holds the lock of its table. */
		LWLockReleaseAll();
		MemoryContextSwitchTo(context);
		FlushErrorState();
		ereport(DEBUG1, (errmsg("wait event \"%s\" has no name of its own", name)));
	}
	PG_END_TRY();
	return event;
}
