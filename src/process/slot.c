/*
 * slot.c
 *		This process's slot: entering a database, and leaving it.
 *
 * A scheduler, a look or a worker takes the slot that the launcher has prepared for it
 * (ipc/slots.c), connects, and sets itself ready.  Its identity is the slot and the
 * slot's generation: a process that comes when the slot was given to another exits.
 * However it ends, a callback before shared memory is detached sets the slot to ended,
 * with the outcome, which tells the launcher what to do next.
 *
 * Our process must not stand in the way of the database's owner, who may not be allowed
 * to terminate it.  Once a second it probes the lock on the database: while DROP, RENAME
 * or CREATE ... TEMPLATE has it, the process leaves.  It does the same for DROP EXTENSION,
 * for which the scheduler also cancels the running jobs.  It also leaves when the extension
 * is gone, when the jobs are a copy, and when a setting says so.
 *
 * After a crash of the server all slots are free.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/lock.h"

#include "common/guc.h"
#include "ipc/dispatch.h"
#include "ipc/due.h"
#include "ipc/session_claim.h"
#include "ipc/slots.h"
#include "model/catalog.h"
#include "process/process.h"
#include "process/slot.h"

static QmlSlot *slot;
static QmlOutcome outcome = QML_ENDED_EARLY; /* if the process ended now */
static bool extension_found;				 /* in the last transaction, as it should be */
static Oid last_extension = InvalidOid;		 /* that a transaction has found */
static bool is_quiet;						 /* about its start */

/* Runs on every exit: gives the slot back, and the work that was meant for the process. */
static void
end_slot(int code, Datum arg)
{
	/* Once the slot has ended the launcher may give it to another process. */
	QmlKind kind = slot->kind;
	Oid role = slot->role;
	QmlLeft left;

	qml_slots_hide(slot);
	if (kind == QML_SCHEDULER)
	{
		qml_due_hand_over(slot);
		qml_dispatch_hand_over(slot);
		qml_session_claim_hand_over(slot);
	}
	qml_slots_end(slot, outcome, &left);
	if (kind == QML_WORKER && outcome != QML_ENDED_NO_EXTENSION)
	{
		/* It was given work while it was leaving, or ended with work left. */
		if (left.has_work)
			qml_dispatch_request_worker(MyDatabaseId, role);
		qml_dispatch_offer_slot(false);
		/* Others have passed over the jobs that needed its concurrency slots. */
		if (left.had_concurrency)
			qml_dispatch_recheck_all();
	}
	qml_shmem_wake_launcher();
}

/* The database's name as it was at the start: it follows a colon in the process's name. */
static const char *
database_name(void)
{
	return strchr(MyBgworkerEntry->bgw_name, ':') + 2;
}

/* Ends the process, and tells the launcher why. */
void
qml_slot_leave(QmlOutcome why)
{
	outcome = why;
	proc_exit(0);
}

/* Whether somebody has or wants a lock on an object that conflicts with this one. */
static bool
is_wanted(Oid database, Oid class, Oid object, LOCKMODE mode)
{
	LOCKTAG tag;

	SET_LOCKTAG_OBJECT(tag, database, class, object, 0);
	if (LockAcquire(&tag, mode, true, true) == LOCKACQUIRE_NOT_AVAIL)
		return true;
	LockRelease(&tag, mode, true);
	return false;
}

/*
 * Whether somebody is dropping the extension.  DROP EXTENSION locks it first, and then waits
 * for those who use its tables, such as a running job.
 */
static bool
is_extension_being_dropped(void)
{
	return OidIsValid(last_extension) &&
		   is_wanted(MyDatabaseId, ExtensionRelationId, last_extension, AccessShareLock);
}

/*
 * Whether the process stands in the way of somebody who needs the database alone: the
 * lock that it probes conflicts with those of DROP, RENAME, SET TABLESPACE and of being
 * copied.  Or of somebody who drops the extension.
 */
bool
qml_slot_is_blocking(void)
{
	return is_wanted(InvalidOid, DatabaseRelationId, MyDatabaseId, RowExclusiveLock) ||
		   is_extension_being_dropped();
}

/*
 * Leaves, because somebody else needs to be alone.  Workers notice that between two jobs;
 * when the extension is being dropped, the scheduler also cancels the jobs that run.
 */
pg_noreturn static void
make_way(void)
{
	if (slot->kind == QML_SCHEDULER && is_extension_being_dropped())
		qml_slots_cancel_all_jobs();
	qml_slot_leave(QML_ENDED_MADE_WAY);
}

void
qml_slot_leave_if_blocking(void)
{
	if (qml_slot_is_blocking())
		make_way();
}

/* Whether the settings say that no process works here. */
bool
qml_slot_is_disabled(void)
{
	return !qml_enabled || !qml_process_works_database(database_name());
}

void
qml_slot_leave_if_disabled(void)
{
	if (qml_slot_is_disabled())
		qml_slot_leave(QML_ENDED_DISABLED);
}

/* Of a look, or when it has changed: the owner of the extension, for the next scheduler. */
void
qml_slot_set_role(Oid role)
{
	qml_slots_set_role(slot, role);
}

/*
 * In a transaction: leaves if there is no extension to work for, or if the session user
 * is no longer its owner.
 */
void
qml_slot_leave_unless_extension(void)
{
	Oid extension = get_extension_oid("qml", true);

	Assert(IsTransactionState());
	extension_found = false;
	if (!OidIsValid(extension))
		qml_slot_leave(QML_ENDED_NO_EXTENSION);
	/*
	 * Held to the end of the transaction.  A DROP EXTENSION waits for this lock before it
	 * takes any other, so there is no deadlock.  If it has come first, it has precedence:
	 * we do not wait.
	 */
	last_extension = extension;
	if (!qml_catalog_try_lock(ExtensionRelationId, extension, 0, AccessShareLock) ||
		get_extension_oid("qml", true) != extension)
		make_way();
	if (!qml_catalog()->adopted)
	{
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the jobs in database \"%s\" are a copy from another one and are not run",
						get_database_name(MyDatabaseId)),
				 errhint("Call qml_adopt() to run the jobs of this copy.")));
		qml_slot_leave(QML_ENDED_COPY);
	}
	if (slot->kind == QML_SCHEDULER && slot->role != qml_catalog()->owner)
	{
		qml_slot_set_role(qml_catalog()->owner);
		qml_slot_leave(QML_ENDED_FOUND);
	}
	extension_found = true;
}

/* After an error: leaves if the extension was dropped, which explains any error. */
void
qml_slot_leave_if_dropped(void)
{
	bool dropped;

	qml_process_begin("looking for the extension");
	dropped = !OidIsValid(get_extension_oid("qml", true));
	qml_process_commit();
	if (dropped)
		qml_slot_leave(QML_ENDED_NO_EXTENSION);
}

/* Whether the last transaction found the extension, so that an error is due to the step. */
bool
qml_slot_found_extension(void)
{
	return extension_found;
}

/*
 * Takes the slot of that number and connects to its database as its role.  name: as
 * pg_stat_activity shows the process.  The connection waits as long as somebody has the
 * database's lock; the launcher ends a process that waits too long.
 */
QmlSlot *
qml_slot_enter(int number, const char *name)
{
	uint32 generation;

	memcpy(&generation, MyBgworkerEntry->bgw_extra, sizeof(generation));
	is_quiet = MyBgworkerEntry->bgw_extra[sizeof(generation)] != 0;
	slot = &qml_shmem->slots[number];
	/* It was given to another process since. */
	if (!qml_slots_take(slot, generation))
		proc_exit(0);
	before_shmem_exit(end_slot, (Datum) 0);
	/* The next process may start now. */
	qml_shmem_wake_launcher();

	BackgroundWorkerInitializeConnectionByOid(slot->database, slot->role, 0);
	qml_slots_set_connected(slot);
	qml_session_claim_set_background();
	outcome = QML_ENDED_TERMINATED;
	pgstat_report_appname(name);
	return slot;
}

/* From now on other processes can wake this one. */
void
qml_slot_set_ready(void)
{
	qml_slots_set_ready(slot);
	pg_memory_barrier();
	if (!is_quiet)
		ereport(LOG, (errmsg("%s started in database \"%s\"", MyBgworkerEntry->bgw_type,
							 database_name())));
}
