/*
 * counter_store.c
 *		Memory for the numbers of jobs by queue and state.
 *
 * The memory is fixed, and in partitions with a lock each.  A queue has an entry for each
 * generation of counters that it is counted in (counters.c).  The entry has the number of jobs
 * in each state, and for the finished ones how many expire when: a list, in the order of time.
 * When these times have passed, whoever reads the entry, or adds a time to it, takes the jobs off.
 *
 * Numbers are added to with the lock held shared, by atomic operations, so that sessions which
 * commit do not queue up.  Entries are made, taken away and read with the lock held exclusively.
 * So a reader sees all that one change of a queue does, or nothing of it.
 *
 * Changes come in any order, so numbers may be below 0 for a moment.
 *
 * Nothing here raises an error.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "port/atomics.h"
#include "storage/shmem.h"

#include "common/fault.h"
#include "core/state.h"
#include "ipc/counter_store.h"

#define TRANCHE "qml_counters"

/* Of a partition. */
#define BUCKETS	 2048
#define EXPIRIES QML_FAULT_LIMIT("counters.expiries", MAX_EXPIRIES)

#define MAX_EXPIRIES 16384

/* A change takes so many at most: from and to, in two generations. */
#define MOST_NEW 4

/* The final states follow one another. */
#define FIRST_FINAL	 QML_SUCCEEDED
#define FINAL_STATES 3

StaticAssertDecl(QML_FAILED == FIRST_FINAL + 1 && QML_DELETED == FIRST_FINAL + 2,
				 "final states follow one another");

/* Entries of both kinds are counted from 1; 0: none. */

/* Finished jobs of a queue that expire at the same time. */
typedef struct QmlCounterExpiry
{
	uint32 until;
	uint32 owner; /* its queue; 0: free */
	uint32 next;  /* later, or the next free one */
	uint32 previous;
	pg_atomic_uint32 counts[FINAL_STATES]; /* int32 */
} QmlCounterExpiry;

typedef struct QmlCounterQueue
{
	uint32 generation; /* 0: free */
	int queue;
	uint32 next;						   /* of its bucket, or the next free one */
	uint32 first;						   /* to expire */
	uint32 last;						   /* the same */
	pg_atomic_uint32 recent[FINAL_STATES]; /* an expiry that was found lately, or once was one */
	pg_atomic_uint64 counts[QML_STATES];   /* int64 */
} QmlCounterQueue;

struct QmlCounterPartition
{
	LWLock *lock; /* set at start */
	uint32 free_queue;
	uint32 free_expiry;
	uint32 used_queues; /* entries behind these were never used */
	uint32 used_expiries;
	uint32 taken_expiries;
	uint32 buckets[BUCKETS];
	QmlCounterQueue queues[QML_COUNTER_QUEUES];
	QmlCounterExpiry expiries[MAX_EXPIRIES];
};

static QmlCounterPartition *partitions = NULL;

/* ----- the memory ----- */

/* The size of the memory; also asks for the locks, before it is made. */
Size
qml_counter_store_request(void)
{
	RequestNamedLWLockTranche(TRANCHE, QML_COUNTER_PARTITIONS);
	return qml_counter_store_size();
}

Size
qml_counter_store_size(void)
{
	return MAXALIGN(mul_size(QML_COUNTER_PARTITIONS, sizeof(QmlCounterPartition)));
}

/* Makes the partitions, or (found) finds them.  Memory that is not used yet is not touched. */
void
qml_counter_store_init(void *memory, bool found)
{
	LWLockPadded *locks = GetNamedLWLockTranche(TRANCHE);

	partitions = memory;
	for (int i = 0; !found && i < QML_COUNTER_PARTITIONS; i++)
	{
		memset(&partitions[i], 0, offsetof(QmlCounterPartition, queues));
		partitions[i].lock = &locks[i].lock;
	}
}

QmlCounterPartition *
qml_counter_store_partition(int number)
{
	return &partitions[number];
}

/* The partition that has a queue, in all generations. */
QmlCounterPartition *
qml_counter_store_of(Oid database, int queue)
{
	uint32 hash = hash_combine(murmurhash32(database), murmurhash32((uint32) queue));

	return &partitions[hash % QML_COUNTER_PARTITIONS];
}

void
qml_counter_store_lock(QmlCounterPartition *partition, LWLockMode mode)
{
	LWLockAcquire(partition->lock, mode);
}

void
qml_counter_store_unlock(QmlCounterPartition *partition)
{
	LWLockRelease(partition->lock);
}

/* Everybody locks them in this order. */
void
qml_counter_store_lock_all(void)
{
	for (int i = 0; i < QML_COUNTER_PARTITIONS; i++)
		LWLockAcquire(partitions[i].lock, LW_EXCLUSIVE);
}

void
qml_counter_store_unlock_all(void)
{
	for (int i = 0; i < QML_COUNTER_PARTITIONS; i++)
		LWLockRelease(partitions[i].lock);
}

/* ----- times ----- */

/* When jobs that expire then are not counted any more: seconds, rounded up. */
uint32
qml_counter_store_until(TimestampTz expires_at)
{
	if (expires_at <= USECS_PER_SEC)
		return 1;
	if (expires_at > (TimestampTz) (PG_UINT32_MAX - 1) * USECS_PER_SEC)
		return PG_UINT32_MAX;
	return (uint32) ((expires_at + USECS_PER_SEC - 1) / USECS_PER_SEC);
}

bool
qml_counter_store_is_over(uint32 until, TimestampTz now)
{
	return until != PG_UINT32_MAX && (TimestampTz) until * USECS_PER_SEC <= now;
}

/* ----- entries ----- */

static bool
is_final(int state)
{
	return state != QML_NOT_COUNTED && qml_state_is_final((QmlState) state);
}

static uint32 *
bucket_of(QmlCounterPartition *partition, uint32 generation, int queue)
{
	uint32 hash = hash_combine(murmurhash32(generation), murmurhash32((uint32) queue));

	return &partition->buckets[hash % BUCKETS];
}

static QmlCounterQueue *
find_queue(QmlCounterPartition *partition, uint32 generation, int queue)
{
	uint32 number = *bucket_of(partition, generation, queue);

	Assert(LWLockHeldByMe(partition->lock));
	while (number != 0)
	{
		QmlCounterQueue *entry = &partition->queues[number - 1];

		if (entry->generation == generation && entry->queue == queue)
			return entry;
		number = entry->next;
	}
	return NULL;
}

/* NULL: there is no room. */
static QmlCounterQueue *
make_queue(QmlCounterPartition *partition, uint32 generation, int queue)
{
	uint32 *bucket = bucket_of(partition, generation, queue);
	uint32 number = partition->free_queue;
	QmlCounterQueue *entry;

	Assert(LWLockHeldByMeInMode(partition->lock, LW_EXCLUSIVE));
	if (number != 0)
		partition->free_queue = partition->queues[number - 1].next;
	else if (partition->used_queues < QML_COUNTER_QUEUES)
		number = ++partition->used_queues;
	else
		return NULL;
	entry = &partition->queues[number - 1];
	entry->generation = generation;
	entry->queue = queue;
	entry->first = entry->last = 0;
	for (int i = 0; i < FINAL_STATES; i++)
		pg_atomic_init_u32(&entry->recent[i], 0);
	for (int i = 0; i < QML_STATES; i++)
		pg_atomic_init_u64(&entry->counts[i], 0);
	entry->next = *bucket;
	*bucket = number;
	return entry;
}

static uint32
number_of(const QmlCounterPartition *partition, const QmlCounterQueue *entry)
{
	return (uint32) (entry - partition->queues) + 1;
}

/*
 * The expiry of a queue at this time; 0: there is none, and *before is the one that it would
 * follow.  The search begins where the last one for the state ended.
 */
static uint32
find_expiry(QmlCounterPartition *partition, QmlCounterQueue *entry, int state, uint32 until,
			uint32 *before)
{
	QmlCounterExpiry *expiries = partition->expiries - 1;
	uint32 at = pg_atomic_read_u32(&entry->recent[state - FIRST_FINAL]);

	/* It may be gone, and belong to another queue. */
	if (at == 0 || expiries[at].owner != number_of(partition, entry))
		at = entry->last;
	while (at != 0 && expiries[at].until > until)
		at = expiries[at].previous;
	while (at != 0 && expiries[at].until < until && expiries[at].next != 0 &&
		   expiries[expiries[at].next].until <= until)
		at = expiries[at].next;
	*before = at;
	if (at == 0 || expiries[at].until != until)
		return 0;
	if (pg_atomic_read_u32(&entry->recent[state - FIRST_FINAL]) != at)
		pg_atomic_write_u32(&entry->recent[state - FIRST_FINAL], at);
	return at;
}

/* Makes one behind another, or (0) as the first; 0: there is no room. */
static uint32
make_expiry(QmlCounterPartition *partition, QmlCounterQueue *entry, uint32 until, uint32 before)
{
	QmlCounterExpiry *expiries = partition->expiries - 1;
	uint32 number = partition->free_expiry;
	QmlCounterExpiry *expiry;

	Assert(LWLockHeldByMeInMode(partition->lock, LW_EXCLUSIVE));
	if (number != 0)
		partition->free_expiry = expiries[number].next;
	else if (partition->used_expiries < (uint32) EXPIRIES)
		number = ++partition->used_expiries;
	else
		return 0;
	partition->taken_expiries++;
	expiry = &expiries[number];
	expiry->until = until;
	expiry->owner = number_of(partition, entry);
	for (int i = 0; i < FINAL_STATES; i++)
		pg_atomic_init_u32(&expiry->counts[i], 0);
	expiry->previous = before;
	expiry->next = before == 0 ? entry->first : expiries[before].next;
	if (before == 0)
		entry->first = number;
	else
		expiries[before].next = number;
	if (expiry->next == 0)
		entry->last = number;
	else
		expiries[expiry->next].previous = number;
	return number;
}

/* *expiry: NULL if the state is not a final one.  False: there is none, or no room for it. */
static bool
find_or_make_expiry(QmlCounterPartition *partition, QmlCounterQueue *entry, int state, uint32 until,
					bool make, QmlCounterExpiry **expiry)
{
	uint32 before;
	uint32 number;

	*expiry = NULL;
	if (!is_final(state))
		return true;
	number = find_expiry(partition, entry, state, until, &before);
	if (number == 0 && make)
		number = make_expiry(partition, entry, until, before);
	if (number == 0)
		return false;
	*expiry = &partition->expiries[number - 1];
	return true;
}

/* One side of a change. */
static void
add_to(QmlCounterQueue *entry, QmlCounterExpiry *expiry, int state, int count)
{
	if (state == QML_NOT_COUNTED)
		return;
	(void) pg_atomic_fetch_add_u64(&entry->counts[state], (int64) count);
	if (expiry)
		(void) pg_atomic_fetch_add_u32(&expiry->counts[state - FIRST_FINAL], count);
}

void
qml_counter_store_add(const QmlCounterPlace *place, const QmlCounterDelta *delta)
{
	add_to(place->queue, place->from, delta->from, -delta->count);
	add_to(place->queue, place->to, delta->to, delta->count);
}

/* Takes off the first jobs to expire. */
static void
drop_first(QmlCounterPartition *partition, QmlCounterQueue *entry)
{
	QmlCounterExpiry *expiries = partition->expiries - 1;
	uint32 number = entry->first;
	QmlCounterExpiry *expiry = &expiries[number];

	for (int i = 0; i < FINAL_STATES; i++)
		(void) pg_atomic_fetch_add_u64(&entry->counts[FIRST_FINAL + i],
									   -(int64) (int32) pg_atomic_read_u32(&expiry->counts[i]));
	entry->first = expiry->next;
	if (entry->first == 0)
		entry->last = 0;
	else
		expiries[entry->first].previous = 0;
	expiry->owner = 0;
	expiry->next = partition->free_expiry;
	partition->free_expiry = number;
	partition->taken_expiries--;
}

/* Takes off the jobs of an entry that have expired. */
static void
drop_expired(QmlCounterPartition *partition, QmlCounterQueue *entry, TimestampTz now)
{
	Assert(LWLockHeldByMeInMode(partition->lock, LW_EXCLUSIVE));
	while (entry->first != 0 &&
		   qml_counter_store_is_over(partition->expiries[entry->first - 1].until, now))
		drop_first(partition, entry);
}

/*
 * Takes off what has expired in any queue if there may be no room for a change.  Called before
 * places for it are looked up.
 */
void
qml_counter_store_make_room(QmlCounterPartition *partition)
{
	TimestampTz now;

	if (partition->taken_expiries + MOST_NEW <= (uint32) EXPIRIES)
		return;
	now = GetCurrentTimestamp();
	for (uint32 i = 0; i < partition->used_queues; i++)
	{
		if (partition->queues[i].generation != 0)
			drop_expired(partition, &partition->queues[i], now);
	}
}

/*
 * Where a change is to be counted.  make: the lock is held exclusively, and what is missing is
 * made.  False: something is missing, or there is no room for it.
 */
bool
qml_counter_store_find(QmlCounterPartition *partition, uint32 generation,
					   const QmlCounterDelta *delta, bool make, QmlCounterPlace *place)
{
	place->queue = find_queue(partition, generation, delta->queue);
	if (place->queue == NULL && make)
		place->queue = make_queue(partition, generation, delta->queue);
	else if (place->queue && make) /* before its expiries are looked up: they may go */
		drop_expired(partition, place->queue, GetCurrentTimestamp());
	return place->queue != NULL &&
		   find_or_make_expiry(partition, place->queue, delta->from, delta->from_until, make,
							   &place->from) &&
		   find_or_make_expiry(partition, place->queue, delta->to, delta->to_until, make,
							   &place->to);
}

static void
drop_queue(QmlCounterPartition *partition, QmlCounterQueue *entry)
{
	uint32 number = number_of(partition, entry);
	uint32 *link = bucket_of(partition, entry->generation, entry->queue);

	while (entry->first != 0)
		drop_first(partition, entry);
	while (*link != number)
		link = &partition->queues[*link - 1].next;
	*link = entry->next;
	entry->generation = 0;
	entry->next = partition->free_queue;
	partition->free_queue = number;
}

/* The jobs of an entry that have not expired. */
static void
read_entry(QmlCounterPartition *partition, QmlCounterQueue *entry, TimestampTz now,
		   QmlCounterRow *row)
{
	drop_expired(partition, entry, now);
	row->queue = entry->queue;
	for (int i = 0; i < QML_STATES; i++)
		row->counts[i] = (int64) pg_atomic_read_u64(&entry->counts[i]);
}

/* Reads all queues of a generation; rows has room for QML_COUNTER_QUEUES.  Returns how many. */
int
qml_counter_store_read(QmlCounterPartition *partition, uint32 generation, TimestampTz now,
					   QmlCounterRow *rows)
{
	int count = 0;

	for (uint32 i = 0; i < partition->used_queues; i++)
	{
		if (partition->queues[i].generation == generation)
			read_entry(partition, &partition->queues[i], now, &rows[count++]);
	}
	return count;
}

/* Reads one queue.  False: it has no entry, because it has no jobs; *row is all 0 then. */
bool
qml_counter_store_read_queue(QmlCounterPartition *partition, uint32 generation, int queue,
							 TimestampTz now, QmlCounterRow *row)
{
	QmlCounterQueue *entry = find_queue(partition, generation, queue);

	memset(row, 0, sizeof(*row));
	row->queue = queue;
	if (entry)
		read_entry(partition, entry, now, row);
	return entry != NULL;
}

/* Compares a queue, whose row may be all 0. */
static void
compare_rows(const QmlCounterRow *counted, const QmlCounterRow *real, QmlCounterDefect *defect)
{
	for (int i = 0; i < QML_STATES; i++)
	{
		if (counted->counts[i] == real->counts[i])
			continue;
		if (defect->found++ == 0)
		{
			defect->queue = real->queue;
			defect->state = (QmlState) i;
			defect->counted = counted->counts[i];
			defect->real = real->counts[i];
		}
	}
}

/*
 * Compares two generations in a partition, of which the second one is right; adds to what is wrong
 * in the first one.  rows has room for QML_COUNTER_QUEUES.
 */
void
qml_counter_store_compare(QmlCounterPartition *partition, uint32 current, uint32 next,
						  QmlCounterRow *rows, QmlCounterDefect *defect)
{
	TimestampTz now = GetCurrentTimestamp();
	QmlCounterRow other;
	int count;

	qml_counter_store_lock(partition, LW_EXCLUSIVE);
	count = qml_counter_store_read(partition, next, now, rows);
	for (int i = 0; i < count; i++)
	{
		(void) qml_counter_store_read_queue(partition, current, rows[i].queue, now, &other);
		compare_rows(&other, &rows[i], defect);
	}
	count = qml_counter_store_read(partition, current, now, rows);
	for (int i = 0; i < count; i++)
	{
		if (!qml_counter_store_read_queue(partition, next, rows[i].queue, now, &other))
			compare_rows(&rows[i], &other, defect);
	}
	qml_counter_store_unlock(partition);
}

/* Takes away the entries of generations that are not used. */
void
qml_counter_store_sweep(QmlCounterPartition *partition, bool (*is_used)(uint32 generation))
{
	Assert(LWLockHeldByMeInMode(partition->lock, LW_EXCLUSIVE));
	for (uint32 i = 0; i < partition->used_queues; i++)
	{
		QmlCounterQueue *entry = &partition->queues[i];

		if (entry->generation != 0 && !is_used(entry->generation))
			drop_queue(partition, entry);
	}
}
