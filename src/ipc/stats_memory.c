/*
 * stats_memory.c
 *		Series in the memory of stats_store.c, which has their rules, are made.
 *
 * The lock is held exclusively, or there are no other processes yet.  Nothing here raises an error.
 */
#include "postgres.h"

#include "common/hashfn.h"

#include "ipc/stats_memory.h"

uint32
qml_stats_memory_hash(int database, int queue, const char *method, int length)
{
	uint32 hash = hash_bytes((const unsigned char *) method, length);

	return hash_combine(hash, hash_combine(murmurhash32(database), murmurhash32(queue)));
}

/* Makes a series; 0: there is no room.  Those without a queue do not count for the limit. */
uint32
qml_stats_memory_make(QmlStatsMemory *store, int database, int queue, const char *method,
					  int length, TimestampTz now)
{
	uint32 number = store->free;
	uint32 hash = qml_stats_memory_hash(database, queue, method, length);
	QmlStatsEntry *entry;

	if (queue != 0 && store->count >= store->capacity)
		return 0;
	if (number != 0)
		store->free = store->series[number - 1].next;
	else if (store->used < store->capacity + QML_STATS_DATABASES)
		number = ++store->used;
	else
		return 0;
	entry = &store->series[number - 1];
	pg_atomic_init_u32(&entry->users, 0);
	entry->database = database;
	entry->queue = queue;
	entry->hash = hash;
	entry->length = length;
	memcpy(entry->method, method, length);
	entry->active_at = now;
	for (int i = 0; i < QML_STAT_NUMBERS; i++)
		pg_atomic_init_u64(&entry->now[i], 0);
	memset(entry->stored, 0, sizeof(entry->stored));
	entry->next = store->buckets[hash % QML_STATS_BUCKETS];
	store->buckets[hash % QML_STATS_BUCKETS] = number;
	if (queue != 0)
		store->count++;
	/* Last: who has an old generation of it must not find it. */
	pg_write_barrier();
	if (++store->generation == 0)
		++store->generation;
	pg_atomic_write_u32(&entry->generation, store->generation);
	return number;
}
