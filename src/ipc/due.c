/*
 * due.c
 *		What is due in a database, and how its scheduler sleeps until then.
 *
 * The slot of the scheduler has the earliest due time of each kind.  Any session lowers
 * it; the scheduler takes it, does what is due, and sleeps until the next time that it
 * knows of.  No wake-up is lost:
 *
 *		session										scheduler
 *		1. due[kind] = min(due[kind], time)			1. asleep_until = T
 *		   full barrier								   full barrier
 *		2. if (time < asleep_until) set its latch	2. take due[]; if earlier, sleep less
 *													3. WaitLatch; asleep_until = 0
 *
 * If the session reads asleep_until from before the scheduler's step 1, then its own
 * step 1 came before the scheduler's step 2, which finds the time.  Otherwise it sets
 * the latch, and a latch that is set before WaitLatch ends that at once.  While
 * asleep_until is 0 the scheduler is awake, and gets to its step 2.
 *
 * A session that finds no scheduler leaves the time to the next one (databases.c).  The
 * first scheduler of a database looks at everything, so a crash of the server may lose all
 * times.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"

#include "ipc/databases.h"
#include "ipc/due.h"
#include "ipc/slots.h"

/* Lowers a due time; the caller calls qml_due_wake_before() afterwards. */
void
qml_due_lower(QmlSlot *scheduler, QmlWake kind, TimestampTz time)
{
	uint64 old = pg_atomic_read_u64(&scheduler->due[kind]);

	while (time < (TimestampTz) old &&
		   !pg_atomic_compare_exchange_u64(&scheduler->due[kind], &old, (uint64) time))
		;
}

/*
 * Wakes a scheduler that means to sleep beyond this time.  False if it has left meanwhile, and
 * may not have seen what was lowered: the caller notes that for the next one.
 */
bool
qml_due_wake_before(QmlSlot *scheduler, TimestampTz time)
{
	pg_memory_barrier();
	if (!qml_databases_is_there(scheduler))
		return false;
	if (time < (TimestampTz) pg_atomic_read_u64(&scheduler->asleep_until))
		qml_shmem_set_latch(&scheduler->process);
	return true;
}

/* The scheduler, or (NULL) the next one, has something to do at this time. */
void
qml_due_at(QmlSlot *scheduler, QmlWake kind, TimestampTz time)
{
	if (scheduler)
		qml_due_lower(scheduler, kind, time);
	if (scheduler == NULL || !qml_due_wake_before(scheduler, time))
		qml_databases_note_due(kind, time);
}

/* The scheduler of this database, or the next one, has something to do now. */
void
qml_due_now(QmlWake kind)
{
	if (qml_shmem)
		qml_due_at(qml_slots_find_scheduler(MyDatabaseId), kind, GetCurrentTimestamp());
}

/*
 * The earliest due time of a kind since it was taken last, with what was noted while there
 * was no scheduler; QML_WAKE_NEVER: none.
 */
TimestampTz
qml_due_take(QmlSlot *scheduler, QmlWake kind)
{
	TimestampTz noted = qml_databases_take_due(kind);
	TimestampTz due;

	Assert(pg_atomic_read_u32(&scheduler->process) == qml_shmem_my_process());
	if ((TimestampTz) pg_atomic_read_u64(&scheduler->due[kind]) == QML_WAKE_NEVER)
		return noted;
	due = (TimestampTz) pg_atomic_exchange_u64(&scheduler->due[kind], QML_WAKE_NEVER);
	return Min(noted, due);
}

/* The scheduler has left, and nobody finds it any more: what it has not taken is for the next. */
void
qml_due_hand_over(QmlSlot *scheduler)
{
	Assert(pg_atomic_read_u32(&scheduler->process) == 0);
	for (int kind = 0; kind < QML_WAKES; kind++)
		qml_databases_note_due((QmlWake) kind,
							   (TimestampTz) pg_atomic_read_u64(&scheduler->due[kind]));
}

/* The scheduler means to sleep so long; it must take the due times again before it does. */
void
qml_due_sleep_until(QmlSlot *scheduler, TimestampTz until)
{
	Assert(pg_atomic_read_u32(&scheduler->process) == qml_shmem_my_process());
	/* A scheduler that sleeps holds no snapshot and no lock. */
	Assert(!IsTransactionState());
	pg_atomic_write_u64(&scheduler->asleep_until, (uint64) until);
	pg_memory_barrier();
}

/* The scheduler is awake, and will look at the due times before it sleeps again. */
void
qml_due_awake(QmlSlot *scheduler)
{
	pg_atomic_write_u64(&scheduler->asleep_until, 0);
}
