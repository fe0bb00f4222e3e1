/*
 * shmem.c
 *		Creates qml's shared memory, and wakes processes through it.
 *
 * The memory is created at every start of the server, also after a crash.  It has
 * as many slots as the server can have background workers, and one entry of each
 * kind for each process that can hold or await jobs.  shmem.h says which file uses
 * which part.
 */
#include "postgres.h"

#include "access/twophase.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/shmem.h"

#include "common/lazy_commit.h"
#include "compat.h"
#include "ipc/shmem.h"

#define TRANCHE		  "qml"
#define LEASE_TRANCHE "qml_leases"
#define LEASES_SIZE	  (sizeof(QmlLeasePartition) * QML_LEASE_PARTITIONS)

QmlShmem *qml_shmem = NULL;

static shmem_request_hook_type previous_request = NULL;
static shmem_startup_hook_type previous_startup = NULL;

/*
 * Size of the fixed part and the slots; databases, prepared transactions and the entries of
 * sessions follow them.
 */
static Size
slots_size(void)
{
	return MAXALIGN(
		add_size(offsetof(QmlShmem, slots), mul_size(max_worker_processes, sizeof(QmlSlot))));
}

static Size
databases_size(void)
{
	return MAXALIGN(sizeof(QmlDatabase) * QML_MAX_DATABASES);
}

/* Each transaction that is prepared has an entry, and each session that prepares one. */
static int
prepared_count(void)
{
	return max_prepared_xacts == 0 ? 0 : max_prepared_xacts + MaxBackends;
}

static Size
prepared_size(void)
{
	return MAXALIGN(mul_size(prepared_count(), sizeof(QmlPrepared)));
}

static Size
shmem_size(void)
{
	return add_size(add_size(add_size(slots_size(), databases_size()), prepared_size()),
					mul_size(MaxBackends, sizeof(QmlWaiter) + sizeof(QmlWaitSign) +
											  2 * sizeof(pg_atomic_uint32)));
}

static void
init_slot(QmlSlot *slot)
{
	SpinLockInit(&slot->mutex);
	pg_atomic_init_u32(&slot->has_work, 0);
	pg_atomic_init_u32(&slot->idle, 0);
	pg_atomic_init_u32(&slot->process, 0);
	pg_atomic_init_u64(&slot->heartbeat_at, 0);
	pg_atomic_init_u64(&slot->asleep_until, 0);
	pg_atomic_init_u64(&slot->unknown_prepared_at, 0);
	for (int i = 0; i < QML_WAKES; i++)
		pg_atomic_init_u64(&slot->due[i], QML_WAKE_NEVER);
}

static void
init_databases(void)
{
	qml_shmem->databases = (QmlDatabase *) ((char *) qml_shmem + slots_size());
	for (int i = 0; i < QML_MAX_DATABASES; i++)
	{
		for (int kind = 0; kind < QML_WAKES; kind++)
			pg_atomic_init_u64(&qml_shmem->databases[i].due[kind], QML_WAKE_NEVER);
		pg_atomic_init_u64(&qml_shmem->databases[i].lease_missed, 0);
		pg_atomic_init_u64(&qml_shmem->databases[i].lease_known, 0);
	}
}

static void
init_prepared(void)
{
	qml_shmem->nprepared = prepared_count();
	qml_shmem->prepared = (QmlPrepared *) ((char *) qml_shmem->databases + databases_size());
	pg_atomic_init_u32(&qml_shmem->nunheard, 0);
}

static void
init_sessions(void)
{
	if (!pg_strong_random(&qml_shmem->boot, sizeof(qml_shmem->boot)))
		elog(FATAL, "could not generate random values");
	pg_atomic_init_u32(&qml_shmem->next_token, 0);
	qml_shmem->nsessions = MaxBackends;
	pg_atomic_init_u32(&qml_shmem->nready, 0);
	pg_atomic_init_u32(&qml_shmem->nfinished, 0);
	pg_atomic_init_u32(&qml_shmem->last_warm, 0);
	pg_atomic_init_u32(&qml_shmem->rules, 0);
	qml_shmem->waiters = (QmlWaiter *) ((char *) qml_shmem->prepared + prepared_size());
	qml_shmem->signs = (QmlWaitSign *) (qml_shmem->waiters + qml_shmem->nsessions);
	qml_shmem->sessions = (pg_atomic_uint32 *) (qml_shmem->signs + qml_shmem->nsessions);
	for (int i = 0; i < qml_shmem->nsessions; i++)
	{
		qml_shmem->signs[i].kind = QML_WAITS_NOT;
		pg_atomic_init_u32(&qml_shmem->sessions[i], 0);
		pg_atomic_init_u32(&qml_shmem->sessions[qml_shmem->nsessions + i], 0);
		SpinLockInit(&qml_shmem->waiters[i].mutex);
	}
}

/*
 * The claims that run, in a piece of memory of their own: entries are written when they are
 * used, so that memory which is not needed is not touched.
 */
static void
init_leases(void)
{
	bool found;

	qml_shmem->leases = ShmemInitStruct("qml leases", LEASES_SIZE, &found);
	qml_shmem->lease_locks = GetNamedLWLockTranche(LEASE_TRANCHE);
	for (int i = 0; i < QML_LEASE_PARTITIONS; i++)
		memset(&qml_shmem->leases[i], 0, offsetof(QmlLeasePartition, entries));
	pg_atomic_init_u64(&qml_shmem->last_lease_miss, 0);
	pg_atomic_init_u64(&qml_shmem->prepared_told_since, 0);
}

/* Creates the memory, or finds it in a process that was not forked. */
static void
create_shmem(void)
{
	bool found;

	if (previous_startup)
		previous_startup();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	qml_shmem = ShmemInitStruct("qml", shmem_size(), &found);
	if (!found)
	{
		memset(qml_shmem, 0, shmem_size());
		qml_shmem->layout = QML_SHMEM_LAYOUT;
		qml_shmem->lock = &GetNamedLWLockTranche(TRANCHE)->lock;
		pg_atomic_init_u32(&qml_shmem->launcher, 0);
		pg_atomic_init_u32(&qml_shmem->has_waiting, 0);
		pg_atomic_init_u64(&qml_shmem->last_beat_end, (uint64) PG_INT64_MIN);
		qml_shmem->nslots = max_worker_processes;
		for (int i = 0; i < qml_shmem->nslots; i++)
			init_slot(&qml_shmem->slots[i]);
		init_databases();
		init_prepared();
		init_sessions();
		init_leases();
	}
	LWLockRelease(AddinShmemInitLock);
	if (qml_shmem->layout != QML_SHMEM_LAYOUT)
		ereport(FATAL,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the shared memory of qml was made by another version of the library"),
				 errhint("Restart the server to load the new library everywhere.")));
	qml_lazy_commit_start();
}

static void
request_shmem(void)
{
	if (previous_request)
		previous_request();
	RequestAddinShmemSpace(add_size(shmem_size(), LEASES_SIZE));
	RequestNamedLWLockTranche(TRANCHE, 1);
	RequestNamedLWLockTranche(LEASE_TRANCHE, QML_LEASE_PARTITIONS);
}

/* Called while the server loads its preloaded libraries. */
void
qml_shmem_init(void)
{
	previous_request = shmem_request_hook;
	shmem_request_hook = request_shmem;
	previous_startup = shmem_startup_hook;
	shmem_startup_hook = create_shmem;
}

/* The number of this process in QmlSlot.process and QmlShmem.launcher. */
uint32
qml_shmem_my_process(void)
{
	return (uint32) (MyProc - ProcGlobal->allProcs) + 1;
}

/*
 * Wakes a process, if there is one.  A process that ended meanwhile may have left
 * its PGPROC to another one, which is woken needlessly.
 */
void
qml_shmem_set_latch(pg_atomic_uint32 *process)
{
	uint32 number = pg_atomic_read_u32(process);

	if (number == 0)
		return;
	Assert(number <= (uint32) qml_shmem->nsessions);
	SetLatch(&ProcGlobal->allProcs[number - 1].procLatch);
}

/* This process is the launcher. */
void
qml_shmem_set_launcher(void)
{
	pg_atomic_write_u32(&qml_shmem->launcher, qml_shmem_my_process());
}

/* The launcher ends. */
void
qml_shmem_clear_launcher(void)
{
	Assert(pg_atomic_read_u32(&qml_shmem->launcher) == 0 ||
		   pg_atomic_read_u32(&qml_shmem->launcher) == qml_shmem_my_process());
	pg_atomic_write_u32(&qml_shmem->launcher, 0);
}

/* The launcher must look at something; one that starts looks at everything. */
void
qml_shmem_wake_launcher(void)
{
	qml_shmem_set_latch(&qml_shmem->launcher);
}
