/*
 * ready_store.c
 *		Sorted lists of ready jobs in shared memory.
 *
 * A list has the entries of one queue of one database, in the order in which its jobs are
 * claimed, in a chain of chunks.  Most entries are taken from the front and added at the end;
 * those in between move the rest of a chunk, or split it.  Neighbours that fit into one chunk
 * are put together when entries are taken.
 *
 * The memory has a fixed size and is divided into stores, each with a lock, its lists and its
 * chunks.  A queue is always in the same store.  When a store is full, a list that was not used
 * lately gives up what it has.  That costs its next user a walk over the index, never a job.
 * So no function here can fail, and all can be called after a commit.
 *
 * What a list promises, and who keeps the promise, is in ready_list.c.  But for those that
 * take it, all functions are called with the lock of the store held.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"

#include "ipc/ready_store.h"

/* The locks, as pg_stat_activity shows them. */
#define TRANCHE "qml_ready"

/* In each store. */
#define BUCKETS 1024
#define LISTS	2048
#define CHUNKS	512

/* Entries of a chunk. */
#define CHUNK_ENTRIES 12

/* No chunk, no list. */
#define NONE (-1)

typedef struct Chunk
{
	int previous;
	int next; /* in its list, or of the free ones */
	int count;
	QmlReadyEntry entries[CHUNK_ENTRIES];
} Chunk;

struct QmlReadyStore
{
	LWLock *lock; /* set at start */
	uint32 last_number;
	int free_list;
	int free_chunk;
	int list_hand; /* where the search for a list to give up goes on */
	int chunk_hand;
	int buckets[BUCKETS];
	QmlReadyList lists[LISTS];
	Chunk chunks[CHUNKS];
};

/* ----- the stores ----- */

static QmlReadyStore *stores = NULL;

/* The size of the stores; also asks for their locks, before memory is made. */
Size
qml_ready_store_request(void)
{
	RequestNamedLWLockTranche(TRANCHE, QML_READY_STORES);
	return qml_ready_store_size();
}

Size
qml_ready_store_size(void)
{
	return MAXALIGN(mul_size(QML_READY_STORES, sizeof(QmlReadyStore)));
}

/* Makes the stores in memory that is all zero, or (found) finds them there. */
void
qml_ready_store_init(void *memory, bool found)
{
	LWLockPadded *locks = GetNamedLWLockTranche(TRANCHE);

	stores = memory;
	for (int i = 0; !found && i < QML_READY_STORES; i++)
	{
		QmlReadyStore *store = &stores[i];

		store->lock = &locks[i].lock;
		for (int bucket = 0; bucket < BUCKETS; bucket++)
			store->buckets[bucket] = NONE;
		for (int list = 0; list < LISTS; list++)
			store->lists[list].next = list + 1 < LISTS ? list + 1 : NONE;
		for (int chunk = 0; chunk < CHUNKS; chunk++)
			store->chunks[chunk].next = chunk + 1 < CHUNKS ? chunk + 1 : NONE;
	}
}

static uint32
hash_queue(Oid database, int queue)
{
	return hash_combine(murmurhash32(database), murmurhash32((uint32) queue));
}

/* Locks the store that has the list of a queue. */
QmlReadyStore *
qml_ready_store_lock(Oid database, int queue)
{
	QmlReadyStore *store = &stores[hash_queue(database, queue) % QML_READY_STORES];

	LWLockAcquire(store->lock, LW_EXCLUSIVE);
	return store;
}

void
qml_ready_store_unlock(QmlReadyStore *store)
{
	LWLockRelease(store->lock);
}

/* Everybody locks them in this order. */
void
qml_ready_store_lock_all(void)
{
	for (int i = 0; i < QML_READY_STORES; i++)
		LWLockAcquire(stores[i].lock, LW_EXCLUSIVE);
}

void
qml_ready_store_unlock_all(void)
{
	for (int i = 0; i < QML_READY_STORES; i++)
		LWLockRelease(stores[i].lock);
}

/* A number that the store has not given lately, and not 0. */
uint32
qml_ready_store_number(QmlReadyStore *store)
{
	if (++store->last_number == 0)
		store->last_number = 1;
	return store->last_number;
}

/* ----- keys ----- */

/* Negative if the job of `a` is claimed before that of `b`. */
int
qml_ready_compare(const QmlReadyKey *a, const QmlReadyKey *b)
{
	if (a->priority != b->priority)
		return a->priority > b->priority ? -1 : 1;
	if (a->pass != b->pass)
		return a->pass < b->pass ? -1 : 1;
	return memcmp(&a->id, &b->id, sizeof(a->id));
}

/* Whether a list with this bound has the job, if it is ready. */
bool
qml_ready_is_before(const QmlReadyKey *key, const QmlReadyBound *bound)
{
	return bound->reach == QML_REACH_ALL ||
		   (bound->reach == QML_REACH_KEY && qml_ready_compare(key, &bound->key) < 0);
}

/* ----- chunks ----- */

/* Takes a chunk out of its list, and frees it. */
static void
free_chunk(QmlReadyStore *store, QmlReadyList *list, int number)
{
	Chunk *chunk = &store->chunks[number];

	if (chunk->previous == NONE)
		list->first = chunk->next;
	else
		store->chunks[chunk->previous].next = chunk->next;
	if (chunk->next == NONE)
		list->last = chunk->previous;
	else
		store->chunks[chunk->next].previous = chunk->previous;
	chunk->next = store->free_chunk;
	store->free_chunk = number;
}

/* Forgets what a list has; it promises nothing any more. */
void
qml_ready_store_clear(QmlReadyStore *store, QmlReadyList *list)
{
	while (list->first != NONE)
		free_chunk(store, list, list->first);
	list->count = 0;
	list->bound.reach = QML_REACH_NOTHING;
	list->last_fill = 0;
	list->fill = 0;
	list->has_late = false;
}

/*
 * Frees chunks of a list that was not used since this was called last, or else of any other
 * list.  False: only this list has any.
 */
static bool
give_up_chunks(QmlReadyStore *store, const QmlReadyList *but)
{
	for (int looked = 0; looked < 2 * LISTS; looked++)
	{
		QmlReadyList *list = &store->lists[store->chunk_hand];

		store->chunk_hand = (store->chunk_hand + 1) % LISTS;
		if (!OidIsValid(list->database) || list == but || list->first == NONE)
			continue;
		if (list->used)
		{
			list->used = false;
			continue;
		}
		qml_ready_store_clear(store, list);
		return true;
	}
	return false;
}

/* Adds an empty chunk behind another one of the list, or (NONE) at its beginning.  NONE: no room. */
static int
add_chunk(QmlReadyStore *store, QmlReadyList *list, int previous)
{
	int number;
	Chunk *chunk;

	if (store->free_chunk == NONE && !give_up_chunks(store, list))
		return NONE;
	number = store->free_chunk;
	chunk = &store->chunks[number];
	store->free_chunk = chunk->next;
	chunk->count = 0;
	chunk->previous = previous;
	chunk->next = previous == NONE ? list->first : store->chunks[previous].next;
	if (previous == NONE)
		list->first = number;
	else
		store->chunks[previous].next = number;
	if (chunk->next == NONE)
		list->last = number;
	else
		store->chunks[chunk->next].previous = number;
	return number;
}

/* Entries of a chunk were taken: frees it, or puts its neighbour into it. */
static void
tidy_chunk(QmlReadyStore *store, QmlReadyList *list, int number)
{
	Chunk *chunk = &store->chunks[number];
	Chunk *next = chunk->next == NONE ? NULL : &store->chunks[chunk->next];

	if (chunk->count == 0)
		free_chunk(store, list, number);
	else if (next && chunk->count + next->count <= CHUNK_ENTRIES)
	{
		memcpy(&chunk->entries[chunk->count], next->entries, sizeof(QmlReadyEntry) * next->count);
		chunk->count += next->count;
		free_chunk(store, list, chunk->next);
	}
}

/* How many entries of a chunk come before a key. */
static int
count_before(const Chunk *chunk, const QmlReadyKey *key)
{
	int count = chunk->count;

	while (count > 0 && qml_ready_compare(&chunk->entries[count - 1].key, key) >= 0)
		count--;
	return count;
}

/* The last chunk that has an entry before a key; NONE: there is none before it. */
static int
find_chunk(const QmlReadyStore *store, const QmlReadyList *list, const QmlReadyKey *key)
{
	int number = list->last;

	while (number != NONE && qml_ready_compare(&store->chunks[number].entries[0].key, key) >= 0)
		number = store->chunks[number].previous;
	return number;
}

/* ----- lists ----- */

static int *
find_bucket(QmlReadyStore *store, Oid database, int queue)
{
	return &store->buckets[hash_queue(database, queue) / QML_READY_STORES % BUCKETS];
}

/* The list of a queue; NULL: it has none. */
QmlReadyList *
qml_ready_store_find(QmlReadyStore *store, Oid database, int queue)
{
	for (int i = *find_bucket(store, database, queue); i != NONE; i = store->lists[i].next)
	{
		QmlReadyList *list = &store->lists[i];

		if (list->queue == queue && list->database == database)
		{
			list->used = true;
			return list;
		}
	}
	return NULL;
}

/* Frees a list that was not used since this was called last. */
static void
give_up_list(QmlReadyStore *store)
{
	QmlReadyList *list = &store->lists[store->list_hand];
	int *link;

	/* All are in use: there is a list of every number. */
	while (list->used)
	{
		list->used = false;
		store->list_hand = (store->list_hand + 1) % LISTS;
		list = &store->lists[store->list_hand];
	}
	qml_ready_store_clear(store, list);
	link = find_bucket(store, list->database, list->queue);
	while (&store->lists[*link] != list)
		link = &store->lists[*link].next;
	*link = list->next;
	list->database = InvalidOid;
	list->next = store->free_list;
	store->free_list = store->list_hand;
}

/* Begins the list of a queue that has none. */
QmlReadyList *
qml_ready_store_make(QmlReadyStore *store, Oid database, int queue)
{
	int *bucket = find_bucket(store, database, queue);
	QmlReadyList *list;
	int number;

	if (store->free_list == NONE)
		give_up_list(store);
	number = store->free_list;
	list = &store->lists[number];
	store->free_list = list->next;
	memset(list, 0, sizeof(*list));
	list->database = database;
	list->queue = queue;
	list->used = true;
	list->first = NONE;
	list->last = NONE;
	list->next = *bucket;
	*bucket = number;
	return list;
}

/* From now on the list ends before a key. */
void
qml_ready_store_cut(QmlReadyStore *store, QmlReadyList *list, const QmlReadyKey *key)
{
	int number;

	if (!qml_ready_is_before(key, &list->bound))
		return;
	number = find_chunk(store, list, key);
	while (list->last != number)
	{
		list->count -= store->chunks[list->last].count;
		free_chunk(store, list, list->last);
	}
	if (number != NONE)
	{
		Chunk *chunk = &store->chunks[number];
		int before = count_before(chunk, key);

		list->count -= chunk->count - before;
		chunk->count = before;
	}
	list->bound.reach = QML_REACH_KEY;
	list->bound.key = *key;
	/* What is being added begins at the bound that was. */
	list->fill = 0;
	list->has_late = false;
}

/*
 * Makes room for an entry before position `at` of a chunk that is full; returns the chunk that
 * has the position now, NONE if there is no memory.
 */
static int
split_chunk(QmlReadyStore *store, QmlReadyList *list, int number, int *at)
{
	int second = add_chunk(store, list, number);
	Chunk *from = &store->chunks[number];
	int kept = *at == CHUNK_ENTRIES ? CHUNK_ENTRIES : CHUNK_ENTRIES / 2;

	if (second == NONE)
		return NONE;
	store->chunks[second].count = from->count - kept;
	memcpy(store->chunks[second].entries, &from->entries[kept],
		   sizeof(QmlReadyEntry) * (from->count - kept));
	from->count = kept;
	if (*at < kept || (*at == kept && kept < CHUNK_ENTRIES))
		return number;
	*at -= kept;
	return second;
}

/* Adds an entry that comes before the bound of the list, unless it is there. */
void
qml_ready_store_insert(QmlReadyStore *store, QmlReadyList *list, const QmlReadyEntry *entry)
{
	int number;
	int at = 0;
	Chunk *chunk;

	Assert(qml_ready_is_before(&entry->key, &list->bound));
	/* The end gives way. */
	if (list->count >= QML_READY_MOST)
	{
		QmlReadyKey end = store->chunks[list->last].entries[0].key;

		qml_ready_store_cut(store, list, &end);
		if (!qml_ready_is_before(&entry->key, &list->bound))
			return;
	}
	number = find_chunk(store, list, &entry->key);
	if (number == NONE)
		number = list->first;
	else
		at = count_before(&store->chunks[number], &entry->key);
	/* The entry behind may be the first one of the next chunk. */
	if (number != NONE)
	{
		int next = store->chunks[number].next;
		QmlReadyEntry *behind = NULL;

		if (at < store->chunks[number].count)
			behind = &store->chunks[number].entries[at];
		else if (next != NONE)
			behind = &store->chunks[next].entries[0];
		if (behind && qml_ready_compare(&behind->key, &entry->key) == 0)
		{
			/* Which of two rows, or of two jobs in one place, is the newer one cannot be told: the index knows. */
			if (!ItemPointerEquals(&behind->root, unconstify(ItemPointerData *, &entry->root)) ||
				behind->method != entry->method)
				qml_ready_store_cut(store, list, &entry->key);
			return;
		}
	}
	if (number == NONE)
		number = add_chunk(store, list, NONE);
	else if (store->chunks[number].count == CHUNK_ENTRIES)
		number = split_chunk(store, list, number, &at);
	if (number == NONE)
	{
		qml_ready_store_cut(store, list, &entry->key);
		return;
	}
	chunk = &store->chunks[number];
	memmove(&chunk->entries[at + 1], &chunk->entries[at],
			sizeof(QmlReadyEntry) * (chunk->count - at));
	chunk->entries[at] = *entry;
	chunk->count++;
	list->count++;
}

/* The chunk that has the entry of a key, and its position there; NONE: there is no entry. */
static int
find_entry(const QmlReadyStore *store, const QmlReadyList *list, const QmlReadyKey *key, int *at)
{
	int number = find_chunk(store, list, key);

	*at = number == NONE ? 0 : count_before(&store->chunks[number], key);
	/* It may be the first one of the next chunk. */
	if (number == NONE || *at == store->chunks[number].count)
	{
		number = number == NONE ? list->first : store->chunks[number].next;
		*at = 0;
	}
	if (number == NONE || qml_ready_compare(&store->chunks[number].entries[*at].key, key) != 0)
		return NONE;
	return number;
}

/* Whether there is an entry of a key. */
bool
qml_ready_store_has(const QmlReadyStore *store, const QmlReadyList *list, const QmlReadyKey *key)
{
	int at;

	return find_entry(store, list, key, &at) != NONE;
}

/* Removes the entry of a key, if it is there. */
bool
qml_ready_store_remove(QmlReadyStore *store, QmlReadyList *list, const QmlReadyKey *key,
					   QmlReadyEntry *removed)
{
	int at;
	int number = find_entry(store, list, key, &at);
	Chunk *chunk;

	if (number == NONE)
		return false;
	chunk = &store->chunks[number];
	*removed = chunk->entries[at];
	chunk->count--;
	list->count--;
	memmove(&chunk->entries[at], &chunk->entries[at + 1],
			sizeof(QmlReadyEntry) * (chunk->count - at));
	tidy_chunk(store, list, number);
	return true;
}

/* The chunk in which the entries behind a key begin, or (NULL) all of them. */
static int
chunk_behind(const QmlReadyStore *store, const QmlReadyList *list, const QmlReadyKey *after)
{
	int number = after ? find_chunk(store, list, after) : NONE;

	return number == NONE ? list->first : number;
}

/* Whether a part ends before an entry. */
static bool
ends_before(const QmlReadyPart *part, const QmlReadyEntry *entry)
{
	return part->before && qml_ready_compare(&entry->key, part->before) >= 0;
}

/* Whether an entry before the end of a part belongs to it. */
static bool
is_in_part(const QmlReadyPart *part, const QmlReadyEntry *entry)
{
	return (part->after == NULL || qml_ready_compare(&entry->key, part->after) > 0) &&
		   (part->match == NULL || part->match(entry->method, part->arg));
}

/* Takes up to `most` entries of a part out of a list; returns how many. */
int
qml_ready_store_take(QmlReadyStore *store, QmlReadyList *list, const QmlReadyPart *part,
					 QmlReadyEntry *entries, int most)
{
	int number = chunk_behind(store, list, part->after);
	int taken = 0;
	bool over = false;

	while (number != NONE && taken < most && !over)
	{
		Chunk *chunk = &store->chunks[number];
		int next = chunk->next;
		int kept = 0;

		for (int i = 0; i < chunk->count; i++)
		{
			over = over || ends_before(part, &chunk->entries[i]);
			if (taken < most && !over && is_in_part(part, &chunk->entries[i]))
				entries[taken++] = chunk->entries[i];
			else
			{
				if (kept < i)
					chunk->entries[kept] = chunk->entries[i];
				kept++;
			}
		}
		if (kept < chunk->count)
		{
			list->count -= chunk->count - kept;
			chunk->count = kept;
			if (kept == 0)
				free_chunk(store, list, number);
			else if (chunk->previous != NONE)
				tidy_chunk(store, list, chunk->previous);
		}
		number = next;
	}
	return taken;
}

/* The same for entries that stay in the list. */
int
qml_ready_store_look(QmlReadyStore *store, QmlReadyList *list, const QmlReadyPart *part,
					 QmlReadyEntry *entries, int most)
{
	int number = chunk_behind(store, list, part->after);
	int count = 0;

	for (; number != NONE && count < most; number = store->chunks[number].next)
	{
		const Chunk *chunk = &store->chunks[number];

		for (int i = 0; i < chunk->count && count < most; i++)
		{
			if (ends_before(part, &chunk->entries[i]))
				return count;
			if (is_in_part(part, &chunk->entries[i]))
				entries[count++] = chunk->entries[i];
		}
	}
	return count;
}
