/*
 * databases.c
 *		The databases of the server: which are served, and what is due in the others.
 *
 * Where there are more databases than slots for their schedulers, they take turns, and
 * a database has no scheduler between two of its turns.  What a commit makes due there is
 * noted in the entry of the database, from which the launcher knows when the next turn
 * is wanted.
 *
 *		session										scheduler that leaves
 *		1. slot->due[kind] = min(due[kind], time)	1. slot->process = 0
 *		   full barrier								   full barrier
 *		2. if (slot->process == 0)					2. entry->due[kind] =
 *			   entry->due[kind] =						   min(entry->due[kind], due[kind])
 *				   min(entry->due[kind], time)
 *
 * If the session reads slot->process from before the scheduler's step 1, its own step 1
 * came before the scheduler's step 2.  A scheduler takes the times of the entry in each of
 * its rounds, so one that a session notes there just when it starts is late by as much as
 * it sleeps, which is a second at most.
 *
 * The lists that sessions leave for a scheduler are in its slot, or in the entry if it has
 * none.  Which one it is, is known under the lock: a scheduler that leaves first resets
 * slot->process under it, then moves its lists here.  It takes both.
 *
 * A scheduler that leaves because its turn is over also keeps here how far it has come.  One
 * that ends in any other way keeps nothing, and the next one looks at everything.
 *
 * The launcher alone adds, changes and removes entries, under the lock.  Sessions find
 * theirs without it: an entry that is given to another database meanwhile costs that one a
 * needless turn, and the first one has none to lose.  A database for which there is no
 * entry left has a turn once a minute, without regard to what is due, and its schedulers
 * look at everything.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "common/fault.h"
#include "ipc/databases.h"
#include "ipc/watch.h"

/* ----- the launcher ----- */

/* How many entries there can be. */
int
qml_databases_most(void)
{
	return QML_FAULT_LIMIT("databases.most", QML_MAX_DATABASES);
}

/* A launcher begins: it knows no database yet. */
void
qml_databases_reset(void)
{
	for (int i = 0; i < QML_MAX_DATABASES; i++)
		qml_databases_remove(i);
}

/* A claim of the database is missing in the table of leases: see lease_table.c. */
void
qml_databases_note_missed(QmlDatabase *entry)
{
	pg_atomic_write_u64(&entry->lease_missed,
						pg_atomic_add_fetch_u64(&qml_shmem->last_lease_miss, 1));
}

/* The entry of a database, or of a name that no database has (InvalidOid); -1: there is none. */
int
qml_databases_add(Oid database, const char *name)
{
	int found = -1;

	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	for (int i = 0; i < qml_databases_most() && found < 0; i++)
	{
		QmlDatabase *entry = &qml_shmem->databases[i];

		if (entry->state != QML_DATABASE_FREE)
			continue;
		entry->state = QML_DATABASE_STARTING;
		strlcpy(entry->name, name, NAMEDATALEN);
		entry->waiting_roles = 0;
		entry->served_at = 0;
		for (int kind = 0; kind < QML_WAKES; kind++)
			pg_atomic_write_u64(&entry->due[kind], QML_WAKE_NEVER);
		memset(&entry->pending, 0, sizeof(entry->pending));
		entry->nlost = 0;
		entry->any_lost = false;
		entry->has_turn = false;
		pg_atomic_write_u64(&entry->lease_known, 0);
		qml_databases_note_missed(entry);
		pg_write_barrier();
		entry->database = database;
		qml_shmem->ndatabases = Max(qml_shmem->ndatabases, i + 1);
		found = i;
	}
	LWLockRelease(qml_shmem->lock);
	return found;
}

void
qml_databases_remove(int entry)
{
	if (entry < 0)
		return;
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	qml_shmem->databases[entry].database = InvalidOid;
	qml_shmem->databases[entry].state = QML_DATABASE_FREE;
	while (qml_shmem->ndatabases > 0 &&
		   qml_shmem->databases[qml_shmem->ndatabases - 1].state == QML_DATABASE_FREE)
		qml_shmem->ndatabases--;
	LWLockRelease(qml_shmem->lock);
}

void
qml_databases_set(int entry, const char *name, QmlDatabaseState state, int waiting_roles,
				  TimestampTz served_at)
{
	QmlDatabase *database;
	Oid oid;
	bool changed;

	if (entry < 0)
		return;
	database = &qml_shmem->databases[entry];
	Assert(state != QML_DATABASE_FREE && database->state != QML_DATABASE_FREE);
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	changed = database->state != state || database->waiting_roles != waiting_roles;
	strlcpy(database->name, name, NAMEDATALEN);
	database->state = state;
	database->waiting_roles = waiting_roles;
	database->served_at = served_at;
	oid = database->database;
	LWLockRelease(qml_shmem->lock);
	if (changed)
		qml_watch_tell_common(oid);
}

/* How many processes there can be; by_server: because the server has no slot for more. */
void
qml_databases_set_limit(int processes, bool by_server)
{
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	qml_shmem->process_limit = processes;
	qml_shmem->limited_by_server = by_server;
	LWLockRelease(qml_shmem->lock);
}

/* So many databases and names have found no entry. */
void
qml_databases_set_hidden(int count)
{
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	qml_shmem->nhidden = count;
	LWLockRelease(qml_shmem->lock);
}

/* When the first thing is due in a database that has no scheduler. */
static TimestampTz
earliest_due(QmlDatabase *entry)
{
	TimestampTz earliest = QML_WAKE_NEVER;

	for (int kind = 0; kind < QML_WAKES; kind++)
	{
		TimestampTz due = (TimestampTz) pg_atomic_read_u64(&entry->due[kind]);

		earliest = Min(earliest, due);
	}
	return earliest;
}

/* When something is due in a database without a scheduler; without an entry nobody knows. */
TimestampTz
qml_databases_due(int entry)
{
	return entry < 0 ? QML_WAKE_NEVER : earliest_due(&qml_shmem->databases[entry]);
}

/* ----- sessions and schedulers ----- */

/* The entry of this database; NULL: there is none.  Without the lock. */
QmlDatabase *
qml_databases_find_own(void)
{
	static int last = 0;
	int count = qml_shmem->ndatabases;

	/* A process that could not connect; names that are no databases have no oid either. */
	if (!OidIsValid(MyDatabaseId))
		return NULL;
	if (qml_shmem->databases[last].database == MyDatabaseId)
		return &qml_shmem->databases[last];
	for (int i = 0; i < count; i++)
	{
		if (qml_shmem->databases[i].database == MyDatabaseId)
		{
			last = i;
			return &qml_shmem->databases[i];
		}
	}
	return NULL;
}

/*
 * Something is due at this time in this database, which has no scheduler.  What was due
 * earlier counts as due now, because databases have their turns in the order in which they
 * asked for them.
 */
void
qml_databases_note_due(QmlWake kind, TimestampTz time)
{
	QmlDatabase *entry = qml_databases_find_own();
	uint64 old;

	if (entry == NULL || time == QML_WAKE_NEVER)
		return;
	time = Max(time, GetCurrentTimestamp());
	old = pg_atomic_read_u64(&entry->due[kind]);
	while (time < (TimestampTz) old)
	{
		if (pg_atomic_compare_exchange_u64(&entry->due[kind], &old, (uint64) time))
		{
			qml_shmem_wake_launcher();
			return;
		}
	}
}

/* The earliest time of a kind that was noted since it was taken last; QML_WAKE_NEVER: none. */
TimestampTz
qml_databases_take_due(QmlWake kind)
{
	QmlDatabase *entry = qml_databases_find_own();

	if (entry == NULL || (TimestampTz) pg_atomic_read_u64(&entry->due[kind]) == QML_WAKE_NEVER)
		return QML_WAKE_NEVER;
	return (TimestampTz) pg_atomic_exchange_u64(&entry->due[kind], QML_WAKE_NEVER);
}

/*
 * Where something is left for the scheduler of this database, of which the caller knows that
 * it is, or was, in this slot (NULL: there was none): with it, or in the entry.  NULL: there
 * is neither, and the next scheduler looks at everything.
 */
QmlPending *
qml_databases_pending(QmlSlot *scheduler)
{
	QmlDatabase *entry;

	Assert(LWLockHeldByMeInMode(qml_shmem->lock, LW_EXCLUSIVE));
	if (qml_databases_is_there(scheduler))
		return &scheduler->pending;
	entry = qml_databases_find_own();
	return entry ? &entry->pending : NULL;
}

/* Whether the scheduler of this database is at work in the slot, and has not left it. */
bool
qml_databases_is_there(QmlSlot *scheduler)
{
	return scheduler && pg_atomic_read_u32(&scheduler->process) != 0 &&
		   scheduler->kind == QML_SCHEDULER && scheduler->database == MyDatabaseId;
}

/* The turn of a scheduler is over: how far it has come, for the next one. */
void
qml_databases_keep_turn(const void *turn, Size size)
{
	QmlDatabase *entry;

	Assert(size <= QML_TURN_BYTES);
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	entry = qml_databases_find_own();
	if (entry)
	{
		memcpy(entry->turn, turn, size);
		entry->has_turn = true;
	}
	LWLockRelease(qml_shmem->lock);
}

/* A scheduler starts: takes what the last one has kept; false: that kept nothing. */
bool
qml_databases_take_turn(void *turn, Size size)
{
	QmlDatabase *entry;
	bool found;

	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	entry = qml_databases_find_own();
	found = entry && entry->has_turn;
	if (found)
	{
		memcpy(turn, entry->turn, size);
		entry->has_turn = false;
	}
	LWLockRelease(qml_shmem->lock);
	return found;
}

/* All entries; views has room for QML_MAX_DATABASES.  Returns how many there are. */
int
qml_databases_copy(QmlDatabaseView *views, int *limit, bool *by_server, int *hidden)
{
	int count = 0;

	LWLockAcquire(qml_shmem->lock, LW_SHARED);
	for (int i = 0; i < QML_MAX_DATABASES; i++)
	{
		QmlDatabase *entry = &qml_shmem->databases[i];
		QmlDatabaseView *view = &views[count];

		if (entry->state == QML_DATABASE_FREE)
			continue;
		view->database = entry->database;
		view->state = entry->state;
		strlcpy(view->name, entry->name, NAMEDATALEN);
		view->waiting_roles = entry->waiting_roles;
		view->served_at = entry->served_at;
		view->due = earliest_due(entry);
		count++;
	}
	*limit = qml_shmem->process_limit;
	*by_server = qml_shmem->limited_by_server;
	*hidden = qml_shmem->nhidden;
	LWLockRelease(qml_shmem->lock);
	return count;
}
