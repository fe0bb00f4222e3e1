/*
 * queue.c
 *		Queues: their names, options and state, cached by each backend.
 *
 * Locks: a transaction that adds a job to a queue holds AccessShareLock on the queue,
 * as an object of qml.queue_data, to its end; one that drops the queue takes
 * AccessExclusiveLock first.  There is no foreign key, which would lock the queue's row
 * for each job (and create multixacts).  This lock comes before those of job rows.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "common/cache.h"
#include "common/guc.h"
#include "common/spi.h"
#include "common/table.h"
#include "errcodes.h"
#include "model/catalog.h"
#include "model/queue.h"

/* Entries of the two hash tables. */
typedef struct QueueById
{
	int id; /* hash key */
	QmlQueue *queue;
} QueueById;

typedef struct QueueByName
{
	const char *name; /* hash key: the string, not the pointer */
	QmlQueue *queue;
} QueueByName;

/* Created once.  Queues are changed in place, because callers hold pointers to them. */
static HTAB *queues_by_id = NULL;
static HTAB *queues_by_name = NULL;

static void
create_hashes(void)
{
	HASHCTL by_id = {.keysize = sizeof(int),
					 .entrysize = sizeof(QueueById),
					 .hcxt = TopMemoryContext};
	HASHCTL by_name = {.keysize = sizeof(const char *),
					   .entrysize = sizeof(QueueByName),
					   .hash = qml_cache_hash_name,
					   .match = qml_cache_match_names,
					   .hcxt = TopMemoryContext};

	queues_by_id = hash_create("qml queues by id", 64, &by_id,
							   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	queues_by_name = hash_create("qml queues by name", 64, &by_name,
								 HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
}

/* QmlCache.start: every queue counts as gone until its row is read. */
static void
start_queues(void)
{
	HASH_SEQ_STATUS status;
	QueueById *entry;

	if (queues_by_name == NULL)
		create_hashes();
	hash_seq_init(&status, queues_by_id);
	while ((entry = hash_seq_search(&status)) != NULL)
		entry->queue->gone = true;
}

/* Finds or adds a queue by id.  A new one is complete before it is entered. */
static QmlQueue *
enter_queue(int id, const char *name)
{
	QueueById *entry = hash_search(queues_by_id, &id, HASH_FIND, NULL);
	QmlQueue *queue;

	if (entry && strcmp(entry->queue->name, name) == 0)
		return entry->queue;
	queue = MemoryContextAllocZero(TopMemoryContext, sizeof(QmlQueue));
	queue->id = id;
	queue->name = MemoryContextStrdup(TopMemoryContext, name);
	queue->gone = true;
	entry = hash_search(queues_by_id, &id, HASH_ENTER, NULL);
	entry->queue = queue;
	return queue;
}

/*
 * Options that were written by hand may be invalid.  That must not stop all queues, nor
 * this one.
 */
static void
read_queue_options(QmlQueue *queue, Datum options)
{
	QmlQueueOptions parsed;
	char *error;

	if (qml_options_parse_stored(qml_options_parse_queue, DatumGetJsonbP(options), &parsed, &error))
	{
		queue->options = parsed;
		return;
	}
	ereport(WARNING,
			(errcode(ERRCODE_QML_INVALID_OPTION),
			 errmsg("options of queue \"%s\" are invalid and are ignored", queue->name),
			 errdetail("%s", error)));
	qml_options_default_queue(&queue->options);
}

/* QmlCache.add. */
static void
add_queue(HeapTuple tuple, TupleDesc desc)
{
	bool isnull;
	int id = DatumGetInt32(heap_getattr(tuple, QUEUE_ID, desc, &isnull));
	char *name = TextDatumGetCString(heap_getattr(tuple, QUEUE_NAME, desc, &isnull));
	QmlQueue *queue = enter_queue(id, name);
	const char *key = queue->name;
	QueueByName *by_name;

	queue->paused = DatumGetBool(heap_getattr(tuple, QUEUE_PAUSED, desc, &isnull));
	queue->dropped = DatumGetBool(heap_getattr(tuple, QUEUE_DROPPED, desc, &isnull));
	read_queue_options(queue, heap_getattr(tuple, QUEUE_OPTIONS, desc, &isnull));
	queue->gone = false;

	/* The name may have got another id: its first insertion was rolled back. */
	by_name = hash_search(queues_by_name, &key, HASH_ENTER, NULL);
	by_name->name = queue->name;
	by_name->queue = queue;
	pfree(name);
}

static QmlCache queue_cache = {
	.start = start_queues,
	.add = add_queue,
};

void
qml_queue_init(void)
{
	qml_cache_init(&queue_cache);
}

static void
refresh_queues(void)
{
	qml_cache_refresh(&queue_cache, qml_catalog()->queue);
}

/* The queue of this name; NULL if there is none, or it was dropped. */
const QmlQueue *
qml_queue_by_name(const char *name)
{
	QueueByName *entry;

	refresh_queues();
	entry = hash_search(queues_by_name, &name, HASH_FIND, NULL);
	return entry && !entry->queue->gone && !entry->queue->dropped ? entry->queue : NULL;
}

/* The queue of this id, also one that was dropped; NULL if there is no row. */
const QmlQueue *
qml_queue_by_id(int id)
{
	QueueById *entry;

	refresh_queues();
	entry = hash_search(queues_by_id, &id, HASH_FIND, NULL);
	return entry && !entry->queue->gone ? entry->queue : NULL;
}

/* The queue of a job, also one that was dropped; raises XX001 if there is no row. */
const QmlQueue *
qml_queue_require(int id)
{
	const QmlQueue *queue = qml_queue_by_id(id);

	if (queue == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("queue %d of a job is missing in table \"%s.queue_data\"", id, QML_SCHEMA)));
	return queue;
}

/*
 * The queue of this name, locked: with AccessShareLock it cannot be dropped, with
 * AccessExclusiveLock nobody can add jobs to it.  NULL if there is none.
 */
const QmlQueue *
qml_queue_lock(const char *name, LOCKMODE mode)
{
	const QmlQueue *queue;

	Assert(mode == AccessShareLock || mode == AccessExclusiveLock);
	while ((queue = qml_queue_by_name(name)) != NULL)
	{
		int id = queue->id;

		/* While this waited the queue may have been dropped, or created again. */
		LockDatabaseObject(queue_cache.relid, id, 0, mode);
		queue = qml_queue_by_name(name);
		if (queue && queue->id == id)
			return queue;
		UnlockDatabaseObject(queue_cache.relid, id, 0, mode);
	}
	return NULL;
}

/* Creates a queue, or one that was dropped again; the caller has locked its name. */
static void
create_queue(const char *name)
{
	QmlSpi spi;
	Oid type = TEXTOID;
	Datum value = CStringGetTextDatum(name);

	qml_spi_begin(&spi, qml_catalog()->owner);
	(void) qml_spi_execute("INSERT INTO qml.queue_data AS q (name) VALUES ($1) "
						   "ON CONFLICT (name) DO UPDATE SET dropped = false, paused = false, "
						   "options = '{}', created_at = pg_catalog.now() WHERE q.dropped",
						   1, &type, &value, NULL, SPI_OK_INSERT);
	qml_spi_end(&spi);
	CommandCounterIncrement();
	qml_cache_forget(&queue_cache);
}

/* Sub-id of the lock on a queue's name; that on its id has sub-id 0. */
#define NAME_SUB_ID 1

/* Locks the name of a queue, before it is created: one transaction at a time. */
void
qml_queue_lock_name(const char *name)
{
	qml_table_require_write();
	LockDatabaseObject(qml_catalog()->queue, qml_cache_hash_name(&name, sizeof(name)), NAME_SUB_ID,
					   ExclusiveLock);
}

/* qml_queue_lock() for callers that must not wait; NULL also if somebody else has the lock. */
static const QmlQueue *
try_lock_queue(const char *name)
{
	const QmlQueue *queue = qml_queue_by_name(name);
	int id;

	if (queue == NULL)
		return NULL;
	id = queue->id;
	if (!qml_catalog_try_lock(queue_cache.relid, id, 0, AccessShareLock))
		return NULL;
	queue = qml_queue_by_name(name);
	if (queue && queue->id == id)
		return queue;
	UnlockDatabaseObject(queue_cache.relid, id, 0, AccessShareLock);
	return NULL;
}

/*
 * qml_queue_to_enqueue() for callers that must not wait: NULL while somebody else is
 * creating or dropping the queue.
 */
const QmlQueue *
qml_queue_try_to_enqueue(const char *name, bool *created)
{
	*created = false;
	if (qml_queue_by_name(name) == NULL)
	{
		qml_table_require_write();
		if (!qml_catalog_try_lock(qml_catalog()->queue, qml_cache_hash_name(&name, sizeof(name)),
								  NAME_SUB_ID, ExclusiveLock))
			return NULL;
		if (qml_queue_by_name(name) == NULL)
		{
			create_queue(name);
			*created = true;
		}
	}
	return try_lock_queue(name);
}

/* The queue to add jobs to, locked against being dropped; created when missing. */
const QmlQueue *
qml_queue_to_enqueue(const char *name, bool *created)
{
	const QmlQueue *queue;

	*created = false;
	while ((queue = qml_queue_lock(name, AccessShareLock)) == NULL)
	{
		CHECK_FOR_INTERRUPTS();
		qml_queue_lock_name(name);
		if (qml_queue_by_name(name))
			continue; /* somebody else has created it */
		create_queue(name);
		*created = true;
	}
	return queue;
}

/* What holds for a queue: its own option, or the setting. */

int
qml_queue_max_retries(const QmlQueue *queue)
{
	return queue->options.max_retries >= 0 ? queue->options.max_retries : qml_max_retries;
}

int
qml_queue_timeout_ms(const QmlQueue *queue)
{
	return queue->options.timeout_ms >= 0 ? queue->options.timeout_ms : qml_job_timeout;
}

/* Microseconds. */
int64
qml_queue_lease(const QmlQueue *queue)
{
	return queue->options.lease >= 0 ? queue->options.lease : (int64) qml_lease * 1000;
}

/* How long a finished job is kept, microseconds; 0: not at all. */
int64
qml_queue_ttl(const QmlQueue *queue, bool failed)
{
	int64 own = failed ? queue->options.failed_ttl : queue->options.succeeded_ttl;

	return own >= 0 ? own : (failed ? qml_failed_ttl : qml_succeeded_ttl) * USECS_PER_SEC;
}

/* Adds a time to a list, if it is not there. */
static List *
add_ttl(List *ttls, int64 ttl)
{
	ListCell *lc;
	int64 *entry;

	foreach(lc, ttls)
	{
		if (*(int64 *) lfirst(lc) == ttl)
			return ttls;
	}
	entry = palloc(sizeof(int64));
	*entry = ttl;
	return lappend(ttls, entry);
}

/*
 * Every time to live that is in use, as a list of int64 pointers, without
 * repeats: what history needs partitions for.
 */
List *
qml_queue_ttls(void)
{
	List *ttls = NIL;
	HASH_SEQ_STATUS status;
	QueueById *entry;

	refresh_queues();
	hash_seq_init(&status, queues_by_id);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		if (entry->queue->gone)
			continue;
		ttls = add_ttl(ttls, qml_queue_ttl(entry->queue, false));
		ttls = add_ttl(ttls, qml_queue_ttl(entry->queue, true));
	}
	/* Those of queues that are created later. */
	if (ttls != NIL)
	{
		ttls = add_ttl(ttls, qml_succeeded_ttl * USECS_PER_SEC);
		ttls = add_ttl(ttls, qml_failed_ttl * USECS_PER_SEC);
	}
	return ttls;
}

/* All queues that have a row, dropped ones included. */
List *
qml_queue_all(void)
{
	List *queues = NIL;
	HASH_SEQ_STATUS status;
	QueueById *entry;

	refresh_queues();
	hash_seq_init(&status, queues_by_id);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		if (!entry->queue->gone)
			queues = lappend(queues, entry->queue);
	}
	return queues;
}
