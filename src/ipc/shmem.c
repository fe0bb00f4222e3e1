/*
 * shmem.c
 *		What qml keeps in shared memory: one slot per database that is worked.
 *
 * Made anew at every start of the server, also after a crash.  There are as many
 * slots as there can be background processes.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/shmem.h"

#include "compat.h"
#include "ipc/shmem.h"

#define TRANCHE "qml"

QmlShmem *qml_shmem = NULL;

static QmlRequestHook previous_request = NULL;
static shmem_startup_hook_type previous_startup = NULL;

/* The slots, and behind them what there is for each session. */
static Size
slots_size(void)
{
	return MAXALIGN(
		add_size(offsetof(QmlShmem, slots), mul_size(max_worker_processes, sizeof(QmlSlot))));
}

static Size
shmem_size(void)
{
	return add_size(slots_size(),
					mul_size(qml_max_backends(), sizeof(QmlWaiter) + sizeof(pg_atomic_uint32)));
}

static void
init_slot(QmlSlot *slot)
{
	SpinLockInit(&slot->mutex);
	pg_atomic_init_u32(&slot->more, 0);
	pg_atomic_init_u32(&slot->idle, 0);
	pg_atomic_init_u32(&slot->process, 0);
	pg_atomic_init_u64(&slot->heartbeat_at, 0);
	pg_atomic_init_u64(&slot->asleep_until, 0);
	pg_atomic_init_u64(&slot->unknown_told, 0);
	for (int i = 0; i < QML_WAKES; i++)
		pg_atomic_init_u64(&slot->told[i], QML_WAKE_NEVER);
}

static void
init_sessions(void)
{
	if (!pg_strong_random(&qml_shmem->boot, sizeof(qml_shmem->boot)))
		elog(FATAL, "could not generate random values");
	pg_atomic_init_u32(&qml_shmem->next_token, 0);
	qml_shmem->nsessions = qml_max_backends();
	pg_atomic_init_u32(&qml_shmem->nwaiting, 0);
	qml_shmem->waiters = (QmlWaiter *) ((char *) qml_shmem + slots_size());
	qml_shmem->sessions = (pg_atomic_uint32 *) (qml_shmem->waiters + qml_shmem->nsessions);
	for (int i = 0; i < qml_shmem->nsessions; i++)
	{
		pg_atomic_init_u32(&qml_shmem->sessions[i], 0);
		pg_atomic_init_u32(&qml_shmem->waiters[i].kind, QML_WAITS_NOT);
	}
}

static void
startup(void)
{
	bool found;

	if (previous_startup)
		previous_startup();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	qml_shmem = ShmemInitStruct("qml", shmem_size(), &found);
	if (!found)
	{
		memset(qml_shmem, 0, shmem_size());
		qml_shmem->lock = &GetNamedLWLockTranche(TRANCHE)->lock;
		pg_atomic_init_u32(&qml_shmem->launcher, 0);
		qml_shmem->nslots = max_worker_processes;
		for (int i = 0; i < qml_shmem->nslots; i++)
			init_slot(&qml_shmem->slots[i]);
		init_sessions();
	}
	LWLockRelease(AddinShmemInitLock);
}

static void
request(void)
{
	if (previous_request)
		previous_request();
	RequestAddinShmemSpace(shmem_size());
	RequestNamedLWLockTranche(TRANCHE, 1);
}

/* While the server loads its preloaded libraries. */
void
qml_shmem_init(void)
{
	qml_set_request_hook(previous_request, request);
	previous_startup = shmem_startup_hook;
	shmem_startup_hook = startup;
}

/*
 * The slot of a database's scheduler that is at work; NULL when there is none.
 * Read without the lock: a slot that changes hands meanwhile costs somebody a
 * needless wake-up.
 */
QmlSlot *
qml_shmem_scheduler(Oid database)
{
	for (int i = 0; qml_shmem && i < qml_shmem->nslots; i++)
	{
		QmlSlot *slot = &qml_shmem->slots[i];

		if (slot->kind == QML_SCHEDULER && slot->database == database &&
			pg_atomic_read_u32(&slot->process) != 0)
			return slot;
	}
	return NULL;
}

static bool
is_worker_of(const QmlSlot *slot, Oid database)
{
	return slot->kind == QML_WORKER && slot->database == database &&
		   (slot->state == QML_SLOT_STARTING || slot->state == QML_SLOT_RUNNING);
}

/* Workers of a database, of one role or, with InvalidOid, of all; as above. */
int
qml_shmem_count_workers(Oid database, Oid role)
{
	int count = 0;

	for (int i = 0; qml_shmem && i < qml_shmem->nslots; i++)
	{
		QmlSlot *slot = &qml_shmem->slots[i];

		if (is_worker_of(slot, database) && (!OidIsValid(role) || slot->role == role))
			count++;
	}
	return count;
}

/* Whether there are so many workers of its database without this one: it is one too many. */
bool
qml_shmem_is_surplus(const QmlSlot *worker, int most)
{
	int before = 0;

	for (int i = 0; i < worker - qml_shmem->slots; i++)
	{
		const QmlSlot *slot = &qml_shmem->slots[i];

		if (is_worker_of(slot, worker->database))
			before++;
	}
	return before >= most;
}

/* Asks the launcher for one more worker; one that is asked for already is so once. */
void
qml_shmem_request(Oid database, Oid role)
{
	bool found = false;

	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	for (int i = 0; i < qml_shmem->nrequests && !found; i++)
		found = qml_shmem->requests[i].database == database && qml_shmem->requests[i].role == role;
	if (!found && qml_shmem->nrequests < QML_MAX_REQUESTS)
	{
		qml_shmem->requests[qml_shmem->nrequests].database = database;
		qml_shmem->requests[qml_shmem->nrequests++].role = role;
	}
	LWLockRelease(qml_shmem->lock);
	qml_shmem_set_latch(&qml_shmem->launcher);
}

/* Whether a worker has a place for jobs of a method. */
static bool
has_place(const QmlSlot *slot, uint32 method)
{
	for (int i = 0; i < slot->nplaces; i++)
	{
		if (slot->places[i] == method)
			return true;
	}
	return false;
}

/* Under the lock: how many workers of a database, but for one, have a place of a method. */
static int
count_places(Oid database, uint32 method, const QmlSlot *except)
{
	int count = 0;

	for (int i = 0; i < qml_shmem->nslots; i++)
	{
		const QmlSlot *slot = &qml_shmem->slots[i];

		if (slot != except && slot->kind == QML_WORKER && slot->state == QML_SLOT_RUNNING &&
			slot->database == database && has_place(slot, method))
			count++;
	}
	return count;
}

/* Whether a worker would get a place of a method; one is not counted. */
bool
qml_shmem_has_room(Oid database, uint32 method, int limit, const QmlSlot *except)
{
	int count;

	LWLockAcquire(qml_shmem->lock, LW_SHARED);
	count = count_places(database, method, except);
	LWLockRelease(qml_shmem->lock);
	return count < limit;
}

/*
 * Takes one of the places of a method, of which a database has a limited number; one
 * more of the same costs none.  False when there is none.
 */
bool
qml_shmem_take_place(QmlSlot *slot, uint32 method, int limit)
{
	bool taken;

	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	taken = count_places(slot->database, method, slot) < limit && slot->nplaces < QML_MAX_PLACES;
	if (taken)
		slot->places[slot->nplaces++] = method;
	LWLockRelease(qml_shmem->lock);
	return taken;
}

/* Leaves places, each as often as it was taken. */
void
qml_shmem_leave_places(QmlSlot *slot, const uint32 *methods, int count)
{
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	for (int n = 0; n < count; n++)
	{
		for (int i = 0; i < slot->nplaces; i++)
		{
			if (slot->places[i] != methods[n])
				continue;
			slot->places[i] = slot->places[--slot->nplaces];
			break;
		}
	}
	LWLockRelease(qml_shmem->lock);
}

/* Wakes a process, if it is there; one that has its place by now wakes in vain. */
void
qml_shmem_set_latch(pg_atomic_uint32 *process)
{
	uint32 number = pg_atomic_read_u32(process);

	if (number != 0)
		SetLatch(&ProcGlobal->allProcs[number - 1].procLatch);
}

uint32
qml_shmem_my_process(void)
{
	return (uint32) (MyProc - ProcGlobal->allProcs) + 1;
}

/* The process that has the slot goes on.  Also from signal handlers. */
void
qml_shmem_beat(QmlSlot *slot)
{
	pg_atomic_write_u64(&slot->heartbeat_at, (uint64) GetCurrentTimestamp());
}

/* By a process that ends while it runs a job. */
void
qml_shmem_note_culprit(const QmlCulprit *culprit)
{
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	qml_shmem->culprits[qml_shmem->next_culprit] = *culprit;
	qml_shmem->next_culprit = (qml_shmem->next_culprit + 1) % QML_MAX_CULPRITS;
	LWLockRelease(qml_shmem->lock);
}

/*
 * Whether the session ended under some attempt; culprit->loss tells if it was this one,
 * and how.
 */
bool
qml_shmem_find_culprit(QmlCulprit *culprit)
{
	bool found = false;

	culprit->loss = 0;
	LWLockAcquire(qml_shmem->lock, LW_SHARED);
	for (int i = 0; i < QML_MAX_CULPRITS; i++)
	{
		const QmlCulprit *noted = &qml_shmem->culprits[i];

		if (noted->token != culprit->token || noted->place != culprit->place)
			continue;
		found = true;
		if (noted->attempt == culprit->attempt &&
			memcmp(&noted->job, &culprit->job, sizeof(noted->job)) == 0)
			culprit->loss = noted->loss;
	}
	LWLockRelease(qml_shmem->lock);
	return found;
}
