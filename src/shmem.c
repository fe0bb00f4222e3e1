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
#include "shmem.h"

#define TRANCHE "qml"

QmlShmem *qml_shmem = NULL;

static QmlRequestHook previous_request = NULL;
static shmem_startup_hook_type previous_startup = NULL;

static Size
shmem_size(void)
{
	return add_size(offsetof(QmlShmem, slots), mul_size(max_worker_processes, sizeof(QmlSlot)));
}

static void
init_slot(QmlSlot *slot)
{
	pg_atomic_init_u32(&slot->process, 0);
	pg_atomic_init_u64(&slot->heartbeat_at, 0);
	pg_atomic_init_u64(&slot->asleep_until, 0);
	pg_atomic_init_u64(&slot->unknown_told, 0);
	for (int i = 0; i < QML_WAKES; i++)
		pg_atomic_init_u64(&slot->told[i], QML_WAKE_NEVER);
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
 * The slot of a database whose scheduler is at work; NULL when there is none.
 * Read without the lock: a slot that changes hands meanwhile costs somebody a
 * needless wake-up.
 */
QmlSlot *
qml_shmem_slot(Oid database)
{
	for (int i = 0; qml_shmem && i < qml_shmem->nslots; i++)
	{
		QmlSlot *slot = &qml_shmem->slots[i];

		if (slot->database == database && pg_atomic_read_u32(&slot->process) != 0)
			return slot;
	}
	return NULL;
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
