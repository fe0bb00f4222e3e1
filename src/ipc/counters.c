/*
 * counters.c
 *		The numbers of jobs by queue and state, in shared memory.
 *
 * A transaction notes what it does to jobs (counter_notes.c), and adds it to the numbers when it
 * has committed: after others can see it, and before its client hears of it.  So the numbers are
 * those of the present, in any isolation level.  Jobs that expire are taken off when their time
 * has come, although nobody tells of that (counter_store.c).
 *
 * The numbers of a database belong to a generation.  It has one that is in use, or none: then
 * whoever wants a number counts rows.  Another one is made by counting all rows, now and then,
 * and takes the place of the first.  Both are compared before: they must be the same.
 *
 * What is committed while rows are counted is added to both, but to the new one only if the
 * snapshot of the count does not see it.
 *
 * - The new generation is announced and the snapshot is taken with all partitions locked
 *   exclusively, and whoever adds has one locked.  So a transaction that adds before has been
 *   seen by the snapshot, and one that adds after knows of it.
 * - A transaction that the snapshot sees may not have come to adding yet.  It must do so before
 *   the new generation is used, or it would be counted twice: then it would not know of the
 *   snapshot any more.  So before it commits it announces its id, until it has added.  The
 *   count is over when each such transaction that it sees has done so (qml_counters_wait).
 * - Of the end of a prepared transaction nobody may have told.  Before the count is over those that
 *   have ended are looked for (prepared.c).  Whoever keeps others from finding one has announced
 *   its id before, and so is waited for.
 *
 * What nobody can tell, such as what SQL has written, ends the use of both generations: the rows
 * are counted anew.  The same holds if there is no room.  The generations are then 0, which
 * needs no lock: whoever adds to one that is not used any more does no harm.
 *
 * One process at a time counts in the server; nothing waits for it.  If it fails, what it has
 * made is not used, and its entries are removed by the next one.  Whoever is to start it asks
 * first, and the process takes that over: so there are no two on their way.  When the next one may
 * begin is kept here, because neither the process that counts nor the scheduler stays.
 *
 * But for qml_counters_begin(), which takes a snapshot, nothing here raises an error.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/twophase.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/snapmgr.h"

#include "common/clock.h"
#include "common/fault.h"
#include "compat.h"
#include "ipc/counters.h"

#define DATABASES 64

/* The entry of a database at which no scheduler has looked for so long is given to another one. */
#define FORGOTTEN_AFTER (3 * USECS_PER_HOUR)

/* How long a count waits for those that are committing, in milliseconds. */
#define WAIT_MS QML_FAULT_LIMIT("counters.wait_ms", 1000)

/* How long an asked process may be on its way, in milliseconds. */
#define ASKED_MS 30000

typedef struct Database
{
	/* With all partitions locked exclusively; read with one of them locked. */
	Oid oid;
	QmlCounterSource source;
	QmlCounterTimes times; /* changed by the scheduler, and by the process that it has started */

	/* By the scheduler of the database, at any time. */
	pg_atomic_uint64 looked_at;

	/* Generations; 0: none.  As oid, but anybody may set them to 0 at any time. */
	pg_atomic_uint32 current;
	pg_atomic_uint32 next;
} Database;

/* The transaction of a session, from before it commits until it has added what it did; 0: none. */
typedef struct Announced
{
	pg_atomic_uint32 xid;
	char pad[PG_CACHE_LINE_SIZE - sizeof(pg_atomic_uint32)];
} Announced;

/* What lies in shared memory; announcements, transactions of the snapshot, and the store follow. */
typedef struct Memory
{
	/* When a process was asked for, doubled, and 1 more if it has come; 0: there is none. */
	pg_atomic_uint64 asked;

	pg_atomic_uint32 counting; /* a session counts rows */
	uint32 generation;		   /* the last one that was given; all partitions are locked */
	int used;				   /* entries behind these were never used; the same */
	Database databases[DATABASES];

	/* The snapshot of that session; the same. */
	TransactionId xmin;
	TransactionId xmax;
	int nrunning;
} Memory;

static Memory *memory = NULL;
static Announced *announced;
static TransactionId *running;

static shmem_request_hook_type previous_request = NULL;
static shmem_startup_hook_type previous_startup = NULL;

/* The entry of this database, to look at first. */
static int my_number = 0;

/* The generation that this session makes; 0: none. */
static uint32 making = 0;

/* The transactions that the count waits for, by session; in memory of its transaction. */
static TransactionId *awaited;

/* ----- the memory ----- */

static Size
announced_size(void)
{
	return mul_size(MaxBackends, sizeof(Announced));
}

/* As many as a snapshot can have. */
static Size
running_size(void)
{
	return MAXALIGN(mul_size(add_size(MaxBackends, max_prepared_xacts), sizeof(TransactionId)));
}

static Size
memory_size(void)
{
	return add_size(add_size(CACHELINEALIGN(sizeof(Memory)), announced_size()),
					add_size(running_size(), qml_counter_store_size()));
}

static void
request_memory(void)
{
	if (previous_request)
		previous_request();
	(void) qml_counter_store_request();
	RequestAddinShmemSpace(memory_size());
}

/* Creates the memory, or finds it in a process that was not forked. */
static void
create_memory(void)
{
	bool found;

	if (previous_startup)
		previous_startup();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	memory = ShmemInitStruct("qml counters", memory_size(), &found);
	announced = (Announced *) ((char *) memory + CACHELINEALIGN(sizeof(Memory)));
	running = (TransactionId *) ((char *) announced + announced_size());
	if (!found)
	{
		memset(memory, 0, sizeof(Memory));
		pg_atomic_init_u64(&memory->asked, 0);
		pg_atomic_init_u32(&memory->counting, 0);
		for (int i = 0; i < DATABASES; i++)
		{
			pg_atomic_init_u64(&memory->databases[i].looked_at, 0);
			pg_atomic_init_u32(&memory->databases[i].current, 0);
			pg_atomic_init_u32(&memory->databases[i].next, 0);
		}
		for (int i = 0; i < MaxBackends; i++)
			pg_atomic_init_u32(&announced[i].xid, InvalidTransactionId);
	}
	qml_counter_store_init((char *) running + running_size(), found);
	LWLockRelease(AddinShmemInitLock);
}

/* The count of a transaction that failed is given up. */
static void
at_transaction_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_ABORT && making != 0)
		qml_counters_cancel();
}

/* Called while the server loads its preloaded libraries: otherwise there are no counters. */
void
qml_counters_init(void)
{
	previous_request = shmem_request_hook;
	shmem_request_hook = request_memory;
	previous_startup = shmem_startup_hook;
	shmem_startup_hook = create_memory;
	RegisterXactCallback(at_transaction_end, NULL);
}

/* ----- databases ----- */

/* The entry of this database; NULL: it has none. */
static Database *
find_mine(void)
{
	Database *databases;

	/* A process that could not connect has no database. */
	if (memory == NULL || !OidIsValid(MyDatabaseId))
		return NULL;
	databases = memory->databases;
	for (int i = 0; databases[my_number].oid != MyDatabaseId && i < memory->used; i++)
	{
		if (databases[i].oid == MyDatabaseId)
			my_number = i;
	}
	return databases[my_number].oid == MyDatabaseId ? &databases[my_number] : NULL;
}

/* An entry that no database needs; NULL: all are taken. */
static Database *
find_unused(TimestampTz now)
{
	for (int i = 0; i < DATABASES; i++)
	{
		Database *entry = &memory->databases[i];

		if (!OidIsValid(entry->oid) ||
			(TimestampTz) pg_atomic_read_u64(&entry->looked_at) < now - FORGOTTEN_AFTER)
			return entry;
	}
	return NULL;
}

/* The entry of this database; one is chosen if there is none.  All partitions are locked. */
static Database *
find_or_choose_mine(TimestampTz now)
{
	Database *chosen = find_mine();

	if (chosen == NULL)
		chosen = find_unused(now);
	if (chosen == NULL || chosen->oid == MyDatabaseId)
		return chosen;
	chosen->oid = MyDatabaseId;
	memset(&chosen->times, 0, sizeof(chosen->times));
	pg_atomic_write_u64(&chosen->looked_at, (uint64) now);
	memory->used = Max(memory->used, (int) (chosen - memory->databases) + 1);
	pg_atomic_write_u32(&chosen->current, 0);
	pg_atomic_write_u32(&chosen->next, 0);
	return chosen;
}

static bool
is_same(const QmlCounterSource *a, const QmlCounterSource *b)
{
	for (int i = 0; i < QML_COUNTER_TABLES; i++)
	{
		if (a->live[i] != b->live[i] || a->trigger[i] != b->trigger[i])
			return false;
	}
	return true;
}

/* A generation is not used any more, if it still is. */
static void
give_up(pg_atomic_uint32 *place, uint32 generation)
{
	(void) pg_atomic_compare_exchange_u32(place, &generation, 0);
}

/* For the sweep: whether any database uses a generation. */
static bool
is_used(uint32 generation)
{
	for (int i = 0; i < DATABASES; i++)
	{
		if (pg_atomic_read_u32(&memory->databases[i].current) == generation ||
			pg_atomic_read_u32(&memory->databases[i].next) == generation)
			return true;
	}
	return false;
}

/* Removes what is not used.  Only whoever counts begins a generation, and nobody else is. */
static void
sweep(void)
{
	Assert(pg_atomic_read_u32(&memory->counting) != 0);
	for (int i = 0; i < QML_COUNTER_PARTITIONS; i++)
	{
		QmlCounterPartition *partition = qml_counter_store_partition(i);

		qml_counter_store_lock(partition, LW_EXCLUSIVE);
		qml_counter_store_sweep(partition, is_used);
		qml_counter_store_unlock(partition);
	}
}

/*
 * Nobody knows what was done to the jobs of a database: its rows are counted anew.  Called when
 * that can be seen.  First the new numbers and then those in use: see qml_counters_finish().
 */
void
qml_counters_forget(Oid database)
{
	for (int i = 0; memory && i < memory->used; i++)
	{
		Database *entry = &memory->databases[i];

		if (entry->oid != database)
			continue;
		(void) pg_atomic_exchange_u32(&entry->next, 0);
		(void) pg_atomic_exchange_u32(&entry->current, 0);
	}
}

/* Whether this database has numbers. */
bool
qml_counters_are_valid(void)
{
	Database *mine = find_mine();

	return mine && pg_atomic_read_u32(&mine->current) != 0;
}

/* ----- who counts, and when ----- */

/* All 0 for a database that has no entry. */
void
qml_counters_get_times(QmlCounterTimes *times)
{
	QmlCounterPartition *partition;
	Database *mine;

	memset(times, 0, sizeof(*times));
	if (memory == NULL)
		return;
	partition = qml_counter_store_partition(0);
	qml_counter_store_lock(partition, LW_SHARED);
	mine = find_mine();
	if (mine)
		*times = mine->times;
	qml_counter_store_unlock(partition);
}

/* By the scheduler while no process counts for it, or by that process. */
void
qml_counters_set_times(const QmlCounterTimes *times)
{
	Database *mine;

	qml_counter_store_lock_all();
	mine = find_mine();
	if (mine)
		mine->times = *times;
	qml_counter_store_unlock_all();
}

/* A scheduler works in this database, so that its entry is needed. */
void
qml_counters_keep(void)
{
	Database *mine = find_mine();

	if (mine)
		pg_atomic_write_u64(&mine->looked_at, (uint64) GetCurrentTimestamp());
}

/* Whether this database has an entry, or could get one now. */
bool
qml_counters_have_room(void)
{
	return memory && (find_mine() || find_unused(GetCurrentTimestamp()));
}

/* Whether a process has come that was asked for, or may still come. */
static bool
is_taken(uint64 asked)
{
	return asked != 0 &&
		   ((asked & 1) != 0 || qml_clock_monotonic_ms() - (int64) (asked >> 1) < ASKED_MS);
}

/* Whether somebody counts or is about to, in any database: nobody else can begin. */
bool
qml_counters_are_made(void)
{
	return memory && (pg_atomic_read_u32(&memory->counting) != 0 ||
					  is_taken(pg_atomic_read_u64(&memory->asked)));
}

/*
 * Whether this session may start a process that counts: what to give it, and to release if it does
 * not start.  0: it may not, because somebody else was first, or no entry is left.
 */
uint64
qml_counters_ask(void)
{
	uint64 before;
	uint64 asked = (uint64) qml_clock_monotonic_ms() << 1;
	bool found;

	if (memory == NULL || qml_counters_are_made())
		return 0;
	before = pg_atomic_read_u64(&memory->asked);
	if (is_taken(before) || !pg_atomic_compare_exchange_u64(&memory->asked, &before, asked))
		return 0;
	qml_counter_store_lock_all();
	found = find_or_choose_mine(GetCurrentTimestamp()) != NULL;
	qml_counter_store_unlock_all();
	if (!found)
		qml_counters_release(asked);
	return found ? asked : 0;
}

/* The process has come; false: so late that another one was asked for. */
bool
qml_counters_answer(uint64 asked)
{
	QmlCounterTimes times;

	if (memory == NULL || !pg_atomic_compare_exchange_u64(&memory->asked, &asked, asked | 1))
		return false;
	qml_counters_get_times(&times);
	times.begun_at = GetCurrentTimestamp();
	times.pid = MyProcPid;
	qml_counters_set_times(&times);
	return true;
}

/* The process ends, or did not start.  Raises no error, as it is called on exit. */
void
qml_counters_release(uint64 asked)
{
	uint64 come = asked | 1;
	QmlCounterTimes times;

	qml_counters_get_times(&times);
	if (times.pid == MyProcPid)
	{
		times.begun_at = 0;
		times.pid = 0;
		qml_counters_set_times(&times);
	}
	if (!pg_atomic_compare_exchange_u64(&memory->asked, &come, 0))
		(void) pg_atomic_compare_exchange_u64(&memory->asked, &asked, 0);
}

/* ----- adding ----- */

/*
 * A transaction commits, and this session will add what it did; or (0) it has done so, or was
 * rolled back.  Returns what was announced before.
 */
TransactionId
qml_counters_announce(TransactionId xid)
{
	pg_atomic_uint32 *mine;
	TransactionId before;

	if (memory == NULL)
		return InvalidTransactionId;
	mine = &announced[MyProc - ProcGlobal->allProcs].xid;
	before = pg_atomic_read_u32(mine);
	pg_atomic_write_u32(mine, xid);
	return before;
}

/* Whether the snapshot of the count sees a transaction that has ended; a partition is locked. */
static bool
is_seen(TransactionId xid)
{
	if (TransactionIdPrecedes(xid, memory->xmin))
		return true;
	if (!TransactionIdPrecedes(xid, memory->xmax))
		return false;
	for (int i = 0; i < memory->nrunning; i++)
	{
		if (running[i] == xid)
			return false;
	}
	return true;
}

/*
 * Adds a change to a generation, if there is one.  Returns whether it can be added with the lock
 * held shared; if not, nothing is done.
 */
static bool
find_place(QmlCounterPartition *partition, pg_atomic_uint32 *generation,
		   const QmlCounterDelta *delta, bool make, QmlCounterPlace *place)
{
	uint32 number = pg_atomic_read_u32(generation);

	place->queue = NULL;
	if (number == 0 || qml_counter_store_find(partition, number, delta, make, place))
		return true;
	place->queue = NULL;
	if (make)
		give_up(generation, number);
	return make;
}

/* Adds a change to both generations at once, so that they can be compared at any time. */
static bool
add(const Database *mine, QmlCounterPartition *partition, TransactionId xid,
	const QmlCounterDelta *delta, bool make)
{
	Database *database = unconstify(Database *, mine);
	QmlCounterPlace current;
	QmlCounterPlace next = {.queue = NULL};

	if (!find_place(partition, &database->current, delta, make, &current))
		return false;
	if (pg_atomic_read_u32(&database->next) != 0 && !is_seen(xid) &&
		!find_place(partition, &database->next, delta, make, &next))
		return false;
	if (current.queue)
		qml_counter_store_add(&current, delta);
	if (next.queue)
		qml_counter_store_add(&next, delta);
	return true;
}

/* Whether a change can be added with the lock held shared. */
static bool
has_places(const Database *mine, QmlCounterPartition *partition, TransactionId xid,
		   const QmlCounterDelta *delta)
{
	Database *database = unconstify(Database *, mine);
	QmlCounterPlace place;

	return find_place(partition, &database->current, delta, false, &place) &&
		   (pg_atomic_read_u32(&database->next) == 0 || is_seen(xid) ||
			find_place(partition, &database->next, delta, false, &place));
}

static const QmlCounterDelta *
delta_at(const QmlCounterDelta *deltas, size_t step, int number)
{
	return (const QmlCounterDelta *) ((const char *) deltas + step * number);
}

/* Adds changes of one partition at once.  False: nothing is done, because something is missing. */
static bool
add_run(const Database *mine, QmlCounterPartition *partition, TransactionId xid,
		const QmlCounterDelta *deltas, size_t step, int count, bool make)
{
	bool done = true;

	qml_counter_store_lock(partition, make ? LW_EXCLUSIVE : LW_SHARED);
	if (mine->oid != MyDatabaseId)
		count = 0;
	for (int i = 0; done && !make && count > 1 && i < count; i++)
		done = has_places(mine, partition, xid, delta_at(deltas, step, i));
	for (int i = 0; done && i < count; i++)
	{
		if (make)
			qml_counter_store_make_room(partition);
		done = add(mine, partition, xid, delta_at(deltas, step, i), make);
	}
	qml_counter_store_unlock(partition);
	return done;
}

/*
 * Adds what a transaction did, which can be seen now: changes that are so many bytes apart.  Where
 * those of a queue follow one another, readers see all of them or none.
 */
void
qml_counters_apply(TransactionId xid, const QmlCounterDelta *deltas, size_t step, int count)
{
	const Database *mine = find_mine();
	int end;

	for (int i = 0; mine && i < count; i = end)
	{
		const QmlCounterDelta *first = delta_at(deltas, step, i);
		QmlCounterPartition *partition = qml_counter_store_of(MyDatabaseId, first->queue);

		for (end = i + 1; end < count; end++)
		{
			if (qml_counter_store_of(MyDatabaseId, delta_at(deltas, step, end)->queue) != partition)
				break;
		}
		if (!add_run(mine, partition, xid, first, step, end - i, false))
			(void) add_run(mine, partition, xid, first, step, end - i, true);
	}
}

/* ----- reading ----- */

/*
 * The generation to read; 0: none.  One of other rows is given up, so that the scheduler counts
 * these.  A partition is locked.
 */
static uint32
readable(const QmlCounterSource *source)
{
	Database *mine = find_mine();
	uint32 number = mine ? pg_atomic_read_u32(&mine->current) : 0;

	if (number == 0 || is_same(&mine->source, source))
		return number;
	give_up(&mine->current, number);
	return 0;
}

/* Reads a queue.  False: its rows must be counted. */
bool
qml_counters_read_queue(const QmlCounterSource *source, int queue, QmlCounterRow *row)
{
	QmlCounterPartition *partition;
	uint32 generation;

	if (find_mine() == NULL)
		return false;
	partition = qml_counter_store_of(MyDatabaseId, queue);
	qml_counter_store_lock(partition, LW_EXCLUSIVE);
	generation = readable(source);
	if (generation != 0)
		(void) qml_counter_store_read_queue(partition, generation, queue, GetCurrentTimestamp(),
											row);
	qml_counter_store_unlock(partition);
	return generation != 0;
}

/* Reads the queues of a partition into rows, behind those that there are. */
static uint32
read_partition(int number, const QmlCounterSource *source, QmlCounterRow *rows, int *count)
{
	QmlCounterPartition *partition = qml_counter_store_partition(number);
	uint32 generation;

	qml_counter_store_lock(partition, LW_EXCLUSIVE);
	generation = readable(source);
	if (generation != 0)
		*count += qml_counter_store_read(partition, generation, GetCurrentTimestamp(),
										 rows + *count);
	qml_counter_store_unlock(partition);
	return generation;
}

/*
 * Reads all queues that have, or had, jobs.  Each is read at one moment, and all within a short
 * time.  False: rows must be counted.
 */
bool
qml_counters_read(const QmlCounterSource *source, QmlCounterRow **rows, int *count)
{
	uint32 generation = 0;
	int room = 2 * QML_COUNTER_QUEUES;

	if (find_mine() == NULL)
		return false;
	*rows = palloc(sizeof(QmlCounterRow) * room);
	*count = 0;
	for (int i = 0; i < QML_COUNTER_PARTITIONS;)
	{
		uint32 found;

		if (room - *count < QML_COUNTER_QUEUES)
		{
			room *= 2;
			*rows = repalloc(*rows, sizeof(QmlCounterRow) * room);
		}
		found = read_partition(i, source, *rows, count);
		if (found == 0)
			return false;
		/* Another one has taken its place: from the beginning. */
		i = i == 0 || found == generation ? i + 1 : 0;
		if (i == 0)
			*count = 0;
		generation = found;
	}
	return true;
}

/* ----- counting ----- */

/* Takes the snapshot of the count.  All partitions are locked. */
static Snapshot
take_snapshot(void)
{
	Snapshot snapshot = GetLatestSnapshot();

	memory->xmin = snapshot->xmin;
	memory->xmax = snapshot->xmax;
	memory->nrunning = (int) snapshot->xcnt;
	memcpy(running, snapshot->xip, sizeof(TransactionId) * snapshot->xcnt);
	return snapshot;
}

/* Those that have not added yet what the snapshot sees; false: there are none. */
static bool
note_awaited(void)
{
	bool found = false;

	if (awaited == NULL)
		awaited = palloc(sizeof(TransactionId) * MaxBackends);
	for (int i = 0; i < MaxBackends; i++)
	{
		TransactionId xid = pg_atomic_read_u32(&announced[i].xid);

		awaited[i] = TransactionIdIsValid(xid) && is_seen(xid) ? xid : InvalidTransactionId;
		found = found || TransactionIdIsValid(awaited[i]);
	}
	return found;
}

static bool
wait_for_awaited(int64 end)
{
	for (int i = 0; i < MaxBackends; i++)
	{
		while (TransactionIdIsValid(awaited[i]) &&
			   pg_atomic_read_u32(&announced[i].xid) == awaited[i])
		{
			if (qml_clock_monotonic_ms() >= end)
				return false;
			qml_clock_pause(1);
		}
	}
	return true;
}

/*
 * Begins a count of all rows; *snapshot, which is registered, is the one to count with.  It ends
 * with qml_counters_finish(), qml_counters_cancel(), or an error.  False: it cannot be done now.
 */
bool
qml_counters_begin(const QmlCounterSource *source, Snapshot *snapshot)
{
	TimestampTz now = GetCurrentTimestamp();
	uint32 none = 0;
	Database *mine;

	if (memory == NULL || !pg_atomic_compare_exchange_u32(&memory->counting, &none, 1))
		return false;
	making = PG_UINT32_MAX; /* from here on an error gives it up */
	sweep();
	(void) GetLatestSnapshot(); /* allocates what it needs */
	qml_counter_store_lock_all();
	mine = find_or_choose_mine(now);
	if (mine)
	{
		if (!is_same(&mine->source, source))
			pg_atomic_write_u32(&mine->current, 0);
		mine->source = *source;
		making = ++memory->generation;
		if (making == PG_UINT32_MAX || making == 0)
			making = memory->generation = 1;
		pg_atomic_write_u32(&mine->next, making);
		*snapshot = take_snapshot();
	}
	qml_counter_store_unlock_all();
	if (mine == NULL)
	{
		qml_counters_cancel();
		return false;
	}
	*snapshot = RegisterSnapshot(*snapshot);
	return true;
}

/* Adds rows that were counted.  False: there is no room (*has_room), or something came between. */
bool
qml_counters_put(const QmlCounterDelta *delta, bool *has_room)
{
	QmlCounterPartition *partition = qml_counter_store_of(MyDatabaseId, delta->queue);
	Database *mine = find_mine();
	QmlCounterPlace place = {.queue = NULL};
	bool is_mine;

	Assert(making != 0);
	qml_counter_store_lock(partition, LW_EXCLUSIVE);
	qml_counter_store_make_room(partition);
	is_mine = mine && pg_atomic_read_u32(&mine->next) == making;
	*has_room = !is_mine || qml_counter_store_find(partition, making, delta, true, &place);
	if (is_mine && *has_room)
		qml_counter_store_add(&place, delta);
	qml_counter_store_unlock(partition);
	return is_mine && *has_room;
}

/*
 * Waits until all transactions that the count has seen have added what they did, which takes them
 * no time.  settle: adds what prepared ones did that have ended without that (prepared.c).  False:
 * one is held up, by something else.
 */
bool
qml_counters_wait(void (*settle)(bool all))
{
	int64 end = qml_clock_monotonic_ms() + WAIT_MS;

	(void) note_awaited();
	do
	{
		if (!wait_for_awaited(end))
			return false;
		settle(true);
	} while (note_awaited());
	return true;
}

/*
 * The new numbers take the place of those that were in use; *defect: what was wrong in these.
 * False: something came between.
 */
bool
qml_counters_finish(QmlCounterDefect *defect)
{
	QmlCounterRow *rows = palloc(sizeof(QmlCounterRow) * QML_COUNTER_QUEUES);
	Database *mine = find_mine();
	uint32 current = mine ? pg_atomic_read_u32(&mine->current) : 0;
	bool done;

	Assert(making != 0);
	memset(defect, 0, sizeof(*defect));
	for (int i = 0; current != 0 && i < QML_COUNTER_PARTITIONS; i++)
		qml_counter_store_compare(qml_counter_store_partition(i), current, making, rows, defect);
	pfree(rows);
	qml_counter_store_lock_all();
	done = mine && pg_atomic_read_u32(&mine->next) == making;
	/* What was compared, if it was given up meanwhile, says nothing. */
	if (!done || pg_atomic_read_u32(&mine->current) != current)
		defect->found = 0;
	if (done)
	{
		uint32 next = making;

		(void) pg_atomic_exchange_u32(&mine->current, making);
		/* Whoever forgets does so without a lock, before this or after it. */
		done = pg_atomic_compare_exchange_u32(&mine->next, &next, 0);
		if (!done)
			give_up(&mine->current, making);
	}
	qml_counter_store_unlock_all();
	qml_counters_cancel();
	return done;
}

/* The count is over, whatever came of it. */
void
qml_counters_cancel(void)
{
	Database *mine = find_mine();

	if (mine)
		give_up(&mine->next, making);
	making = 0;
	awaited = NULL;
	sweep();
	pg_atomic_write_u32(&memory->counting, 0);
}
