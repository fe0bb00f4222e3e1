/*
 * queue.c
 *		Queues: their names, options and state, cached by each backend.
 *
 * There can be tens of thousands.  A backend reads the rows of those that it uses, by an
 * index, and again those that changed (common/cache.c).  It reads all of them where all are
 * asked for, and from then on those that changed.  That a name is not there is known until
 * any row changes, because a new row can have it.
 *
 * Locks: a transaction that adds a job to a queue holds AccessShareLock on the queue,
 * as an object of qml.queue_data, to its end; one that drops the queue, or changes how its jobs
 * are stored, takes AccessExclusiveLock first.  There is no foreign key, which would lock the
 * queue's row for each job (and create multixacts).  This lock comes before those of job rows.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "common/cache.h"
#include "common/guc.h"
#include "common/spi.h"
#include "common/suggest.h"
#include "common/table.h"
#include "errcodes.h"
#include "model/acl.h"
#include "model/catalog.h"
#include "model/new_queue.h"
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

/* It must be read again.  Until then, callers that hold it see what was read. */
static void
forget_queue(QmlQueue *queue)
{
	queue->read_at = 0;
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
	{
		forget_queue(entry->queue);
		entry->queue->gone = true;
	}
}

/* What stands for the name of a queue, whether it exists or not, where names do not fit. */
uint32
qml_queue_hash_name(const char *name)
{
	return qml_cache_hash_name(&name, sizeof(name));
}

/* QmlCache.row_changed. */
static void
change_queue(int32 id)
{
	QueueById *entry = queues_by_id ? hash_search(queues_by_id, &id, HASH_FIND, NULL) : NULL;

	if (entry)
		forget_queue(entry->queue);
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
	queue->name_hash = qml_queue_hash_name(name);
	queue->own = strcmp(name, QML_HOOK_QUEUE) == 0;
	queue->gone = true;
	/* The row got another name: what is known of the old one is no longer told of. */
	if (entry)
		forget_queue(entry->queue);
	entry = hash_search(queues_by_id, &id, HASH_ENTER, NULL);
	entry->queue = queue;
	return queue;
}

/*
 * What is to be hidden, in memory of its own.  What was known before stays if it is the same, and
 * otherwise until the transaction ends: callers may be using it.
 */
static const QmlRedact *
keep_redact(const QmlRedact *known, const QmlRedact *redact)
{
	MemoryContext context;
	QmlRedact *kept;

	if (known && redact && known->size == redact->size && memcmp(known, redact, known->size) == 0)
		return known;
	if (known)
		qml_cache_retire(GetMemoryChunkContext(unconstify(QmlRedact *, known)));
	if (redact == NULL)
		return NULL;
	context = AllocSetContextCreate(TopMemoryContext, "qml redaction", ALLOCSET_SMALL_SIZES);
	kept = MemoryContextAlloc(context, redact->size);
	memcpy(kept, redact, redact->size);
	return kept;
}

/*
 * Options that were written by hand may be invalid.  That must not stop all queues, nor
 * this one; but nothing may be shown that was to be hidden.
 */
static void
read_queue_options(QmlQueue *queue, Datum options)
{
	QmlQueueOptions parsed;
	char *error;

	if (qml_options_parse_stored(qml_options_parse_queue, DatumGetJsonbP(options), &parsed, &error))
	{
		parsed.redact = keep_redact(queue->options.redact, parsed.redact);
		queue->options = parsed;
		return;
	}
	ereport(WARNING,
			(errcode(ERRCODE_QML_INVALID_OPTION),
			 errmsg("options of queue \"%s\" are invalid and are ignored", queue->name),
			 errdetail("%s", error)));
	qml_options_default_queue(&parsed);
	parsed.redact = keep_redact(queue->options.redact,
								qml_options_redact_all(DatumGetJsonbP(options)));
	queue->options = parsed;
}

static void add_queue(HeapTuple tuple, TupleDesc desc);

static QmlCache queue_cache = {
	.start = start_queues,
	.add = add_queue,
	.row_changed = change_queue,
};

/* What was just read holds, unless it changed meanwhile: then it is read again next time. */
static void
mark_read(QmlQueue *queue)
{
	queue->read_at = qml_cache_holds(&queue_cache) ? queue_cache.reading : 0;
	queue->seen_at = queue_cache.reading_seen;
}

/*
 * Whether what is known of a queue holds.  That it is gone does until any row changes, and
 * only of its name.
 */
static bool
is_current(const QmlQueue *queue)
{
	return queue->read_at != 0 && queue->read_at == queue_cache.changes &&
		   (!queue->gone || queue->seen_at == queue_cache.seen);
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
	mark_read(queue);

	/* The name may have got another id: its first insertion was rolled back. */
	by_name = hash_search(queues_by_name, &key, HASH_ENTER, NULL);
	by_name->name = queue->name;
	by_name->queue = queue;
	pfree(name);
}

void
qml_queue_init(void)
{
	qml_cache_init(&queue_cache);
}

static const QmlCacheKey key_id = {"queue_data_pkey", QUEUE_ID, F_INT4EQ};
static const QmlCacheKey key_name = {"queue_data_name_key", QUEUE_NAME, F_TEXTEQ};

/*
 * Who asks for one queue after the other, in the order of their ids, will ask for the next ones:
 * so many are read at once.  A claim from 20,000 queues does.
 */
#define READ_AHEAD 32

static bool
read_by_id(int id)
{
	static int last = 0; /* the last id whose row was read so */
	bool follows = last > 0 && id > last && id - last <= READ_AHEAD;
	QmlCacheRange range = {.key = &key_id, .from = id, .to = id + READ_AHEAD - 1};

	if (!follows || id > PG_INT32_MAX - READ_AHEAD)
	{
		last = id;
		return qml_cache_read_row(&queue_cache, &key_id, Int32GetDatum(id), add_queue);
	}
	last = range.to;
	return qml_cache_read_range(&queue_cache, &range, add_queue);
}

/* What was known of a queue, if anything was, counts as gone until its row is read. */
static void
begin_reading(QmlQueue *queue)
{
	if (queues_by_name == NULL)
		create_hashes();
	/* As start_queues() does for all of them. */
	if (queue)
	{
		forget_queue(queue);
		queue->gone = true;
	}
}

static void
read_queue_by_id(int id, QmlQueue *queue)
{
	begin_reading(queue);
	/* If there is no such row, nothing is known: it may have got another name. */
	if (!read_by_id(id))
		qml_cache_refresh(&queue_cache, qml_catalog()->queue);
}

static void
read_queue_by_name(const char *name, QmlQueue *queue)
{
	begin_reading(queue);
	if (!qml_cache_read_row(&queue_cache, &key_name, CStringGetTextDatum(name), add_queue))
		qml_cache_refresh(&queue_cache, qml_catalog()->queue);
	/* No row has the name. */
	if (queue && queue->gone)
		mark_read(queue);
}

/*
 * Reads all queues, or those that changed since.  If one changes meanwhile, or if there is an
 * error, all are read next time.
 */
static void
refresh_queues(void)
{
	qml_cache_set_table(&queue_cache, qml_catalog()->queue);
	if (queue_cache.valid && queue_cache.nchanged > 0)
	{
		uint64 seen = queue_cache.seen;
		int nchanged = queue_cache.nchanged;

		queue_cache.valid = false;
		for (int i = 0; i < nchanged; i++)
			(void) qml_queue_by_id(queue_cache.changed[i]);
		queue_cache.nchanged = 0;
		queue_cache.valid = seen == queue_cache.seen;
	}
	qml_cache_refresh(&queue_cache, qml_catalog()->queue);
}

/*
 * Names that were not there when they were looked up, and are asked for often: that of the
 * queue of the hooks, and those that a worker waits for.
 */
#define MISSING_NAMES 8

static struct
{
	char name[QML_MAX_QUEUE_NAME + 1];
	uint64 seen_at;
} missing_names[MISSING_NAMES];
static int next_missing = 0;

/* Whether it is known that no row has the name, which is not entered. */
static bool
is_missing(const char *name)
{
	if (queue_cache.valid && queue_cache.nchanged == 0)
		return true;
	for (int i = 0; i < MISSING_NAMES; i++)
	{
		if (missing_names[i].seen_at == queue_cache.seen &&
			strcmp(missing_names[i].name, name) == 0)
			return true;
	}
	return false;
}

static void
note_missing(const char *name)
{
	if (strlen(name) > QML_MAX_QUEUE_NAME || !qml_cache_holds(&queue_cache))
		return;
	strcpy(missing_names[next_missing].name, name);
	missing_names[next_missing].seen_at = queue_cache.seen;
	next_missing = (next_missing + 1) % MISSING_NAMES;
}

/* The queue of this name, also one that was dropped; NULL if there is no row. */
const QmlQueue *
qml_queue_by_name_or_dropped(const char *name)
{
	QueueByName *entry;

	qml_cache_set_table(&queue_cache, qml_catalog()->queue);
	entry = queues_by_name ? hash_search(queues_by_name, &name, HASH_FIND, NULL) : NULL;
	if (entry ? !is_current(entry->queue) : !is_missing(name))
	{
		read_queue_by_name(name, entry ? entry->queue : NULL);
		entry = hash_search(queues_by_name, &name, HASH_FIND, NULL);
		if (entry == NULL)
			note_missing(name);
	}
	return entry && !entry->queue->gone ? entry->queue : NULL;
}

/* The queue of this name; NULL if there is none, or it was dropped. */
const QmlQueue *
qml_queue_by_name(const char *name)
{
	const QmlQueue *queue = qml_queue_by_name_or_dropped(name);

	return queue && !queue->dropped ? queue : NULL;
}

/* The queue of this id, also one that was dropped; NULL if there is no row. */
const QmlQueue *
qml_queue_by_id(int id)
{
	static const QmlQueue *last = NULL; /* a call asks for the same one many times */
	QueueById *entry;

	qml_cache_set_table(&queue_cache, qml_catalog()->queue);
	if (last && last->id == id && !last->gone && is_current(last))
		return last;
	entry = queues_by_id ? hash_search(queues_by_id, &id, HASH_FIND, NULL) : NULL;
	if (entry == NULL || entry->queue->gone || !is_current(entry->queue))
	{
		read_queue_by_id(id, entry ? entry->queue : NULL);
		entry = hash_search(queues_by_id, &id, HASH_FIND, NULL);
	}
	if (entry == NULL || entry->queue->gone)
		return NULL;
	last = entry->queue;
	return last;
}

/* The id of the queue that holds the calls of after-commit hooks; 0: there is none yet. */
int
qml_queue_own_id(void)
{
	const QmlQueue *queue = qml_queue_by_name(QML_HOOK_QUEUE);

	return queue ? queue->id : 0;
}

/* Whether a queue is that one. */
bool
qml_queue_is_own(int id)
{
	const QmlQueue *queue = qml_queue_by_id(id);

	return queue && queue->own;
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
 * What the name of a queue that does not exist may have been meant to be, of those that the
 * current user sees; for a hint.
 */
static const char *
guess_queue(const char *name)
{
	QmlSuggestion suggestion;
	ListCell *lc;

	qml_suggest_begin(&suggestion, name);
	foreach(lc, qml_queue_all())
	{
		const QmlQueue *queue = lfirst(lc);

		if (!queue->dropped && !queue->own && qml_acl_see_queue(queue->name))
			qml_suggest_consider(&suggestion, queue->name);
	}
	return qml_suggest_question(&suggestion);
}

void
qml_queue_raise_missing(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_QML_QUEUE_NOT_FOUND),
			 errmsg("queue \"%s\" does not exist", name),
			 errhint("%sqml_create_queue() makes one.", guess_queue(name))));
}

/* The queue of this name, locked so that it cannot be dropped; NULL if there is none. */
static const QmlQueue *
lock_queue(const char *name)
{
	const QmlQueue *queue;

	while ((queue = qml_queue_by_name(name)) != NULL)
	{
		int id = queue->id;

		/* While this waited the queue may have been dropped, or created again. */
		LockDatabaseObject(queue_cache.relid, id, 0, AccessShareLock);
		queue = qml_queue_by_name(name);
		if (queue && queue->id == id)
			return queue;
		UnlockDatabaseObject(queue_cache.relid, id, 0, AccessShareLock);
	}
	return NULL;
}

/* The last statement of SPI has changed the rows of these ids: tells all backends. */
void
qml_queue_changed(void)
{
	const SPITupleTable *rows = SPI_tuptable;

	for (uint64 i = 0; i < rows->numvals; i++)
		qml_cache_row_changed(qml_catalog()->queue,
							  DatumGetInt32(qml_spi_value(rows, i, 1, INT4OID, NULL)));
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
						   "paused_at = NULL, paused_by = NULL, pause_reason = NULL, "
						   "options = " QML_QUEUE_KEPT_OPTIONS ", "
						   "created_at = pg_catalog.now() WHERE q.dropped RETURNING id",
						   1, &type, &value, NULL, SPI_OK_INSERT_RETURNING);
	qml_queue_changed();
	qml_spi_end(&spi);
	if (qml_queue_by_name(name) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("queue \"%s\" was created, but is not there", name),
				 errhint("Look for triggers, rules and row-level security on table "
						 "\"%s.queue_data\".",
						 QML_SCHEMA)));
}

/* Sub-id of the lock on a queue's name; that on its id has sub-id 0. */
#define NAME_SUB_ID 1

/* Locks the name of a queue, before it is created: one transaction at a time. */
void
qml_queue_lock_name(const char *name)
{
	qml_table_require_write();
	LockDatabaseObject(qml_catalog()->queue, qml_queue_hash_name(name), NAME_SUB_ID, ExclusiveLock);
}

/*
 * The queue of this name, locked: with AccessShareLock it cannot be dropped, with
 * AccessExclusiveLock nobody can add jobs to it.  Does not wait: NULL if there is none, or if
 * somebody else has the lock.
 */
const QmlQueue *
qml_queue_try_lock(const char *name, LOCKMODE mode)
{
	const QmlQueue *queue = qml_queue_by_name(name);
	int id;

	if (queue == NULL)
		return NULL;
	id = queue->id;
	if (!qml_catalog_try_lock(queue_cache.relid, id, 0, mode))
		return NULL;
	queue = qml_queue_by_name(name);
	if (queue && queue->id == id)
		return queue;
	UnlockDatabaseObject(queue_cache.relid, id, 0, mode);
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
		if (!qml_catalog_try_lock(qml_catalog()->queue, qml_queue_hash_name(name), NAME_SUB_ID,
								  ExclusiveLock))
			return NULL;
		if (qml_queue_by_name(name) == NULL)
		{
			create_queue(name);
			*created = true;
		}
	}
	return qml_queue_try_lock(name, AccessShareLock);
}

/*
 * The queue to add jobs to, locked against being dropped; created when missing.  named: a
 * caller names it, who is told, or must have created it before (new_queue.c).
 */
const QmlQueue *
qml_queue_to_enqueue(const char *name, bool named, bool *created)
{
	const QmlQueue *queue;

	*created = false;
	while ((queue = lock_queue(name)) == NULL)
	{
		CHECK_FOR_INTERRUPTS();
		qml_queue_lock_name(name);
		if (qml_queue_by_name(name))
			continue; /* somebody else has created it */
		if (named)
			qml_new_queue_allow(name);
		create_queue(name);
		if (named)
			qml_new_queue_tell(name);
		*created = true;
	}
	return queue;
}

/* A caller has named a queue for later, and is told if it is not there. */
void
qml_queue_check_named(const char *name)
{
	if (qml_queue_by_name(name) == NULL)
		qml_new_queue_tell_missing(name);
}

/*
 * How the jobs of a queue are stored.  It does not change while there are any, those included
 * that are not committed: who adds one holds the lock on the queue (jobs/queue_admin.c).
 */
QmlStorage
qml_queue_storage(int id)
{
	const QmlQueue *queue = qml_queue_by_id(id);

	return queue ? queue->options.storage : QML_DURABLE;
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

/* Where its jobs are stored.  The calls of hooks are no less durable than what they tell of. */
QmlStoreId
qml_queue_store(const QmlQueue *queue)
{
	return queue->options.storage == QML_UNLOGGED && !queue->own ? QML_STORE_UNLOGGED :
																   QML_STORE_LOGGED;
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

/* The times to live of one queue, without repeats, as qml_queue_ttls() has them. */
List *
qml_queue_ttls_of(const QmlQueue *queue)
{
	return add_ttl(add_ttl(NIL, qml_queue_ttl(queue, false)), qml_queue_ttl(queue, true));
}

/*
 * Every time to live that is in use by queues of a storage class, as a list of int64
 * pointers, without repeats: what its history needs partitions for.
 */
List *
qml_queue_ttls(QmlStoreId store)
{
	List *ttls = NIL;
	HASH_SEQ_STATUS status;
	QueueById *entry;

	refresh_queues();
	hash_seq_init(&status, queues_by_id);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		if (entry->queue->gone || qml_queue_store(entry->queue) != store)
			continue;
		ttls = add_ttl(ttls, qml_queue_ttl(entry->queue, false));
		ttls = add_ttl(ttls, qml_queue_ttl(entry->queue, true));
	}
	/* Those of queues that are created later, nearly all of them in this class. */
	if (ttls != NIL && store == QML_STORE_LOGGED)
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
