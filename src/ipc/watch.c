/*
 * watch.c
 *		What has changed in a database, for sessions that watch it.
 *
 * A client calls qml_watch() with the version that the last call gave it, and is told when
 * something has changed since (jobs/watch.c).  Between its calls nothing is kept of it.
 *
 * There is a cell for each queue, and some for what belongs to no queue.  A cell has the version
 * of its last change, and a mark: it has changed again, and no version is given to that yet.
 * - Whoever changes something marks its cells, after the change can be seen.  While a cell is
 *   marked, that is one read of memory which nobody writes.  So what nobody watches costs next to
 *   nothing, and what is watched costs a write ten times a second, not one for each commit.
 * - Whoever watches takes the marks of its cells off, and gives a new version to these.  It is
 *   told of a change if one of its cells has a version above its own.
 *
 * No change is lost.  A version that is given to a mark is above all that were given out before,
 * by whoever (`last`, under the lock).
 * - Who changes something does that, then (full barrier) reads the mark.  If it is there already,
 *   it is taken off later than that, and whoever looks at tables after that sees the change.
 * - Whoever sleeps says which cells it waits for, then (full barrier) looks at these.  Who sets a
 *   mark does that, then (full barrier) looks for those that sleep.  So one of them sees the
 *   other.  Who finds the mark set wakes nobody: whoever has set it does, or has done so.
 * - While a database has no entry, nothing is marked.  Who begins to watch makes the entry, then
 *   (full barrier) returns to its client, which looks.  A version from before the entry counts as
 *   one that everything has changed since.
 *
 * A version tells nothing of what others do: it is a clock, in tenths of a millisecond, from a
 * random beginning for each start of the server.  So one of another server, or of before a
 * restart, is almost surely not in the range of those that were given out, and counts as old; and
 * all of them are below 2^53, so that clients may take them for floating-point numbers.
 *
 * A change is told no sooner than a tenth of a second after the version that it is told against.
 *
 * Queues have their cells by id, modulo QML_WATCH_QUEUES: so many queues are told apart, and
 * more share theirs.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"

#include "common/clock.h"
#include "common/fault.h"
#include "compat.h"
#include "ipc/watch.h"

#define TRANCHE "qml_watch"

#define MAX_DATABASES 64
#define DATABASES	  QML_FAULT_LIMIT("watch.databases", MAX_DATABASES)

/* Versions: so many a millisecond, and so many before the next change is told. */
#define VERSIONS_PER_MS 10
#define REST			(100 * VERSIONS_PER_MS)

/* The first version is between this and twice as much. */
#define FIRST_VERSION (INT64CONST(1) << 51)

/* A cell is a version, moved by one bit, and the mark. */
#define MARK UINT64CONST(1)

typedef struct Database
{
	/* Under the lock; the first is read without. */
	Oid oid;	 /* InvalidOid: the entry is free */
	int64 since; /* nothing is known of changes before this version */
	int64 last;	 /* that was given out */

	pg_atomic_uint32 watching;	/* sessions in a call; written under the lock */
	pg_atomic_uint32 own_queue; /* id of qml's own queue; 0: there is none */
	pg_atomic_uint64 cells[QML_WATCH_CELLS];
} Database;

/* What lies in shared memory; what sessions wait for follows. */
typedef struct Memory
{
	LWLock *lock;				 /* set at start; a leaf */
	int64 first;				 /* set at start: the version at time 0 */
	pg_atomic_uint32 generation; /* counts new entries; 0: nobody has ever watched */
	Database databases[MAX_DATABASES];
} Memory;

static Memory *memory = NULL;

/*
 * By the number of its PGPROC, the entry that a session sleeps in, counted from 1; 0: it does
 * not sleep, or was woken.  And what it waits for.
 */
static pg_atomic_uint32 *asleep;
static QmlWatchSet *expected;

static shmem_request_hook_type previous_request = NULL;
static shmem_startup_hook_type previous_startup = NULL;

/* The entry in which this session watches. */
static Database *watched = NULL;

/* ----- the memory ----- */

static Size
asleep_size(void)
{
	return MAXALIGN(mul_size(MaxBackends, sizeof(pg_atomic_uint32)));
}

static Size
memory_size(void)
{
	return add_size(add_size(MAXALIGN(sizeof(Memory)), asleep_size()),
					mul_size(MaxBackends, sizeof(QmlWatchSet)));
}

static void
request_memory(void)
{
	if (previous_request)
		previous_request();
	RequestAddinShmemSpace(memory_size());
	RequestNamedLWLockTranche(TRANCHE, 1);
}

/* Cells are made with the entry, so that memory which is not used is not touched. */
static void
fill_memory(void)
{
	uint64 random;

	if (!pg_strong_random(&random, sizeof(random)))
		elog(FATAL, "could not generate random values");
	memory->lock = &GetNamedLWLockTranche(TRANCHE)->lock;
	memory->first = FIRST_VERSION + (int64) (random % FIRST_VERSION);
	pg_atomic_init_u32(&memory->generation, 0);
	for (int i = 0; i < MAX_DATABASES; i++)
	{
		memory->databases[i].oid = InvalidOid;
		pg_atomic_init_u32(&memory->databases[i].watching, 0);
		pg_atomic_init_u32(&memory->databases[i].own_queue, 0);
	}
	for (int i = 0; i < MaxBackends; i++)
		pg_atomic_init_u32(&asleep[i], 0);
}

/* Creates the memory, or finds it in a process that was not forked. */
static void
create_memory(void)
{
	bool found;

	if (previous_startup)
		previous_startup();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	memory = ShmemInitStruct("qml watch", memory_size(), &found);
	asleep = (pg_atomic_uint32 *) ((char *) memory + MAXALIGN(sizeof(Memory)));
	expected = (QmlWatchSet *) ((char *) asleep + asleep_size());
	if (!found)
		fill_memory();
	LWLockRelease(AddinShmemInitLock);
}

/* Called while the server loads its preloaded libraries: otherwise nobody can watch. */
void
qml_watch_init(void)
{
	previous_request = shmem_request_hook;
	shmem_request_hook = request_memory;
	previous_startup = shmem_startup_hook;
	shmem_startup_hook = create_memory;
}

static int
my_number(void)
{
	return (int) (MyProc - ProcGlobal->allProcs);
}

static Database *
find_database(Oid database)
{
	for (int i = 0; OidIsValid(database) && i < MAX_DATABASES; i++)
	{
		if (memory->databases[i].oid == database)
			return &memory->databases[i];
	}
	return NULL;
}

/* The entry of this database; NULL: it has none.  What was changed before this can be seen. */
static Database *
find_mine(void)
{
	static uint32 known = 0;
	static Database *mine = NULL;
	uint32 generation;

	if (memory == NULL || !OidIsValid(MyDatabaseId))
		return NULL;
	pg_memory_barrier();
	generation = pg_atomic_read_u32(&memory->generation);
	if (generation != known)
	{
		pg_read_barrier();
		mine = find_database(MyDatabaseId);
		known = generation;
	}
	return mine;
}

/* ----- by whoever has changed something ----- */

/* Whether anybody watches this database, or once did. */
bool
qml_watch_is_on(void)
{
	return find_mine() != NULL;
}

/* The id of qml's own queue, if it is known here; otherwise 0. */
int
qml_watch_own_queue(void)
{
	Database *mine = find_mine();

	return mine ? (int) pg_atomic_read_u32(&mine->own_queue) : 0;
}

static bool
have_common(const QmlWatchSet *a, const QmlWatchSet *b)
{
	for (int i = 0; i < QML_WATCH_WORDS; i++)
	{
		if (a->words[i] & b->words[i])
			return true;
	}
	return false;
}

/* Wakes the sessions that wait for one of these, each once. */
static void
wake(Database *database, const QmlWatchSet *marked)
{
	uint32 entry = (uint32) (database - memory->databases) + 1;

	for (int i = 0; i < MaxBackends; i++)
	{
		uint32 sleeps = pg_atomic_read_u32(&asleep[i]);

		if (sleeps == entry && have_common(&expected[i], marked) &&
			pg_atomic_compare_exchange_u32(&asleep[i], &sleeps, 0))
			SetLatch(&ProcGlobal->allProcs[i].procLatch);
	}
}

/* Marks a cell; false: it has its mark. */
static bool
mark(Database *database, int cell)
{
	return (pg_atomic_read_u64(&database->cells[cell]) & MARK) == 0 &&
		   (pg_atomic_fetch_or_u64(&database->cells[cell], MARK) & MARK) == 0;
}

/* Marks the cells of one word of a set; adds to *marked those that had no mark. */
static void
mark_word(Database *database, int word, uint64 cells, QmlWatchSet *marked)
{
	for (; cells != 0; cells &= cells - 1)
	{
		int cell = word * 64 + pg_rightmost_one_pos64(cells);

		if (!mark(database, cell))
			continue;
		if (marked->used == 0)
			memset(marked, 0, sizeof(*marked));
		qml_watch_add(marked, cell);
	}
}

static void
tell(Database *database, const QmlWatchSet *changed)
{
	QmlWatchSet marked; /* filled with the first mark */

	marked.used = 0;
	for (uint64 used = changed->used; used != 0; used &= used - 1)
	{
		for (int i = pg_rightmost_one_pos64(used); i < QML_WATCH_WORDS; i += 64)
			mark_word(database, i, changed->words[i], &marked);
	}
	if (marked.used != 0 && pg_atomic_read_u32(&database->watching) > 0)
		wake(database, &marked);
}

/*
 * This has changed in this database, and can be seen.  Like all that tells, it raises no error,
 * and can be called within a critical section, and with any lock but that of this file.
 */
void
qml_watch_tell(const QmlWatchSet *changed)
{
	Database *mine = find_mine();

	if (mine)
		tell(mine, changed);
}

/* Adds what it means that a queue has changed, or its jobs. */
void
qml_watch_add_queue(QmlWatchSet *set, int queue)
{
	if (queue != 0 && queue == qml_watch_own_queue())
		qml_watch_add(set, QML_WATCH_OWN);
	else
	{
		qml_watch_add(set, QML_WATCH_ALL);
		qml_watch_add(set, qml_watch_cell_of(queue));
	}
}

/* The same as qml_watch_tell() for one queue. */
void
qml_watch_tell_queue(int queue)
{
	QmlWatchSet changed;

	if (!qml_watch_is_on())
		return;
	memset(&changed, 0, sizeof(changed));
	qml_watch_add_queue(&changed, queue);
	qml_watch_tell(&changed);
}

static void
tell_of(Oid database, const QmlWatchSet *changed)
{
	Database *entry;

	if (memory == NULL)
		return;
	pg_memory_barrier();
	if (pg_atomic_read_u32(&memory->generation) == 0)
		return;
	entry = find_database(database);
	if (entry)
		tell(entry, changed);
}

/* What belongs to no queue has changed in a database, which need not be the one of this process. */
void
qml_watch_tell_common(Oid database)
{
	QmlWatchSet changed;

	memset(&changed, 0, sizeof(changed));
	qml_watch_add(&changed, QML_WATCH_ALL);
	qml_watch_add(&changed, QML_WATCH_COMMON);
	tell_of(database, &changed);
}

/* It is not known what has changed in a database. */
void
qml_watch_tell_everything(Oid database)
{
	QmlWatchSet changed;

	memset(&changed, 0, sizeof(changed));
	for (int cell = 0; cell < QML_WATCH_CELLS; cell++)
		qml_watch_add(&changed, cell);
	tell_of(database, &changed);
}

/* ----- by a session that watches ----- */

/* The version of this moment. */
static int64
clock_version(void)
{
	return memory->first + qml_clock_monotonic_us() * VERSIONS_PER_MS / 1000;
}

/* Makes an entry; NULL: all are of databases that are watched now.  The lock is held. */
static Database *
make_entry(void)
{
	Database *chosen = NULL;

	for (int i = 0; i < DATABASES; i++)
	{
		Database *entry = &memory->databases[i];

		if (pg_atomic_read_u32(&entry->watching) > 0)
			continue;
		/* A free one, or that which nobody has looked into for longest. */
		if (chosen == NULL ||
			(OidIsValid(chosen->oid) && (!OidIsValid(entry->oid) || entry->last < chosen->last)))
			chosen = entry;
	}
	if (chosen == NULL)
		return NULL;
	chosen->oid = InvalidOid;
	pg_write_barrier();
	for (int cell = 0; cell < QML_WATCH_CELLS; cell++)
		pg_atomic_init_u64(&chosen->cells[cell], 0);
	pg_atomic_write_u32(&chosen->own_queue, 0);
	chosen->since = chosen->last = clock_version();
	pg_write_barrier();
	chosen->oid = MyDatabaseId;
	(void) pg_atomic_fetch_add_u32(&memory->generation, 1);
	return chosen;
}

/*
 * This session watches, until qml_watch_end(), which it calls on each way out.  False: there is
 * no room, because other sessions watch as many other databases as there can be.
 */
bool
qml_watch_begin(void)
{
	Assert(watched == NULL);
	LWLockAcquire(memory->lock, LW_EXCLUSIVE);
	watched = find_database(MyDatabaseId);
	if (watched == NULL)
		watched = make_entry();
	if (watched)
		(void) pg_atomic_fetch_add_u32(&watched->watching, 1);
	LWLockRelease(memory->lock);
	return watched != NULL;
}

/* This session no longer watches; it may not have done so. */
void
qml_watch_end(void)
{
	if (watched == NULL)
		return;
	pg_atomic_write_u32(&asleep[my_number()], 0);
	LWLockAcquire(memory->lock, LW_EXCLUSIVE);
	(void) pg_atomic_fetch_sub_u32(&watched->watching, 1);
	LWLockRelease(memory->lock);
	watched = NULL;
}

/* Which queue is qml's own; 0: there is none. */
void
qml_watch_set_own_queue(int queue)
{
	if (pg_atomic_read_u32(&watched->own_queue) != (uint32) queue)
		pg_atomic_write_u32(&watched->own_queue, (uint32) queue);
}

/* Takes the mark off a cell, and gives it a version above all before. */
static int64
take_mark(int cell, int64 before)
{
	watched->last = Max(watched->last, before + 1);
	(void) pg_atomic_exchange_u64(&watched->cells[cell], (uint64) watched->last << 1);
	return watched->last;
}

/*
 * This session is going to read who may see what.  Returns a version: of what is changed of that
 * from now on, the version will be higher.
 */
int64
qml_watch_take_rights(void)
{
	int64 before;
	int64 version;

	LWLockAcquire(memory->lock, LW_EXCLUSIVE);
	before = watched->last;
	version = watched->last = Max(before, clock_version());
	if (pg_atomic_read_u64(&watched->cells[QML_WATCH_RIGHTS]) & MARK)
		version = take_mark(QML_WATCH_RIGHTS, before);
	LWLockRelease(memory->lock);
	return version;
}

/* For how many milliseconds no change is told to who has this version. */
int
qml_watch_rest(int64 version)
{
	int64 now = clock_version();
	int64 age;

	/* It may be ahead of the clock, by a little. */
	if (version <= now - REST || version >= now + REST)
		return 0;
	age = now - version;
	return (int) ((REST - age + VERSIONS_PER_MS - 1) / VERSIONS_PER_MS);
}

/* This session is going to sleep until one of these changes; it must look before. */
void
qml_watch_expect(const QmlWatchSet *set)
{
	int number = my_number();

	Assert(watched != NULL);
	pg_atomic_write_u32(&asleep[number], 0);
	pg_memory_barrier();
	expected[number] = *set;
	pg_write_barrier();
	pg_atomic_write_u32(&asleep[number], (uint32) (watched - memory->databases) + 1);
	pg_memory_barrier();
}

/* Whether it has changed, so that this session must look. */
bool
qml_watch_is_woken(void)
{
	return pg_atomic_read_u32(&asleep[my_number()]) == 0;
}

/*
 * Whether one of a set has changed since a version; NULL: since ever.  *version is the one to go
 * on with.  rights_at: the one since which the set is known to be what this session may see.
 */
QmlWatchFound
qml_watch_look(const QmlWatchSet *set, const int64 *since, int64 rights_at, int64 *version)
{
	int64 before;
	int64 newest = 0;
	int64 rights = 0;

	LWLockAcquire(memory->lock, LW_EXCLUSIVE);
	before = watched->last;
	watched->last = Max(watched->last, clock_version());
	for (int i = 0; i < QML_WATCH_WORDS; i++)
	{
		for (uint64 rest = set->words[i]; rest != 0; rest &= rest - 1)
		{
			int cell = i * 64 + pg_rightmost_one_pos64(rest);
			uint64 value = pg_atomic_read_u64(&watched->cells[cell]);
			int64 changed = value & MARK ? take_mark(cell, before) : (int64) (value >> 1);

			if (cell == QML_WATCH_RIGHTS)
				rights = changed;
			else
				newest = Max(newest, changed);
		}
	}
	*version = watched->last;
	if (since && (*since < watched->since || *since > before))
		since = NULL;
	LWLockRelease(memory->lock);
	if (rights > rights_at)
		return QML_WATCH_ASK_RIGHTS;
	return since == NULL || newest > *since ? QML_WATCH_CHANGED : QML_WATCH_NOTHING;
}
