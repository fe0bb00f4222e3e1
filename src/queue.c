/*
 * queue.c
 *		Queues: their names, options and state, remembered by each backend.
 *
 * Locks: whoever adds a job to a queue holds AccessShareLock on the queue, as an
 * object of qml.queue, to the end of its transaction; whoever drops it takes
 * AccessExclusiveLock first.  There is no foreign key, which would lock the
 * queue's row for each job (and make multixacts).  This lock comes before those
 * of job rows.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"

#include "cache.h"
#include "catalog.h"
#include "guc.h"
#include "queue.h"
#include "spi.h"

typedef struct QueueById
{
	int id; /* hash key */
	QmlQueue *queue;
} QueueById;

typedef struct QueueByName
{
	char name[QML_MAX_QUEUE_NAME * MAX_MULTIBYTE_CHAR_LEN + 1]; /* hash key */
	QmlQueue *queue;
} QueueByName;

static HTAB *queues_by_id;
static HTAB *queues_by_name;

static QmlQueue *
read_queue(HeapTuple tuple, TupleDesc desc)
{
	QmlQueue *queue = palloc(sizeof(QmlQueue));
	bool isnull;

	queue->id = DatumGetInt32(heap_getattr(tuple, 1, desc, &isnull));
	queue->name = TextDatumGetCString(heap_getattr(tuple, 2, desc, &isnull));
	queue->paused = DatumGetBool(heap_getattr(tuple, 3, desc, &isnull));
	queue->dropped = DatumGetBool(heap_getattr(tuple, 4, desc, &isnull));
	qml_option_parse_queue(DatumGetJsonbP(heap_getattr(tuple, 5, desc, &isnull)), &queue->options);
	return queue;
}

static HTAB *
create_hash(const char *name, Size keysize, Size entrysize, int flags)
{
	HASHCTL control = {.keysize = keysize, .entrysize = entrysize, .hcxt = CurrentMemoryContext};

	return hash_create(name, 64, &control, HASH_ELEM | HASH_CONTEXT | flags);
}

static void
start_queues(void)
{
	queues_by_id = create_hash("qml queues by id", sizeof(int), sizeof(QueueById), HASH_BLOBS);
	queues_by_name = create_hash("qml queues by name", sizeof(((QueueByName *) 0)->name),
								 sizeof(QueueByName), HASH_STRINGS);
}

static void
add_queue(HeapTuple tuple, TupleDesc desc)
{
	QmlQueue *queue = read_queue(tuple, desc);
	QueueById *by_id = hash_search(queues_by_id, &queue->id, HASH_ENTER, NULL);
	QueueByName *by_name = hash_search(queues_by_name, queue->name, HASH_ENTER, NULL);

	by_id->queue = queue;
	by_name->queue = queue;
}

static QmlCache queue_cache = {
	.name = "queues",
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

/* NULL when there is no such queue, or it was dropped. */
const QmlQueue *
qml_queue_by_name(const char *name)
{
	QueueByName *entry;

	refresh_queues();
	entry = hash_search(queues_by_name, name, HASH_FIND, NULL);
	return entry && !entry->queue->dropped ? entry->queue : NULL;
}

/* NULL when there is no such queue, not yet or not any more. */
const QmlQueue *
qml_queue_find(int id)
{
	QueueById *entry;

	refresh_queues();
	entry = hash_search(queues_by_id, &id, HASH_FIND, NULL);
	return entry ? entry->queue : NULL;
}

/* The queue of a job; dropped ones too, which finished jobs may belong to. */
const QmlQueue *
qml_queue_by_id(int id)
{
	const QmlQueue *queue = qml_queue_find(id);

	if (queue == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("queue %d of a job is missing in table \"%s.queue\"", id, QML_SCHEMA)));
	return queue;
}

/*
 * The queue with a lock on it that keeps it from being dropped (or, with
 * AccessExclusiveLock, from getting jobs); NULL when there is none.
 */
const QmlQueue *
qml_queue_lock(const char *name, LOCKMODE mode)
{
	const QmlQueue *queue;

	while ((queue = qml_queue_by_name(name)) != NULL)
	{
		int id = queue->id;

		/* Waiting for the lock lets news in: what was found may have changed. */
		LockDatabaseObject(queue_cache.relid, id, 0, mode);
		queue = qml_queue_by_name(name);
		if (queue && queue->id == id)
			return queue;
		UnlockDatabaseObject(queue_cache.relid, id, 0, mode);
	}
	return NULL;
}

/* Keeps a queue that a job belongs to from being dropped before this commits. */
void
qml_queue_keep(int id)
{
	LockDatabaseObject(qml_catalog()->queue, id, 0, AccessShareLock);
}

static void
create_queue(const char *name)
{
	QmlSpi spi;
	Oid type = TEXTOID;
	Datum value = CStringGetTextDatum(name);

	qml_spi_begin(&spi, qml_catalog()->owner);
	(void) qml_spi_execute("INSERT INTO qml.queue AS q (name) VALUES ($1) "
						   "ON CONFLICT (name) DO UPDATE SET dropped = false, paused = false, "
						   "options = '{}', created_at = pg_catalog.now() WHERE q.dropped",
						   1, &type, &value, NULL, SPI_OK_INSERT);
	qml_spi_end(&spi);
	CommandCounterIncrement();
	qml_cache_forget(&queue_cache);
}

/* The queue to add jobs to, locked against being dropped; created when missing. */
const QmlQueue *
qml_queue_to_enqueue(const char *name)
{
	const QmlQueue *queue;

	while ((queue = qml_queue_lock(name, AccessShareLock)) == NULL)
	{
		CHECK_FOR_INTERRUPTS();
		create_queue(name);
	}
	return queue;
}

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

	ttls = add_ttl(ttls, qml_succeeded_ttl * USECS_PER_SEC);
	ttls = add_ttl(ttls, qml_failed_ttl * USECS_PER_SEC);
	refresh_queues();
	hash_seq_init(&status, queues_by_id);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		ttls = add_ttl(ttls, qml_queue_ttl(entry->queue, false));
		ttls = add_ttl(ttls, qml_queue_ttl(entry->queue, true));
	}
	return ttls;
}
