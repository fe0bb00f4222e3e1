/*
 * wakeup.c
 *		Telling the scheduler, at commit, of what will be due.
 *
 * A transaction notes the earliest time of each kind that it makes due.  When it
 * commits, the times go into the slot of the database, and the scheduler is
 * woken if it means to sleep longer.  Nothing is told when the transaction
 * aborts, and nothing when it is prepared: COMMIT PREPARED may happen anywhere,
 * and is found by polling.  What a rolled back subtransaction noted costs a
 * needless wake-up.
 *
 * No wake-up is lost: whoever commits lowers `told` and then reads
 * `asleep_until`; the scheduler sets `asleep_until` and then reads `told`.  Both
 * with full barriers, so that at least one sees the other.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/lwlock.h"

#include "wakeup.h"

static TimestampTz noted[QML_WAKES];
static bool noted_any = false;
static bool call_launcher = false;

static void
forget(void)
{
	for (int i = 0; i < QML_WAKES; i++)
		noted[i] = QML_WAKE_NEVER;
	noted_any = false;
	call_launcher = false;
}

/* Lowers the time that was told, if this one is earlier. */
static void
tell(QmlSlot *slot, QmlWake kind, TimestampTz time)
{
	uint64 old = pg_atomic_read_u64(&slot->told[kind]);

	while (time < (TimestampTz) old &&
		   !pg_atomic_compare_exchange_u64(&slot->told[kind], &old, (uint64) time))
		;
}

static void
tell_scheduler(void)
{
	QmlSlot *slot = qml_shmem_slot(MyDatabaseId);
	TimestampTz earliest = QML_WAKE_NEVER;

	if (slot == NULL)
		return;
	for (int i = 0; i < QML_WAKES; i++)
	{
		if (noted[i] == QML_WAKE_NEVER)
			continue;
		tell(slot, (QmlWake) i, noted[i]);
		earliest = Min(earliest, noted[i]);
	}
	pg_memory_barrier();
	if (earliest < (TimestampTz) pg_atomic_read_u64(&slot->asleep_until))
		qml_shmem_set_latch(&slot->process);
}

static void
tell_launcher(void)
{
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	if (qml_shmem->ncalls < QML_MAX_CALLS)
		qml_shmem->calls[qml_shmem->ncalls++] = MyDatabaseId;
	else
		qml_shmem->call_all = true;
	LWLockRelease(qml_shmem->lock);
	qml_shmem_set_latch(&qml_shmem->launcher);
}

static void
at_end(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	if (event == XACT_EVENT_COMMIT && noted_any)
		tell_scheduler();
	if (event == XACT_EVENT_COMMIT && call_launcher)
		tell_launcher();
	forget();
}

/* Only with shared memory is there anybody to tell. */
void
qml_wakeup_init(void)
{
	forget();
	RegisterXactCallback(at_end, NULL);
}

/* The scheduler has something to do at this time, if the transaction commits. */
void
qml_wakeup_at(QmlWake kind, TimestampTz time)
{
	if (qml_shmem == NULL)
		return;
	if (time < noted[kind])
		noted[kind] = time;
	noted_any = true;
}

/* The launcher shall look at this database, if the transaction commits. */
void
qml_wakeup_launcher(void)
{
	if (qml_shmem)
		call_launcher = true;
}

/* The earliest time told since this was asked last; QML_WAKE_NEVER: none. */
TimestampTz
qml_wakeup_take(QmlSlot *slot, QmlWake kind)
{
	if ((TimestampTz) pg_atomic_read_u64(&slot->told[kind]) == QML_WAKE_NEVER)
		return QML_WAKE_NEVER;
	return (TimestampTz) pg_atomic_exchange_u64(&slot->told[kind], QML_WAKE_NEVER);
}
