/*
 * stats_store.c
 *		Counts and durations of jobs by queue and method, in shared memory.
 *
 * A series is a queue and a method of a database.  There are at most qml.stats_series of them in the
 * server; what finds no room is counted by database, in a series without queue and method.
 * Numbers only grow.  What was stored into tables is kept beside them, so the difference is what
 * is pending; it is stored each minute (maintenance/stats_keep.c), and after that the series may
 * make room for others.
 *
 * Sessions add to a series without a lock, after their commit.  They name it by its place and
 * generation, which they have looked up before:
 *
 *		who adds									who takes the series away (lock held)
 *		1. users++									1. generation = 0
 *		   full barrier								   full barrier
 *		2. if it has the generation: add			2. if users > 0: generation as before
 *		3. users--
 *
 * So either the one that adds sees that the series is gone, and adds to that without a name, or the
 * other sees that it is in use.
 *
 * The scheduler is not woken as long as nothing happens.  Whoever adds something says when it
 * began, if that is not said already, and asks the scheduler to come at the end of that minute.
 * The scheduler takes this back before it reads the numbers: who adds after that says it again.
 *
 * At a clean shutdown of the server the postmaster writes all of it to a file, and reads it at
 * the next start; a crash loses what is pending.  The file is removed when it is read, so a crash
 * does not bring back old numbers.
 *
 * Numbers belong to the tables of an installation of the extension, which the oid of qml.live
 * stands for: those of another one of the same database are dropped.
 *
 * Nothing here raises an error, but for qml_stats_store_read(), which allocates memory.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/memutils.h"

#include "common/guc.h"
#include "compat.h"
#include "ipc/due.h"
#include "ipc/slots.h"
#include "ipc/stats_file.h"
#include "ipc/stats_memory.h"
#include "ipc/stats_store.h"

#define TRANCHE "qml_stats"

StaticAssertDecl(sizeof(QmlStatCounts) == sizeof(uint64) * QML_STAT_NUMBERS,
				 "counts are an array of numbers");

static QmlStatsMemory *memory = NULL;
static LWLock *lock;

static shmem_request_hook_type previous_request = NULL;
static shmem_startup_hook_type previous_startup = NULL;

/* The entry of this database, to look at first. */
static int my_number = 0;

/* What is stored if the transaction commits; `series` is in its memory. */
static bool is_storing = false;
static QmlStatsView storing;
static TimestampTz storing_since;
static TimestampTz storing_through; /* QML_NO_TIME: it has not come so far */

/* ----- the memory ----- */

/* Each database may need one more, for what has no series of its own. */
static int
entries(void)
{
	return qml_stats_series + QML_STATS_DATABASES;
}

static Size
memory_size(void)
{
	return add_size(offsetof(QmlStatsMemory, series), mul_size(entries(), sizeof(QmlStatsEntry)));
}

static void
request_memory(void)
{
	if (previous_request)
		previous_request();
	if (qml_stats_series == 0)
		return;
	RequestAddinShmemSpace(memory_size());
	RequestNamedLWLockTranche(TRANCHE, 1);
}

/* When the postmaster ends: after a crash of a process (code) nothing can be relied on. */
static void
save(int code, Datum arg)
{
	if (code == 0)
		qml_stats_file_save(memory);
}

static void
create_memory(void)
{
	bool found;

	if (previous_startup)
		previous_startup();
	if (qml_stats_series == 0)
		return;
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	memory = ShmemInitStruct("qml stats", memory_size(), &found);
	lock = &GetNamedLWLockTranche(TRANCHE)->lock;
	if (!found)
	{
		/* Entries are made when they are used, so that memory which is not needed is not touched. */
		memset(memory, 0, offsetof(QmlStatsMemory, series));
		memory->capacity = qml_stats_series;
		pg_atomic_init_u64(&memory->missed, 0);
		pg_atomic_init_u32(&memory->version, 0);
		for (int i = 0; i < QML_STATS_DATABASES; i++)
			pg_atomic_init_u64(&memory->databases[i].since, 0);
	}
	LWLockRelease(AddinShmemInitLock);
	if (IsUnderPostmaster)
		return;
	if (!found)
		qml_stats_file_load(memory);
	on_shmem_exit(save, (Datum) 0);
}

/* ----- entries; the lock is held ----- */

static QmlStatsEntry *
entry_of(uint32 number)
{
	Assert(number > 0 && number <= (uint32) entries());
	return &memory->series[number - 1];
}

static uint32 *
bucket_of(uint32 hash)
{
	return &memory->buckets[hash % QML_STATS_BUCKETS];
}

static uint32
find_entry(int database, int queue, const char *method, int length, uint32 hash)
{
	uint32 number = *bucket_of(hash);

	while (number != 0)
	{
		const QmlStatsEntry *entry = entry_of(number);

		if (entry->hash == hash && entry->database == database && entry->queue == queue &&
			entry->length == length && memcmp(entry->method, method, length) == 0)
			return number;
		number = entry->next;
	}
	return 0;
}

/* Whether something was counted since it was stored. */
static bool
is_pending(const QmlStatsEntry *entry)
{
	for (int i = 0; i < QML_STAT_NUMBERS; i++)
	{
		if (pg_atomic_read_u64(unconstify(pg_atomic_uint64 *, &entry->now[i])) != entry->stored[i])
			return true;
	}
	return false;
}

/* Takes a series away; false: somebody is adding to it, or (unless force) has added. */
static bool
free_entry(uint32 number, bool force)
{
	QmlStatsEntry *entry = entry_of(number);
	uint32 generation = pg_atomic_read_u32(&entry->generation);
	uint32 *link = bucket_of(entry->hash);

	Assert(LWLockHeldByMeInMode(lock, LW_EXCLUSIVE));
	pg_atomic_write_u32(&entry->generation, 0);
	pg_memory_barrier();
	if (pg_atomic_read_u32(&entry->users) > 0 || (!force && is_pending(entry)))
	{
		pg_atomic_write_u32(&entry->generation, generation);
		return false;
	}
	while (*link != number)
		link = &entry_of(*link)->next;
	*link = entry->next;
	entry->next = memory->free;
	memory->free = number;
	if (entry->queue != 0)
		memory->count--;
	return true;
}

/* Takes away all series of a database; false: somebody is adding to one. */
static bool
free_all_of(int database)
{
	bool all = true;

	for (uint32 number = 1; number <= (uint32) memory->used; number++)
	{
		const QmlStatsEntry *entry = entry_of(number);

		if (entry->database == database &&
			pg_atomic_read_u32(unconstify(pg_atomic_uint32 *, &entry->generation)) != 0 &&
			!free_entry(number, true))
			all = false;
	}
	return all;
}

/* ----- databases ----- */

/* The number of this database; -1: it has none. */
static int
find_mine(void)
{
	const QmlStatsDatabase *databases = memory->databases;

	for (int i = 0; databases[my_number].oid != MyDatabaseId && i < memory->ndatabases; i++)
	{
		if (databases[i].oid == MyDatabaseId)
			my_number = i;
	}
	return databases[my_number].oid == MyDatabaseId ? my_number : -1;
}

static TimestampTz
minute_of(TimestampTz time)
{
	return Max(time, 0) / QML_STATS_MINUTE * QML_STATS_MINUTE;
}

/* The same, with the numbers of the present tables; made if it is missing.  -1: no room. */
static int
prepare_mine(Oid live)
{
	int number = find_mine();
	TimestampTz now = GetCurrentTimestamp();
	QmlStatsDatabase *database;

	if (number >= 0 && memory->databases[number].live != live)
	{
		if (!free_all_of(number))
			return -1;
		memory->databases[number].oid = InvalidOid;
		number = -1;
	}
	for (int i = 0; number < 0 && i < QML_STATS_DATABASES; i++)
	{
		if (!OidIsValid(memory->databases[i].oid))
			number = i;
	}
	if (number < 0)
		return -1;
	database = &memory->databases[number];
	if (OidIsValid(database->oid))
		return number;
	database->nameless = qml_stats_memory_make(memory, number, 0, "", 0, now);
	if (database->nameless == 0)
		return -1;
	database->live = live;
	database->stored_through = minute_of(now);
	database->until = 0;
	pg_atomic_write_u64(&database->since, 0);
	database->oid = MyDatabaseId;
	memory->ndatabases = Max(memory->ndatabases, number + 1);
	return number;
}

/* ----- for sessions that write jobs ----- */

bool
qml_stats_store_exists(void)
{
	return memory != NULL;
}

/* Raised when there may be room again, for series that have found none. */
uint32
qml_stats_store_version(void)
{
	return pg_atomic_read_u32(&memory->version);
}

/* Whether a place still has the series that was found there. */
bool
qml_stats_store_is(QmlStatPlace place)
{
	return place.number == 0 ||
		   pg_atomic_read_u32(&entry_of(place.number)->generation) == place.generation;
}

static QmlStatPlace
place_of(uint32 number)
{
	QmlStatPlace place = {.number = number};

	if (number != 0)
		place.generation = pg_atomic_read_u32(&entry_of(number)->generation);
	return place;
}

/*
 * Finds the series of a queue and a method, or makes it: that of all others if there is no room
 * for it.  live: the oid of qml.live.
 */
QmlStatPlace
qml_stats_store_find(Oid live, int queue, const char *method, int length)
{
	QmlStatPlace place = {0};
	uint32 number = 0;
	bool is_full = false;
	int database;

	Assert(queue > 0);
	length = Min(length, QML_STAT_METHOD);
	LWLockAcquire(lock, LW_SHARED);
	database = find_mine();
	if (database >= 0 && memory->databases[database].live == live)
	{
		number = find_entry(database, queue, method, length,
							qml_stats_memory_hash(database, queue, method, length));
		is_full = memory->count >= memory->capacity;
		if (number == 0 && is_full)
			number = memory->databases[database].nameless;
		place = place_of(number);
	}
	LWLockRelease(lock);
	if (number != 0)
		return place;
	LWLockAcquire(lock, LW_EXCLUSIVE);
	database = prepare_mine(live);
	if (database >= 0)
	{
		number = find_entry(database, queue, method, length,
							qml_stats_memory_hash(database, queue, method, length));
		if (number == 0)
			number = qml_stats_memory_make(memory, database, queue, method, length,
										   GetCurrentTimestamp());
		if (number == 0)
			number = memory->databases[database].nameless;
		place = place_of(number);
	}
	LWLockRelease(lock);
	return place;
}

/* So many events are not counted anywhere. */
void
qml_stats_store_miss(uint64 count)
{
	if (memory)
		(void) pg_atomic_fetch_add_u64(&memory->missed, (int64) count);
}

/* Says that something is pending, and when that began. */
static void
say_since(QmlStatsDatabase *database)
{
	uint64 none = 0;
	TimestampTz minute;

	if (pg_atomic_read_u64(&database->since) != 0)
		return;
	minute = minute_of(GetCurrentTimestamp());
	if (pg_atomic_compare_exchange_u64(&database->since, &none, (uint64) Max(minute, 1)))
		qml_due_at(qml_slots_find_scheduler(MyDatabaseId), QML_WAKE_STATS,
				   minute + QML_STATS_MINUTE);
}

/* Begins to add to a series, or to the nameless one if it is gone; NULL: there is neither. */
static QmlStatsEntry *
begin_adding(QmlStatPlace place)
{
	QmlStatsEntry *entry;
	int database;

	if (place.number != 0)
	{
		entry = entry_of(place.number);
		(void) pg_atomic_fetch_add_u32(&entry->users, 1);
		if (pg_atomic_read_u32(&entry->generation) == place.generation)
			return entry;
		(void) pg_atomic_fetch_sub_u32(&entry->users, 1);
	}
	database = find_mine();
	if (database < 0)
		return NULL;
	entry = entry_of(memory->databases[database].nameless);
	(void) pg_atomic_fetch_add_u32(&entry->users, 1);
	if (pg_atomic_read_u32(&entry->generation) != 0 && entry->database == database &&
		entry->queue == 0)
		return entry;
	/* The extension was made anew just now. */
	(void) pg_atomic_fetch_sub_u32(&entry->users, 1);
	return NULL;
}

static void
add_note(QmlStatsEntry *entry, const QmlStatNote *note)
{
	if (note->counter != QML_STAT_NO_COUNTER)
		(void) pg_atomic_fetch_add_u64(&entry->now[note->counter], note->count);
	if (note->histogram == QML_STAT_NO_HISTOGRAM)
		return;
	(void) pg_atomic_fetch_add_u64(&entry->now[QML_STATS + note->histogram - 1], note->count);
	(void) pg_atomic_fetch_add_u64(
		&entry->now[note->histogram <= QML_HISTOGRAM_BINS ? QML_STAT_WAITED : QML_STAT_RAN],
		(int64) note->duration);
}

/* Adds what a transaction of this database did, that has committed. */
void
qml_stats_store_add(const QmlStatNote *notes, size_t step, int count)
{
	QmlStatsEntry *entry = NULL;
	QmlStatPlace place = {0};
	int database = -1;

	for (int i = 0; i < count; i++)
	{
		const QmlStatNote *note = (const QmlStatNote *) ((const char *) notes + i * step);

		if (entry == NULL || note->place.number != place.number ||
			note->place.generation != place.generation)
		{
			if (entry)
				(void) pg_atomic_fetch_sub_u32(&entry->users, 1);
			place = note->place;
			entry = begin_adding(place);
			if (entry)
				database = entry->database;
		}
		if (entry)
			add_note(entry, note);
		else
			qml_stats_store_miss(note->count);
	}
	/* The additions above are full barriers. */
	if (database >= 0)
		say_since(&memory->databases[database]);
	if (entry)
		(void) pg_atomic_fetch_sub_u32(&entry->users, 1);
}

/* ----- for readers ----- */

static void
read_entry(uint32 number, QmlStatSeries *series)
{
	QmlStatsEntry *entry = entry_of(number);
	uint64 *total = (uint64 *) &series->total;
	uint64 *pending = (uint64 *) &series->pending;

	series->place = place_of(number);
	series->queue = entry->queue;
	series->method_length = entry->length;
	memcpy(series->method, entry->method, entry->length);
	for (int i = 0; i < QML_STAT_NUMBERS; i++)
	{
		total[i] = pg_atomic_read_u64(&entry->now[i]);
		pending[i] = total[i] - entry->stored[i];
	}
}

/*
 * Reads all series of this database; false: there is no memory.  What is pending is not in what is
 * stored through `stored_through`, and of what is stored through a later time all is.
 */
bool
qml_stats_store_read(Oid live, QmlStatsView *view)
{
	int most;
	int database;

	memset(view, 0, sizeof(*view));
	view->since = QML_NO_TIME;
	view->stored_through = QML_NO_TIME;
	if (memory == NULL)
		return false;
	view->capacity = memory->capacity;
	view->missed = pg_atomic_read_u64(&memory->missed);
	most = memory->capacity + 1;
	/* Pages that no series needs are not touched. */
	view->series = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(QmlStatSeries) * most);
	LWLockAcquire(lock, LW_SHARED);
	database = find_mine();
	if (database >= 0 && memory->databases[database].live == live)
	{
		uint64 since = pg_atomic_read_u64(&memory->databases[database].since);

		view->since = since == 0 ? QML_NO_TIME : (TimestampTz) since;
		view->stored_through = memory->databases[database].stored_through;
		for (uint32 number = 1; number <= (uint32) memory->used; number++)
		{
			QmlStatsEntry *entry = entry_of(number);

			if (entry->database == database && pg_atomic_read_u32(&entry->generation) != 0)
				read_entry(number, &view->series[view->count++]);
			Assert(view->count <= most);
		}
	}
	LWLockRelease(lock);
	return true;
}

/* ----- for whoever stores what is pending ----- */

/*
 * When the first of what is pending began, and (*until) when the last of it was counted at the
 * latest; QML_NO_TIME: nothing is pending.  From now on whoever adds something says it anew.  If
 * the transaction ends without qml_stats_store_stored_at_commit(), all is as before.
 */
TimestampTz
qml_stats_store_take_since(TimestampTz *until)
{
	uint64 since = 0;
	int database;

	*until = DT_NOEND;
	if (memory == NULL)
		return QML_NO_TIME;
	Assert(IsTransactionState() && !is_storing);
	LWLockAcquire(lock, LW_SHARED);
	database = find_mine();
	if (database >= 0)
	{
		if (memory->databases[database].until != 0)
			*until = memory->databases[database].until;
		since = pg_atomic_exchange_u64(&memory->databases[database].since, 0);
	}
	LWLockRelease(lock);
	if (since == 0)
		return QML_NO_TIME;
	is_storing = true;
	storing_since = (TimestampTz) since;
	storing_through = QML_NO_TIME;
	return storing_since;
}

/*
 * The transaction stores what is pending in the view, as that of the time up to `through`: when it
 * has committed, that is not pending any more.  The view lives as long as the transaction.
 */
void
qml_stats_store_stored_at_commit(const QmlStatsView *view, TimestampTz through)
{
	Assert(is_storing && through != QML_NO_TIME);
	storing = *view;
	storing_through = through;
}

static void
note_stored(void)
{
	int database;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	database = find_mine();
	if (database >= 0)
	{
		memory->databases[database].stored_through = storing_through;
		memory->databases[database].until = 0;
	}
	for (int i = 0; i < storing.count; i++)
	{
		const QmlStatSeries *series = &storing.series[i];
		QmlStatsEntry *entry = entry_of(series->place.number);

		if (pg_atomic_read_u32(&entry->generation) != series->place.generation)
			continue;
		if (memcmp(entry->stored, &series->total, sizeof(entry->stored)) != 0)
			entry->active_at = storing_through;
		memcpy(entry->stored, &series->total, sizeof(entry->stored));
	}
	LWLockRelease(lock);
}

/* It is pending as before; meanwhile somebody may have said that more is. */
static void
give_back_since(void)
{
	int database;

	LWLockAcquire(lock, LW_SHARED);
	database = find_mine();
	if (database >= 0)
	{
		pg_atomic_uint64 *since = &memory->databases[database].since;
		uint64 said = pg_atomic_read_u64(since);

		while ((said == 0 || storing_since < (TimestampTz) said) &&
			   !pg_atomic_compare_exchange_u64(since, &said, (uint64) storing_since))
			;
	}
	LWLockRelease(lock);
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	if (!is_storing ||
		(event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE))
		return;
	if (event == XACT_EVENT_COMMIT && storing_through != QML_NO_TIME)
		note_stored();
	else
		give_back_since();
	is_storing = false;
}

/* The databases that have numbers; returns how many, `most` at most. */
int
qml_stats_store_databases(Oid *databases, int most)
{
	int count = 0;

	if (memory == NULL)
		return 0;
	LWLockAcquire(lock, LW_SHARED);
	for (int i = 0; i < memory->ndatabases && count < most; i++)
	{
		if (OidIsValid(memory->databases[i].oid))
			databases[count++] = memory->databases[i].oid;
	}
	LWLockRelease(lock);
	return count;
}

/* Forgets a database that there is not any more. */
void
qml_stats_store_drop(Oid database)
{
	LWLockAcquire(lock, LW_EXCLUSIVE);
	for (int i = 0; i < memory->ndatabases; i++)
	{
		if (memory->databases[i].oid == database && free_all_of(i))
		{
			memory->databases[i].oid = InvalidOid;
			(void) pg_atomic_fetch_add_u32(&memory->version, 1);
		}
	}
	LWLockRelease(lock);
}

/*
 * If there is little room left: takes away series in which nothing has happened since a time and
 * that are stored, and databases of which nobody has stored what is pending since another time.
 */
void
qml_stats_store_make_room(TimestampTz idle_since, TimestampTz left_since)
{
	bool any = false;

	if (memory == NULL || memory->count < memory->capacity - memory->capacity / 8)
		return;
	LWLockAcquire(lock, LW_EXCLUSIVE);
	for (int i = 0; i < memory->ndatabases; i++)
	{
		QmlStatsDatabase *database = &memory->databases[i];
		uint64 since = pg_atomic_read_u64(&database->since);

		if (OidIsValid(database->oid) && database->oid != MyDatabaseId && since != 0 &&
			(TimestampTz) since < left_since && free_all_of(i))
		{
			database->oid = InvalidOid;
			any = true;
		}
	}
	for (uint32 number = 1; number <= (uint32) memory->used; number++)
	{
		QmlStatsEntry *entry = entry_of(number);

		if (pg_atomic_read_u32(&entry->generation) != 0 && entry->queue != 0 &&
			entry->active_at <= idle_since && free_entry(number, false))
			any = true;
	}
	if (any)
		(void) pg_atomic_fetch_add_u32(&memory->version, 1);
	LWLockRelease(lock);
}

/* Called while the server loads its preloaded libraries. */
void
qml_stats_store_init(void)
{
	previous_request = shmem_request_hook;
	shmem_request_hook = request_memory;
	previous_startup = shmem_startup_hook;
	shmem_startup_hook = create_memory;
	RegisterXactCallback(at_transaction_end, NULL);
}
