/*
 * lease_table.c
 *		The claims that run, and when each ends by itself.
 *
 * A lost job is found here, without reading the table: whoever looks for lost jobs takes
 * from here the claims that may be over, and judges each by its row (maintenance/reclaim.c).
 * An entry is a hint: its claim may have ended, may never have been committed, or may have a
 * later end.  What must not happen, while the database is known, is that a claim is missing
 * here, or that its entry is looked at too late.
 *
 * - A transaction enters its claims before it commits (lease_notes.c), while it has their
 *   rows.  So what several transactions say of a job comes in the order of their rows.
 * - It takes out those that it ends when all can see that it has committed: until then a row says
 *   that the job runs, and whoever looks for running jobs here finds it.  By then the job may have
 *   been claimed again, or made anew with the same id and claimed: such an entry stays.
 * - What a look finds out is written only if the entry is still as it was seen.
 *
 * A database is known when qml.live was read to its end since something was missed: an entry
 * that found no room, rows that were written by hand, or the start of the server.  Each miss
 * gets a number that no other has, after the claim can be seen; a reading takes the number
 * before its first snapshot, and enters what it finds.  If the number is the same at its
 * end, every claim was either seen by it or entered by its transaction.
 *
 * A prepared transaction becomes visible when somebody commits it, which is not noticed
 * here: it enters its claims when it is prepared.  Those that could not do so, or did so
 * before the server was started, are told by their time: while there is one, no reading
 * makes the database known.
 *
 * An entry also says where the row of the job was, so that an acknowledgement need not search the
 * index for it.
 *
 * The table is partitioned by a hash of the job, each partition with a lock of its own, a
 * leaf, below which nothing is taken.  A partition is a hash table of chained entries in
 * memory that is set at start.  When it is full, claims that nobody has looked at for long
 * make way: they are of databases that are gone, or have no scheduler.  Losing all of it
 * costs a reading of the table, never a job.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"

#include "common/fault.h"
#include "ipc/databases.h"
#include "ipc/lease_table.h"
#include "ipc/session_claim.h"
#include "qml.h"

/* Of a partition; fewer in tests. */
#define MOST_ENTRIES QML_FAULT_LIMIT("leases.partition", QML_LEASE_ENTRIES)

/* A claim that cannot be taken back just now is looked at again after so long, then later. */
#define FIRST_PAUSE (100 * INT64CONST(1000))
#define MAX_PAUSES	6

/* One that should have been looked at so long ago makes way for others. */
#define FORSAKEN (10 * SECS_PER_MINUTE * USECS_PER_SEC)

/* ----- the memory ----- */

static uint32
hash_job(Oid database, const pg_uuid_t *job)
{
	return hash_bytes(job->data, UUID_LEN) ^ murmurhash32((uint32) database);
}

static LWLock *
lock_of(uint32 hash)
{
	return &qml_shmem->lease_locks[hash % QML_LEASE_PARTITIONS].lock;
}

static QmlLeasePartition *
partition_of(uint32 hash)
{
	return &qml_shmem->leases[hash % QML_LEASE_PARTITIONS];
}

static uint16 *
bucket_of(uint32 hash)
{
	return &partition_of(hash)->first[hash / QML_LEASE_PARTITIONS % QML_LEASE_BUCKETS];
}

/* What leads to the entry of a job, and to 0 if there is none. */
static uint16 *
find_link(uint32 hash, Oid database, const pg_uuid_t *job)
{
	QmlLeasePartition *partition = partition_of(hash);
	uint16 *link = bucket_of(hash);

	Assert(LWLockHeldByMe(lock_of(hash)));
	while (*link != 0)
	{
		QmlLeaseEntry *entry = &partition->entries[*link - 1];

		if (memcmp(&entry->job, job, sizeof(pg_uuid_t)) == 0 && entry->database == database)
			break;
		link = &entry->next;
	}
	return link;
}

static QmlLeaseEntry *
find_entry(uint32 hash, const pg_uuid_t *job)
{
	uint16 number = *find_link(hash, MyDatabaseId, job);

	return number == 0 ? NULL : &partition_of(hash)->entries[number - 1];
}

/*
 * Frees the entry that a link leads to.  When all are free, looks need not go through them any more,
 * however many there were once.
 */
static void
free_entry(QmlLeasePartition *partition, uint16 *link)
{
	uint16 number = *link;
	QmlLeaseEntry *entry = &partition->entries[number - 1];

	*link = entry->next;
	entry->database = InvalidOid;
	entry->next = partition->free;
	partition->free = number;
	Assert(partition->count > 0);
	if (--partition->count == 0)
	{
		partition->used = 0;
		partition->free = 0;
	}
}

/* Whether the claim of an entry may be over, by its lease or its session. */
static bool
may_be_over(const QmlLeaseEntry *entry, TimestampTz now)
{
	return entry->bound ?
			   qml_session_claim_has_ended(entry->u.session.number, entry->u.session.token) :
			   entry->u.end <= now;
}

/*
 * Whether a claim has been over for so long that nobody looks for it.  When one that is bound to a
 * session was over is not known, so it is none of them.
 */
static bool
is_forsaken(const QmlLeaseEntry *entry, TimestampTz now)
{
	return entry->database != InvalidOid && !entry->bound && may_be_over(entry, now - FORSAKEN);
}

/* Something of a database is missing in the table. */
static void
miss_of(Oid database)
{
	for (int i = 0; i < qml_shmem->ndatabases; i++)
	{
		if (qml_shmem->databases[i].database == database)
			qml_databases_note_missed(&qml_shmem->databases[i]);
	}
}

/* Makes room in a partition that is full, not more often than once a second. */
static void
evict_forsaken(QmlLeasePartition *partition, uint32 hash)
{
	TimestampTz now = GetCurrentTimestamp();

	if (partition->searched_at > now - USECS_PER_SEC && partition->searched_at <= now)
		return;
	partition->searched_at = now;
	for (int i = 0; i < partition->used; i++)
	{
		QmlLeaseEntry *entry = &partition->entries[i];
		uint32 other;

		if (!is_forsaken(entry, now))
			continue;
		other = hash_job(entry->database, &entry->job);
		Assert(partition_of(other) == partition_of(hash));
		miss_of(entry->database);
		free_entry(partition, find_link(other, entry->database, &entry->job));
	}
}

/* A new entry for a job; NULL: there is no room. */
static QmlLeaseEntry *
add_entry(uint32 hash, const pg_uuid_t *job)
{
	QmlLeasePartition *partition = partition_of(hash);
	uint16 *bucket = bucket_of(hash);
	QmlLeaseEntry *entry;
	uint16 number;

	Assert(LWLockHeldByMeInMode(lock_of(hash), LW_EXCLUSIVE));
	if (partition->free == 0 && partition->used >= MOST_ENTRIES)
		evict_forsaken(partition, hash);
	if (partition->free != 0)
	{
		number = partition->free;
		partition->free = partition->entries[number - 1].next;
	}
	else if (partition->used < MOST_ENTRIES)
		number = ++partition->used;
	else
		return NULL;
	partition->count++;
	entry = &partition->entries[number - 1];
	entry->database = MyDatabaseId;
	entry->job = *job;
	ItemPointerSetInvalid(&entry->place.root);
	entry->next = *bucket;
	*bucket = number;
	return entry;
}

static void
write_entry(QmlLeaseEntry *entry, const QmlLease *lease)
{
	entry->attempt = lease->attempt;
	entry->server = lease->server;
	entry->bound = lease->bound;
	entry->pauses = 0;
	if (ItemPointerIsValid(&lease->place.root))
		entry->place = lease->place;
	if (lease->bound)
	{
		entry->u.session.number = lease->session;
		entry->u.session.token = lease->token;
	}
	else
		entry->u.end = lease->end;
}

static void
read_entry(const QmlLeaseEntry *entry, QmlLease *lease)
{
	memset(lease, 0, sizeof(*lease));
	lease->job = entry->job;
	lease->attempt = entry->attempt;
	lease->server = entry->server;
	lease->bound = entry->bound;
	if (entry->bound)
	{
		lease->session = entry->u.session.number;
		lease->token = entry->u.session.token;
	}
	else
		lease->end = entry->u.end;
}

/* ----- claims ----- */

/* Whether the claim of an entry ends for the same reasons. */
static bool
is_alike(const QmlLeaseEntry *entry, const QmlLease *lease)
{
	if (entry->bound != lease->bound || entry->server != lease->server)
		return false;
	return !entry->bound ||
		   (entry->u.session.number == lease->session && entry->u.session.token == lease->token);
}

/* The claim may be as the entry says, or as this says. */
static void
make_sooner(QmlLeaseEntry *entry, const QmlLease *lease)
{
	if (!is_alike(entry, lease))
	{
		/* Its row says which one counts. */
		entry->bound = false;
		entry->u.end = QML_NO_TIME;
	}
	else if (!entry->bound)
		entry->u.end = Min(entry->u.end, lease->end);
	entry->attempt = Max(entry->attempt, lease->attempt);
}

/* Writes a new entry, or changes one that is there. */
static bool
set_entry(const QmlLease *lease, void (*change)(QmlLeaseEntry *entry, const QmlLease *lease))
{
	uint32 hash = hash_job(MyDatabaseId, &lease->job);
	QmlLeaseEntry *entry;

	LWLockAcquire(lock_of(hash), LW_EXCLUSIVE);
	entry = find_entry(hash, &lease->job);
	if (entry)
		change(entry, lease);
	else
	{
		entry = add_entry(hash, &lease->job);
		if (entry)
			write_entry(entry, lease);
	}
	if (entry)
		entry->ending = false;
	LWLockRelease(lock_of(hash));
	return entry != NULL;
}

/*
 * A claim begins, or its lease gets another end, by the transaction that has its row.  False:
 * there is no room.
 */
bool
qml_lease_table_set(const QmlLease *lease)
{
	return set_entry(lease, write_entry);
}

/*
 * The same by one who does not have the row, or whose change may be undone: the claim may be
 * as the entry says, or as this says.  It is looked at when the first of them is over, of which
 * the caller tells the scheduler.
 *
 * If the entry is that already, it does not change, and a look that has read the row before may
 * drop it.  It does so only if no version of the row is new or about to go, and none is being
 * processed (maintenance/reclaim.c); that of the caller is.  A version that moves to
 * another page while all of them are looked for may be missed.  Then the claim is found by whoever
 * reads all jobs, some minutes late.
 */
bool
qml_lease_table_set_sooner(const QmlLease *lease)
{
	return set_entry(lease, make_sooner);
}

/* An attempt ends, if the transaction that has its row commits. */
void
qml_lease_table_note_end(const pg_uuid_t *job, int attempt)
{
	uint32 hash = hash_job(MyDatabaseId, job);
	QmlLeaseEntry *entry;

	LWLockAcquire(lock_of(hash), LW_EXCLUSIVE);
	entry = find_entry(hash, job);
	if (entry && entry->attempt == attempt)
		entry->ending = true;
	LWLockRelease(lock_of(hash));
}

/* It has committed: nobody sees the attempt run any more. */
void
qml_lease_table_remove(const pg_uuid_t *job, int attempt)
{
	uint32 hash = hash_job(MyDatabaseId, job);
	uint16 *link;

	LWLockAcquire(lock_of(hash), LW_EXCLUSIVE);
	link = find_link(hash, MyDatabaseId, job);
	if (*link != 0)
	{
		const QmlLeaseEntry *entry = &partition_of(hash)->entries[*link - 1];

		/* Otherwise there is another claim since the row is free. */
		if (entry->attempt == attempt && entry->ending)
			free_entry(partition_of(hash), link);
	}
	LWLockRelease(lock_of(hash));
}

/*
 * Where the row of a running job was when it was written last; false: it is not known.  Another
 * row may be there now: who goes there looks whether it is that of the job.
 */
bool
qml_lease_table_place(const pg_uuid_t *job, QmlRowPlace *place)
{
	const QmlLeaseEntry *entry;
	uint32 hash;

	if (qml_shmem == NULL)
		return false;
	hash = hash_job(MyDatabaseId, job);
	LWLockAcquire(lock_of(hash), LW_SHARED);
	entry = find_entry(hash, job);
	if (entry)
		*place = entry->place;
	LWLockRelease(lock_of(hash));
	return entry && ItemPointerIsValid(&place->root);
}

/* A server by which its claims are found; 0 stands for none. */
uint32
qml_lease_table_hash_server(const char *server, int length)
{
	uint32 hash = hash_bytes((const unsigned char *) server, length);

	return hash == 0 ? 1 : hash;
}

/* ----- what is known of a database ----- */

/*
 * Claims of this database are missing here.  The caller's transaction has committed: a reading
 * that takes its snapshot after this sees them.
 */
void
qml_lease_table_miss(void)
{
	QmlDatabase *database = qml_databases_find_own();

	if (database)
		qml_databases_note_missed(database);
}

/* The same for a transaction that was prepared just now: it may commit at any time. */
void
qml_lease_table_miss_prepared(void)
{
	uint64 now = (uint64) GetCurrentTimestamp();
	uint64 old = pg_atomic_read_u64(&qml_shmem->prepared_told_since);

	while (old < now && !pg_atomic_compare_exchange_u64(&qml_shmem->prepared_told_since, &old, now))
		;
	qml_lease_table_miss();
}

/*
 * By the scheduler: a reading of the whole table begins.  The result is for its end, or 0: it
 * will not make the database known.  Nor does it if a transaction is prepared by now that was
 * prepared until *told_since.
 */
uint64
qml_lease_table_begin_reading(TimestampTz *told_since)
{
	QmlDatabase *database = qml_databases_find_own();
	uint64 mark = database ? pg_atomic_read_u64(&database->lease_missed) : 0;
	uint64 none = 0;

	/* The first one since the start of the server. */
	if (pg_atomic_read_u64(&qml_shmem->prepared_told_since) == 0)
		(void) pg_atomic_compare_exchange_u64(&qml_shmem->prepared_told_since, &none,
											  (uint64) GetCurrentTimestamp());
	*told_since = (TimestampTz) pg_atomic_read_u64(&qml_shmem->prepared_told_since);
	pg_memory_barrier();
	return mark;
}

/* The reading has come to its end, and has entered all claims that it saw. */
void
qml_lease_table_end_reading(uint64 mark)
{
	QmlDatabase *database = qml_databases_find_own();

	if (database && mark != 0)
		pg_atomic_write_u64(&database->lease_known, mark);
}

/* Whether all claims of this database are in the table. */
bool
qml_lease_table_is_known(void)
{
	const QmlDatabase *database = qml_shmem ? qml_databases_find_own() : NULL;
	uint64 known;

	if (database == NULL)
		return false;
	known = pg_atomic_read_u64(unconstify(pg_atomic_uint64 *, &database->lease_known));
	return known != 0 &&
		   known == pg_atomic_read_u64(unconstify(pg_atomic_uint64 *, &database->lease_missed));
}

/* ----- looking ----- */

/* Whether a look would find the job, or has found it and put it off. */
bool
qml_lease_table_shows(const pg_uuid_t *job, TimestampTz now)
{
	uint32 hash = hash_job(MyDatabaseId, job);
	const QmlLeaseEntry *entry;
	bool shown;

	LWLockAcquire(lock_of(hash), LW_SHARED);
	entry = find_entry(hash, job);
	shown = entry && (may_be_over(entry, now) || entry->pauses > 0);
	LWLockRelease(lock_of(hash));
	return shown;
}

/* No search finds more than this, unless claims begin meanwhile. */
int
qml_lease_table_count(void)
{
	int count = 0;

	for (int i = 0; i < QML_LEASE_PARTITIONS; i++)
	{
		LWLockAcquire(&qml_shmem->lease_locks[i].lock, LW_SHARED);
		count += qml_shmem->leases[i].used;
		LWLockRelease(&qml_shmem->lease_locks[i].lock);
	}
	return count;
}

/*
 * How many claims of this database were over at a time, and how many leases will be at a later one.
 * The entries are hints: some of these may have ended, or have been extended.
 */
void
qml_lease_table_count_ends(TimestampTz over, TimestampTz soon, int *nover, int *nsoon)
{
	*nover = *nsoon = 0;
	for (int i = 0; i < QML_LEASE_PARTITIONS; i++)
	{
		const QmlLeasePartition *partition = &qml_shmem->leases[i];

		LWLockAcquire(&qml_shmem->lease_locks[i].lock, LW_SHARED);
		for (int j = 0; j < partition->used; j++)
		{
			const QmlLeaseEntry *entry = &partition->entries[j];

			/* Of some it is not known when they end. */
			if (entry->database != MyDatabaseId || (!entry->bound && entry->u.end == QML_NO_TIME))
				continue;
			if (may_be_over(entry, over))
				(*nover)++;
			else if (may_be_over(entry, soon))
				(*nsoon)++;
		}
		LWLockRelease(&qml_shmem->lease_locks[i].lock);
	}
}

static bool
is_of_servers(const QmlLeaseSearch *search, uint32 server)
{
	for (int i = 0; i < search->nservers; i++)
	{
		if (search->servers[i] == server)
			return true;
	}
	return false;
}

/* Whether the search is for this claim; notes when it may be if not. */
static bool
is_wanted(QmlLeaseSearch *search, const QmlLeaseEntry *entry)
{
	if (entry->server != 0)
	{
		search->has_servers = true;
		if (is_of_servers(search, entry->server))
			return true;
	}
	/* Of some it is not known whether they have a server, or which: their rows say. */
	if (search->only_servers)
		return entry->pauses > 0 || (!entry->bound && entry->u.end == QML_NO_TIME);
	if (may_be_over(entry, search->now) || (search->put_off && entry->pauses > 0))
		return true;
	if (!entry->bound)
		search->next = Min(search->next, entry->u.end);
	return false;
}

/*
 * Finds claims of this database that may be over, `max` at most; returns how many.  If it
 * is `max`, there may be more.
 */
int
qml_lease_table_find(QmlLeaseSearch *search, QmlLease *found, int max)
{
	int count = 0;

	search->has_servers = false;
	search->next = QML_WAKE_NEVER;
	for (int i = 0; i < QML_LEASE_PARTITIONS && count < max; i++)
	{
		const QmlLeasePartition *partition = &qml_shmem->leases[i];

		LWLockAcquire(&qml_shmem->lease_locks[i].lock, LW_SHARED);
		for (int j = 0; j < partition->used && count < max; j++)
		{
			const QmlLeaseEntry *entry = &partition->entries[j];

			if (entry->database == MyDatabaseId && is_wanted(search, entry))
				read_entry(entry, &found[count++]);
		}
		LWLockRelease(&qml_shmem->lease_locks[i].lock);
	}
	return count;
}

/*
 * The jobs of this database that run, as far as they are known; how many.  If it is `max`, there
 * may be more.
 */
int
qml_lease_table_jobs(pg_uuid_t *jobs, int max)
{
	int count = 0;

	for (int i = 0; i < QML_LEASE_PARTITIONS && count < max; i++)
	{
		const QmlLeasePartition *partition = &qml_shmem->leases[i];

		LWLockAcquire(&qml_shmem->lease_locks[i].lock, LW_SHARED);
		for (int j = 0; j < partition->used && count < max; j++)
		{
			if (partition->entries[j].database == MyDatabaseId)
				jobs[count++] = partition->entries[j].job;
		}
		LWLockRelease(&qml_shmem->lease_locks[i].lock);
	}
	return count;
}

/* The link to an entry that is still as it was seen; NULL: it is not. */
static uint16 *
find_seen(uint32 hash, const QmlLease *seen)
{
	uint16 *link = find_link(hash, MyDatabaseId, &seen->job);
	QmlLease lease;

	if (*link == 0)
		return NULL;
	read_entry(&partition_of(hash)->entries[*link - 1], &lease);
	if (lease.attempt != seen->attempt || lease.bound != seen->bound || lease.end != seen->end ||
		lease.token != seen->token)
		return NULL;
	return link;
}

/* The claim that its row shows goes on. */
void
qml_lease_table_renew(const QmlLease *seen, const QmlLease *row)
{
	uint32 hash = hash_job(MyDatabaseId, &seen->job);
	uint16 *link;

	LWLockAcquire(lock_of(hash), LW_EXCLUSIVE);
	link = find_seen(hash, seen);
	if (link)
		write_entry(&partition_of(hash)->entries[*link - 1], row);
	LWLockRelease(lock_of(hash));
}

/* It cannot be judged, or taken back, just now; returns when it is looked at again. */
TimestampTz
qml_lease_table_put_off(const QmlLease *seen, TimestampTz now)
{
	uint32 hash = hash_job(MyDatabaseId, &seen->job);
	TimestampTz until = QML_WAKE_NEVER;
	uint16 *link;

	LWLockAcquire(lock_of(hash), LW_EXCLUSIVE);
	link = find_seen(hash, seen);
	if (link)
	{
		QmlLeaseEntry *entry = &partition_of(hash)->entries[*link - 1];

		until = now + (FIRST_PAUSE << entry->pauses);
		entry->bound = false;
		entry->u.end = until;
		entry->pauses = Min(entry->pauses + 1, MAX_PAUSES);
	}
	LWLockRelease(lock_of(hash));
	return until;
}

/* It has ended, or never was. */
void
qml_lease_table_drop(const QmlLease *seen)
{
	uint32 hash = hash_job(MyDatabaseId, &seen->job);
	uint16 *link;

	LWLockAcquire(lock_of(hash), LW_EXCLUSIVE);
	link = find_seen(hash, seen);
	if (link)
		free_entry(partition_of(hash), link);
	LWLockRelease(lock_of(hash));
}
