/*
 * slot.c
 *		A process that works in a database, as a guest.
 *
 * It has a slot that the launcher prepared (ipc/slots.c), and says in it why it ends.
 * Once a second it probes the database's lock: if DROP, RENAME or CREATE ...
 * TEMPLATE has it, it leaves, so that the owner need not be allowed to end it.  When
 * the extension is gone, or the settings say so, it leaves, too.
 */
#include "postgres.h"

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
#include "ipc/slots.h"
#include "model/catalog.h"
#include "process/process.h"
#include "process/slot.h"

static QmlSlot *slot;
static QmlOutcome outcome = QML_ENDED_EARLY; /* if the process ended now */
static bool extension_checked;				 /* in this transaction, and found good */

/* Runs on every exit. */
static void
leave_slot(int code, Datum arg)
{
	/* Once the slot has ended the launcher may give it to another process. */
	bool is_worker = slot->kind == QML_WORKER;
	Oid role = slot->role;
	bool has_work;
	bool had_concurrency;

	qml_slots_end(slot, outcome, &has_work, &had_concurrency);
	if (is_worker && outcome != QML_ENDED_NO_EXTENSION)
	{
		/* It was given work while it was leaving, or ended with work left. */
		if (has_work)
			qml_dispatch_request_worker(MyDatabaseId, role);
		qml_dispatch_offer_place(false);
		/* Others have passed over the jobs that needed its concurrency slots. */
		if (had_concurrency)
			qml_dispatch_recheck_all();
	}
	qml_shmem_set_latch(&qml_shmem->launcher);
}

/* Takes the slot that the launcher reserved; exits if it was given to another process. */
static void
take_slot(int number)
{
	uint32 generation;

	memcpy(&generation, MyBgworkerEntry->bgw_extra, sizeof(generation));
	slot = &qml_shmem->slots[number];
	if (!qml_slots_take(slot, generation))
		proc_exit(0);
	before_shmem_exit(leave_slot, (Datum) 0);
	/* Others may start now. */
	qml_shmem_set_latch(&qml_shmem->launcher);
}

/* Ends the process. */
void
qml_slot_leave(QmlOutcome why)
{
	outcome = why;
	proc_exit(0);
}

/*
 * Whether somebody wants the database for himself: its lock conflicts with those of
 * DROP, RENAME, SET TABLESPACE and of being copied.
 */
bool
qml_slot_is_in_the_way(void)
{
	LOCKTAG tag;

	SET_LOCKTAG_OBJECT(tag, InvalidOid, DatabaseRelationId, MyDatabaseId, 0);
	if (LockAcquire(&tag, RowExclusiveLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
		return true;
	LockRelease(&tag, RowExclusiveLock, true);
	return false;
}

void
qml_slot_make_way(void)
{
	if (qml_slot_is_in_the_way())
		qml_slot_leave(QML_ENDED_MADE_WAY);
}

/* The name of the database, which follows a colon in that of the process. */
const char *
qml_slot_database(void)
{
	return strchr(MyBgworkerEntry->bgw_name, ':') + 2;
}

/* Whether the settings do not want it here. */
bool
qml_slot_is_disabled(void)
{
	return !qml_enabled || !qml_process_works_database(qml_slot_database());
}

void
qml_slot_leave_if_disabled(void)
{
	if (qml_slot_is_disabled())
		qml_slot_leave(QML_ENDED_DISABLED);
}

/* What a look found: the owner of the extension. */
void
qml_slot_set_role(Oid role)
{
	qml_slots_set_role(slot, role);
}

/* In a transaction: leaves if this is not the place to work, or not the role. */
void
qml_slot_check_extension(void)
{
	Oid extension = get_extension_oid("qml", true);

	extension_checked = false;
	if (!OidIsValid(extension))
		qml_slot_leave(QML_ENDED_NO_EXTENSION);
	/*
	 * Held to the end of the transaction.  Whoever drops it waits for that before
	 * he locks anything else, so that there is no deadlock; if he is there already,
	 * or was before it was held, he has precedence.
	 */
	if (!qml_catalog_try_lock(ExtensionRelationId, extension, 0, AccessShareLock) ||
		get_extension_oid("qml", true) != extension)
		qml_slot_leave(QML_ENDED_MADE_WAY);
	if (!qml_catalog()->adopted)
	{
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the jobs in database \"%s\" are a copy from another one and are not "
						"worked",
						get_database_name(MyDatabaseId)),
				 errhint("Call qml_adopt() to let this copy work.")));
		qml_slot_leave(QML_ENDED_COPY);
	}
	if (slot->kind == QML_SCHEDULER && slot->role != qml_catalog()->owner)
	{
		qml_slot_set_role(qml_catalog()->owner);
		qml_slot_leave(QML_ENDED_FOUND);
	}
	extension_checked = true;
}

/* After an error: what was dropped under its hands is none. */
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

/* Whether the last transaction found the extension as it should be. */
bool
qml_slot_found_extension(void)
{
	return extension_checked;
}

/*
 * Takes the slot of that number, and connects to its database, as the slot's role;
 * shows itself under a name.
 */
QmlSlot *
qml_slot_enter(int number, const char *name)
{
	take_slot(number);
	BackgroundWorkerInitializeConnectionByOid(slot->database, slot->role, 0);
	qml_slots_set_connected(slot);
	outcome = QML_ENDED_TERMINATED;
	pgstat_report_appname(name);
	return slot;
}

/* Now others may wake it. */
void
qml_slot_appear(void)
{
	pg_atomic_write_u32(&slot->process, qml_shmem_my_process());
	ereport(LOG, (errmsg("%s started in database \"%s\"", MyBgworkerEntry->bgw_type,
						 qml_slot_database())));
}
