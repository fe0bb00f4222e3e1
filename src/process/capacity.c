/*
 * capacity.c
 *		How many background processes there can be, and how they are shared.
 *
 * The slots of max_worker_processes are also those of parallel queries, of logical
 * replication and of other extensions.  So by default qml leaves half of them to others.
 * Where fewer are free than that, the server refuses to start a process: then as many as
 * there are must do, until it is tried again.
 *
 * Schedulers are short of slots sooner than workers, because each database needs one.  But
 * jobs can take long, and schedulers need not stay: some slots are kept for workers.
 * Workers, which end only after their jobs, never have those that schedulers take turns in.
 * So neither kind waits for the other one.
 *
 *		processes			2  3  4  5  6  8  12  16  20
 *		schedulers at most	1  2  2  3  4  6   9  12  15
 *
 * Called by the launcher only, whose memory it is in.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "common/guc.h"
#include "ipc/databases.h"
#include "ipc/slots.h"
#include "process/capacity.h"

/* A scheduler and a worker. */
#define LEAST 2

/*
 * Milliseconds: for so long the server must refuse each process that would be one more, since
 * the slot of one that has just ended is free a moment later; until it is tried again whether
 * it has more; and until an earlier refusal has nothing to do with the next one.
 */
#define REFUSED_SINCE	 2000
#define REFUSED_FOR		 10000
#define REFUSED_RECENTLY 20000

static int ndatabases = 0;		/* that need a scheduler */
static int known = 0;			/* so many there were when the server refused one more */
static int64 refused_since = 0; /* monotonic, milliseconds; 0: it has slots for more */
static int64 refused_last = 0;	/* the same */
static int refused_at = 0;		/* so many there were meanwhile, at most */
static int64 refused_until = 0; /* monotonic, milliseconds */
static int64 updated_at = 0;	/* the same */

/* At the begin of a round: so many databases need a scheduler. */
void
qml_capacity_update(int databases, int64 now)
{
	static int shown = 0;
	static bool shown_by_server = false;

	ndatabases = databases;
	updated_at = now;
	if (qml_capacity_processes() == shown && qml_capacity_by_server() == shown_by_server)
		return;
	shown = qml_capacity_processes();
	shown_by_server = qml_capacity_by_server();
	qml_databases_set_limit(shown, shown_by_server);
}

/* What the settings allow. */
static int
allowed_processes(void)
{
	int most = qml_max_workers >= 0 ? qml_max_workers : max_worker_processes / 2;

	return Max(Min(most, max_worker_processes), LEAST);
}

/*
 * The server has started a process.  One that only takes the slot of another does not
 * tell that there are more slots: schedulers that take turns do that all the time.
 */
void
qml_capacity_note_started(void)
{
	int schedulers;
	int workers;

	if (refused_since == 0)
		return;
	qml_slots_count_all(&schedulers, &workers);
	if (schedulers + workers > refused_at)
		refused_since = 0;
}

/* The server has refused to start a process. */
void
qml_capacity_note_refused(int64 now)
{
	int schedulers;
	int workers;

	qml_slots_count_all(&schedulers, &workers);
	if (refused_since == 0 || now - refused_last > REFUSED_RECENTLY)
	{
		refused_since = now;
		refused_at = 0;
	}
	refused_last = now;
	refused_at = Max(refused_at, schedulers + workers);
	if (now - refused_since < REFUSED_SINCE)
		return;
	known = refused_at;
	refused_until = now + REFUSED_FOR;
	/* Others may take more slots: it is found out anew. */
	refused_since = 0;
}

/* Whether the server has fewer slots for qml than the settings allow. */
bool
qml_capacity_by_server(void)
{
	return updated_at < refused_until && Max(known, LEAST) < allowed_processes();
}

/* Processes that there can be, but for the launcher. */
int
qml_capacity_processes(void)
{
	return qml_capacity_by_server() ? Max(known, LEAST) : allowed_processes();
}

/* How many of them can be schedulers; all, if there can be no workers. */
int
qml_capacity_schedulers(void)
{
	return qml_databases_most_schedulers(qml_capacity_processes(), qml_workers > 0);
}

/* How many of them can be workers. */
int
qml_capacity_workers(void)
{
	return qml_capacity_processes() - Min(ndatabases, qml_capacity_schedulers());
}
