/*
 * ready_queues.c
 *		Which queues of a database have ready jobs.
 *
 * A claim from all queues looks at those that may have ready jobs, however many others there
 * are.  For each database that claims from lists there is a bit for each queue.  It is set
 * when a job of the queue becomes ready, or may be, and cleared only when the list of the
 * queue is known to have all ready jobs of it, and has none (ready_list.c).  Both are done with
 * the store of the queue locked.
 *
 * The bits say nothing until they are complete.  Whoever wants to know goes through the index
 * once, with a snapshot that is taken after the database has its entry here: a transaction that
 * the snapshot does not see has yet to set the bits of the jobs that it makes ready.
 *
 * What is known of a database is forgotten as a whole when somebody may have changed qml.live
 * without telling: by raising its generation, with all stores locked, so that nobody is in the
 * middle of something that counts on it.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"

#include "ipc/ready_queues.h"
#include "ipc/ready_store.h"

/* A database is not given up for another one so soon after it was used. */
#define IN_USE (10 * USECS_PER_SEC)

/* The index is not gone through so soon after a database was forgotten, if it is so all the time. */
#define LEARN_AFTER USECS_PER_SEC

/* What lies in shared memory; the stores follow. */
typedef struct ReadyMemory
{
	uint32 generation;			   /* the last one that was given; with all stores locked */
	Oid oids[QML_READY_DATABASES]; /* the same */
	QmlReadyDatabase databases[QML_READY_DATABASES];
} ReadyMemory;

static ReadyMemory *memory = NULL;

static shmem_request_hook_type previous_request = NULL;
static shmem_startup_hook_type previous_startup = NULL;

/* The entry of this database, to look at first. */
static int my_number = 0;

/* By prepared.c: of transactions whose end nobody has told. */
static QmlReadyUse before_use = NULL;

/* ----- the memory ----- */

static void
request_memory(void)
{
	if (previous_request)
		previous_request();
	RequestAddinShmemSpace(add_size(MAXALIGN(sizeof(ReadyMemory)), qml_ready_store_request()));
}

static void
init_database(QmlReadyDatabase *database)
{
	pg_atomic_init_u32(&database->generation, 0);
	pg_atomic_init_u64(&database->used_at, 0);
	pg_atomic_init_u32(&database->is_complete, 0);
	pg_atomic_init_u32(&database->end, 0);
	for (int word = 0; word < QML_READY_QUEUES / 64; word++)
		pg_atomic_init_u64(&database->words[word], 0);
}

/* Creates the memory, or finds it in a process that was not forked. */
static void
create_memory(void)
{
	Size size = add_size(MAXALIGN(sizeof(ReadyMemory)), qml_ready_store_size());
	bool found;

	if (previous_startup)
		previous_startup();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	memory = ShmemInitStruct("qml ready jobs", size, &found);
	if (!found)
	{
		memset(memory, 0, size);
		for (int i = 0; i < QML_READY_DATABASES; i++)
			init_database(&memory->databases[i]);
	}
	qml_ready_store_init((char *) memory + MAXALIGN(sizeof(ReadyMemory)), found);
	LWLockRelease(AddinShmemInitLock);
}

/* Called while the server loads its preloaded libraries: otherwise there are no lists. */
void
qml_ready_queues_init(void)
{
	previous_request = shmem_request_hook;
	shmem_request_hook = request_memory;
	previous_startup = shmem_startup_hook;
	shmem_startup_hook = create_memory;
}

/* The function is called before the lists of this database are used. */
void
qml_ready_queues_call_before_use(QmlReadyUse callback)
{
	before_use = callback;
}

/* Whether there are lists of ready jobs in this server. */
bool
qml_ready_queues_exist(void)
{
	return memory != NULL;
}

/* ----- databases ----- */

/*
 * The entry of this database; NULL: it has none.  It stays so only while a store is locked.
 * The barrier of that lock, or of the end of a transaction, comes before.
 */
QmlReadyDatabase *
qml_ready_queues_mine(void)
{
	const Oid *oids = memory->oids;

	for (int i = 0; oids[my_number] != MyDatabaseId && i < QML_READY_DATABASES; i++)
	{
		if (oids[i] == MyDatabaseId)
			my_number = i;
	}
	return oids[my_number] == MyDatabaseId ? &memory->databases[my_number] : NULL;
}

/*
 * The entry for a database that has none: a free one, or that which was not used for longest.
 * NULL: all are in use.
 */
static QmlReadyDatabase *
choose_entry(TimestampTz now)
{
	int number = 0;

	for (int i = 0; i < QML_READY_DATABASES; i++)
	{
		if (!OidIsValid(memory->oids[i]))
		{
			number = i;
			break;
		}
		if (pg_atomic_read_u64(&memory->databases[i].used_at) <
			pg_atomic_read_u64(&memory->databases[number].used_at))
			number = i;
	}
	if (OidIsValid(memory->oids[number]) &&
		(TimestampTz) pg_atomic_read_u64(&memory->databases[number].used_at) > now - IN_USE)
		return NULL;
	memory->oids[number] = MyDatabaseId;
	/* Copies of a database have the same oids and files. */
	memset(memory->databases[number].tables, 0, sizeof(memory->databases[number].tables));
	return &memory->databases[number];
}

/* Nothing that was said of the database counts any more.  All stores are locked. */
static void
begin_anew(QmlReadyDatabase *database)
{
	int end = (int) pg_atomic_read_u32(&database->end);

	pg_atomic_write_u32(&database->is_complete, 0);
	database->previous = database->begun_at;
	database->begun_at = GetCurrentTimestamp();
	/* One that no list of any database has. */
	pg_atomic_write_u32(&database->generation, ++memory->generation);
	for (int word = 0; word < end; word++)
		pg_atomic_write_u64(&database->words[word], 0);
	pg_atomic_write_u32(&database->end, 0);
	database->has_high = false;
}

/* Whether what is known of a database is about these tables. */
static bool
is_same(const QmlReadyDatabase *database, const QmlReadyTable *tables, int count)
{
	for (int i = 0; i < count; i++)
	{
		const QmlReadyTable *known = &database->tables[i];

		if (known->live != tables[i].live || known->trigger != tables[i].trigger ||
			(OidIsValid(tables[i].file) && known->file != tables[i].file))
			return false;
	}
	return true;
}

/* What is known of a database is about these tables from now on. */
static void
set_tables(QmlReadyDatabase *database, const QmlReadyTable *tables, int count)
{
	for (int i = 0; i < count; i++)
	{
		Oid file = database->tables[i].file;

		database->tables[i] = tables[i];
		/* Who does not have it open has not seen another one. */
		if (!OidIsValid(tables[i].file))
			database->tables[i].file = file;
	}
}

/*
 * What is known of the database is used.  All sessions read this cache line; they write it once a
 * second.
 */
static void
note_use(QmlReadyDatabase *database)
{
	TimestampTz now = GetCurrentStatementStartTimestamp();

	if ((TimestampTz) pg_atomic_read_u64(&database->used_at) < now - USECS_PER_SEC)
		pg_atomic_write_u64(&database->used_at, (uint64) now);
}

/* Whether what is known of the database is about these tables. */
bool
qml_ready_queues_know(const QmlReadyTable *tables, int count)
{
	QmlReadyDatabase *mine;

	Assert(count <= QML_READY_TABLES);
	before_use(tables, count, false);
	mine = qml_ready_queues_mine();
	if (mine == NULL || !is_same(mine, tables, count))
		return false;
	note_use(mine);
	return true;
}

/*
 * This session is going to use the lists of its database.  tables: those that are in use, the
 * first of them qml.live; one whose jobs are going to be claimed is open, and its file is
 * known.  What was known with another version of a trigger, which tells of SQL, does not count:
 * somebody may have written while it was disabled.  False: there is no room for the database.
 */
bool
qml_ready_queues_open(const QmlReadyTable *tables, int count)
{
	TimestampTz now = GetCurrentStatementStartTimestamp();
	QmlReadyDatabase *mine;

	if (qml_ready_queues_know(tables, count))
		return true;
	before_use(tables, count, true);
	qml_ready_store_lock_all();
	mine = qml_ready_queues_mine();
	if (mine == NULL)
		mine = choose_entry(now);
	if (mine && !is_same(mine, tables, count))
	{
		begin_anew(mine);
		set_tables(mine, tables, count);
	}
	if (mine)
		pg_atomic_write_u64(&mine->used_at, (uint64) now);
	qml_ready_store_unlock_all();
	return mine != NULL;
}

/* A table of unfinished jobs of this database, the first of them qml.live; InvalidOid: none. */
Oid
qml_ready_queues_table(int number)
{
	const QmlReadyDatabase *mine = memory ? qml_ready_queues_mine() : NULL;

	return mine ? mine->tables[number].live : InvalidOid;
}

/* Somebody may have written qml.live of a database without telling: forgets all of it. */
void
qml_ready_queues_forget(Oid database)
{
	if (memory == NULL)
		return;
	qml_ready_store_lock_all();
	for (int i = 0; i < QML_READY_DATABASES; i++)
	{
		if (memory->oids[i] == database)
			begin_anew(&memory->databases[i]);
	}
	qml_ready_store_unlock_all();
}

/* ----- queues ----- */

/* Whether there is a bit for a queue.  The owner of the tables can give it any id. */
static bool
has_bit(int queue)
{
	return queue >= 0 && queue < QML_READY_QUEUES;
}

/* A queue may have ready jobs; its store is locked. */
void
qml_ready_queues_set(QmlReadyDatabase *database, int queue)
{
	pg_atomic_uint64 *word;
	uint64 bit;

	if (!has_bit(queue))
	{
		/* Others may write these two at the same time, and the same. */
		database->has_high = true;
		pg_atomic_write_u32(&database->is_complete, 0);
		return;
	}
	word = &database->words[queue / 64];
	bit = UINT64CONST(1) << queue % 64;
	if (pg_atomic_read_u64(word) & bit)
		return;
	(void) pg_atomic_fetch_or_u64(word, bit);
	for (uint32 end = pg_atomic_read_u32(&database->end); end <= (uint32) queue / 64;)
	{
		if (pg_atomic_compare_exchange_u32(&database->end, &end, (uint32) queue / 64 + 1))
			break;
	}
}

/* A queue has no ready jobs; its store is locked. */
void
qml_ready_queues_clear(QmlReadyDatabase *database, int queue)
{
	if (has_bit(queue))
		(void) pg_atomic_fetch_and_u64(&database->words[queue / 64],
									   ~(UINT64CONST(1) << queue % 64));
}

/* Whether a queue may have ready jobs, or nobody relies on that being told; its store is locked. */
bool
qml_ready_queues_has(QmlReadyDatabase *database, int queue)
{
	return !has_bit(queue) || pg_atomic_read_u32(&database->is_complete) == 0 ||
		   (pg_atomic_read_u64(&database->words[queue / 64]) & UINT64CONST(1) << queue % 64) != 0;
}

/*
 * The next queue with an id above `after` that may have ready jobs; 0: none.  False: it is not
 * known.
 */
bool
qml_ready_queues_next(int after, int *queue)
{
	QmlReadyDatabase *mine = qml_ready_queues_mine();
	uint32 generation;
	uint32 end;
	uint32 next = after < 0 ? 0 : (uint32) after + 1;

	*queue = 0;
	if (mine == NULL)
		return false;
	generation = pg_atomic_read_u32(&mine->generation);
	pg_read_barrier();
	end = pg_atomic_read_u32(&mine->end);
	for (uint32 word = next / 64; word < end && *queue == 0; word++)
	{
		uint64 bits = pg_atomic_read_u64(&mine->words[word]);

		if (word == next / 64)
			bits &= ~UINT64CONST(0) << next % 64;
		if (bits != 0)
			*queue = (int) word * 64 + pg_rightmost_one_pos64(bits);
	}
	/* It may have been forgotten meanwhile, and the entry even belong to another database. */
	pg_read_barrier();
	return pg_atomic_read_u32(&mine->is_complete) != 0 &&
		   pg_atomic_read_u32(&mine->generation) == generation && qml_ready_queues_mine() == mine;
}

/*
 * Begins to go through the index, for which a snapshot is taken after this.  False: it is not
 * worth it, because the database is forgotten again and again, or has queues without a bit.
 */
bool
qml_ready_queues_begin(uint32 *generation)
{
	QmlReadyDatabase *mine = qml_ready_queues_mine();

	if (mine == NULL || mine->has_high ||
		(mine->begun_at - mine->previous < LEARN_AFTER &&
		 GetCurrentTimestamp() - mine->begun_at < LEARN_AFTER))
		return false;
	*generation = pg_atomic_read_u32(&mine->generation);
	return true;
}

/* A queue was found in the index. */
void
qml_ready_queues_found(uint32 generation, int queue)
{
	QmlReadyStore *store = qml_ready_store_lock(MyDatabaseId, queue);
	QmlReadyDatabase *mine = qml_ready_queues_mine();

	if (mine && pg_atomic_read_u32(&mine->generation) == generation)
		qml_ready_queues_set(mine, queue);
	qml_ready_store_unlock(store);
}

/* All of the index was gone through. */
void
qml_ready_queues_complete(uint32 generation)
{
	QmlReadyDatabase *mine;

	/* Nobody forgets the database, or tells of a queue that has no bit, meanwhile. */
	qml_ready_store_lock_all();
	mine = qml_ready_queues_mine();
	if (mine && pg_atomic_read_u32(&mine->generation) == generation && !mine->has_high)
		pg_atomic_write_u32(&mine->is_complete, 1);
	qml_ready_store_unlock_all();
}
