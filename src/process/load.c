/*
 * load.c
 *		How busy the server is, for work that is to be done beside other work.
 *
 * A process is busy if it waits for nothing, or for the disk, or for a lock that is held for a moment.
 * Those that clean up after others do not count: vacuum, and the processes of the server itself.
 * How many there are is looked at now and then.  What a process waits for is read without a lock: it
 * is a number that is read whole, and a wrong one makes no difference.
 */
#include "postgres.h"

#include <unistd.h>

#include "miscadmin.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/wait_event.h"

#include "process/load.h"

/* The class of an event that a process waits for: see wait_event.h of the server. */
#define WAIT_CLASS(event) ((event) &0xFF000000U)

static bool
seems_busy(const PGPROC *proc)
{
	uint32 event = *(volatile const uint32 *) &proc->wait_event_info;

	if (proc->pid == 0 || proc == MyProc || !OidIsValid(proc->databaseId) ||
		(proc->statusFlags & (PROC_IS_AUTOVACUUM | PROC_IN_VACUUM)))
		return false;
	return event == 0 || WAIT_CLASS(event) == PG_WAIT_LWLOCK ||
		   WAIT_CLASS(event) == PG_WAIT_BUFFER_PIN || WAIT_CLASS(event) == PG_WAIT_IO;
}

/* How many processors the machine has. */
static double
count_processors(void)
{
	static long processors = 0;

	if (processors == 0)
		processors = Max(sysconf(_SC_NPROCESSORS_ONLN), 1);
	return (double) processors;
}

/* How many sessions and workers are busy now, for each processor. */
double
qml_load_sample(void)
{
	int busy = 0;

	for (int i = 0; i < MaxBackends; i++)
	{
		const PGPROC *proc = &ProcGlobal->allProcs[i];

		/* One that has ended leaves its entry as it was. */
		if (seems_busy(proc) && BackendPidGetProc(proc->pid) == proc)
			busy++;
	}
	return busy / count_processors();
}
