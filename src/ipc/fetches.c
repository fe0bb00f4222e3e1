/*
 * fetches.c
 *		Who has fetched lately: from which queues, and jobs of which methods.
 *
 * Whoever asks why a job does not run must hear whether any worker outside the database has
 * asked for such jobs, and when.  A fetch says so here, of each queue that it names, or of all, with
 * the methods that it names.  Background workers do not: which jobs they take is known from the
 * handlers.
 *
 * It costs a fetch next to nothing: a session tells the same again only after some seconds
 * (NOTE_INTERVAL), and remembers what it has told in memory of its own.
 *
 * The memory is two tables of fixed size, one of queues and one of methods in queues.  A table has
 * buckets with some places each.  In a full bucket the oldest entry makes way, and the bucket knows
 * until when some of its entries are forgotten: what is not in it may have been fetched until then.
 * So whoever asks hears of each fetch that it was, that it was not, or that it is not known.
 *
 * The memory begins empty at each start of the server; qml_fetches_since() says since when it
 * knows.  Nothing but explanations depends on it.
 *
 * It has a lock of its own, a leaf: whoever holds it takes no other and raises no error.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"

#include "ipc/fetches.h"

#define TRANCHE "qml_fetches"

/* Of queues and of methods in queues; some of a bucket are full before all places are taken. */
#define QUEUE_BUCKETS  4096
#define METHOD_BUCKETS 1024
#define IN_BUCKET	   8

/* What is told again after so long; reports are that much out of date at most. */
#define NOTE_INTERVAL (2 * USECS_PER_SEC)

/* Methods that one fetch tells of. */
#define MOST_METHODS 1000

/* The rest is under the lock.  Times are seconds, as a timestamp counts them; 0: never. */
typedef struct Place
{
	Oid database; /* InvalidOid: it is free */
	int queue;
	uint32 method; /* the first half of its hash; 0 in the table of queues */
	uint32 at;
} Place;

typedef struct Bucket
{
	uint32 forgotten; /* the latest fetch that had to make way */
	Place places[IN_BUCKET];
	uint32 unnamed_at[IN_BUCKET]; /* of queues: the last fetch of all methods without handlers */
	uint32 more_at[IN_BUCKET];	  /* of queues: the last one of more methods than were told */
} Bucket;

typedef struct MethodBucket
{
	uint32 forgotten;
	Place places[IN_BUCKET];
} MethodBucket;

typedef struct Fetches
{
	LWLock *lock;	   /* set at start */
	TimestampTz since; /* set at start */
	Bucket queues[QUEUE_BUCKETS];
	MethodBucket methods[METHOD_BUCKETS];
} Fetches;

static Fetches *fetches = NULL;

/* What this session has told last, by what it has fetched. */
#define TOLD 64

static struct
{
	uint64 what;
	TimestampTz at;
} told[TOLD];

static shmem_request_hook_type previous_request = NULL;
static shmem_startup_hook_type previous_startup = NULL;

static void
request(void)
{
	if (previous_request)
		previous_request();
	RequestAddinShmemSpace(sizeof(Fetches));
	RequestNamedLWLockTranche(TRANCHE, 1);
}

static void
create(void)
{
	bool found;

	if (previous_startup)
		previous_startup();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	fetches = ShmemInitStruct(TRANCHE, sizeof(Fetches), &found);
	if (!found)
	{
		memset(fetches, 0, sizeof(Fetches));
		fetches->lock = &GetNamedLWLockTranche(TRANCHE)->lock;
		fetches->since = GetCurrentTimestamp();
	}
	LWLockRelease(AddinShmemInitLock);
}

/* Called while the server loads its preloaded libraries. */
void
qml_fetches_init(void)
{
	previous_request = shmem_request_hook;
	shmem_request_hook = request;
	previous_startup = shmem_startup_hook;
	shmem_startup_hook = create;
}

static uint32
hash_queue(int queue)
{
	return hash_combine(murmurhash32((uint32) MyDatabaseId), murmurhash32((uint32) queue));
}

static Bucket *
bucket_of_queue(int queue)
{
	return &fetches->queues[hash_queue(queue) % QUEUE_BUCKETS];
}

static MethodBucket *
bucket_of_method(int queue, uint32 method)
{
	return &fetches
				->methods[hash_combine(hash_queue(queue), murmurhash32(method)) % METHOD_BUCKETS];
}

/* The place of a queue or method in its bucket; -1: it has none. */
static int
find_place(const Place *places, int queue, uint32 method)
{
	for (int i = 0; i < IN_BUCKET; i++)
	{
		if (places[i].database == MyDatabaseId && places[i].queue == queue &&
			places[i].method == method)
			return i;
	}
	return -1;
}

/* The same, with one that is made: a free place, or that of the oldest entry. */
static int
make_place(Place *places, int queue, uint32 method, uint32 *forgotten, bool *is_new)
{
	int number = find_place(places, queue, method);
	Place *place;

	Assert(LWLockHeldByMeInMode(fetches->lock, LW_EXCLUSIVE));
	*is_new = number < 0;
	if (number >= 0)
		return number;
	number = 0;
	for (int i = 1; i < IN_BUCKET; i++)
	{
		/* A free one has no time. */
		if (places[i].at < places[number].at)
			number = i;
	}
	place = &places[number];
	*forgotten = Max(*forgotten, place->at);
	place->database = MyDatabaseId;
	place->queue = queue;
	place->method = method;
	return number;
}

static void
put_queue(int queue, bool unnamed, bool more, uint32 at)
{
	Bucket *bucket = bucket_of_queue(queue);
	bool is_new;
	int number = make_place(bucket->places, queue, 0, &bucket->forgotten, &is_new);

	bucket->places[number].at = at;
	if (is_new)
	{
		bucket->unnamed_at[number] = 0;
		bucket->more_at[number] = 0;
	}
	if (unnamed)
		bucket->unnamed_at[number] = at;
	if (more)
		bucket->more_at[number] = at;
}

static void
put_method(int queue, uint32 method, uint32 at)
{
	MethodBucket *bucket = bucket_of_method(queue, method);
	bool is_new;
	int number = make_place(bucket->places, queue, method, &bucket->forgotten, &is_new);

	bucket->places[number].at = at;
}

/*
 * Whether a fetch is to be told of, because this session has not told of the same one lately; it has
 * from now on.  what: a hash of all that was asked for.
 */
bool
qml_fetches_is_due(uint64 what)
{
	int number = (int) (what % TOLD);
	TimestampTz now;

	if (fetches == NULL)
		return false;
	now = GetCurrentTimestamp();
	if (told[number].what == what && told[number].at > now - NOTE_INTERVAL &&
		told[number].at <= now)
		return false;
	told[number].what = what;
	told[number].at = now;
	return true;
}

/*
 * Somebody fetches from a queue, or from all (QML_FETCHES_ALL), jobs of the methods with these
 * hashes, or (NULL) of all that have no handler.
 */
void
qml_fetches_note(int queue, const uint64 *methods, int count)
{
	uint32 at;

	if (fetches == NULL)
		return;
	at = (uint32) (GetCurrentTimestamp() / USECS_PER_SEC);
	LWLockAcquire(fetches->lock, LW_EXCLUSIVE);
	put_queue(queue, methods == NULL, count > MOST_METHODS, at);
	for (int i = 0; methods && i < Min(count, MOST_METHODS); i++)
		put_method(queue, (uint32) methods[i], at);
	LWLockRelease(fetches->lock);
}

static TimestampTz
time_of(uint32 at)
{
	return (TimestampTz) at * USECS_PER_SEC;
}

/* Adds what is known of fetches from one queue, or of those from all. */
static void
add_queue(int queue, bool unnamed, QmlFetched *fetched)
{
	const Bucket *bucket = bucket_of_queue(queue);
	int number = find_place(bucket->places, queue, 0);

	if (number < 0)
		fetched->perhaps = Max(fetched->perhaps, time_of(bucket->forgotten));
	else
		fetched->last = Max(fetched->last, time_of(unnamed ? bucket->unnamed_at[number] :
															 bucket->places[number].at));
}

static void
add_method(int queue, uint32 method, QmlFetched *fetched)
{
	const MethodBucket *bucket = bucket_of_method(queue, method);
	const Bucket *all = bucket_of_queue(queue);
	int number = find_place(bucket->places, queue, method);

	if (number >= 0)
		fetched->last = Max(fetched->last, time_of(bucket->places[number].at));
	else
	{
		fetched->perhaps = Max(fetched->perhaps, time_of(bucket->forgotten));
		number = find_place(all->places, queue, 0);
		if (number >= 0)
			fetched->perhaps = Max(fetched->perhaps, time_of(all->more_at[number]));
	}
}

/*
 * When somebody fetched from a queue last; unnamed: all jobs whose methods have no handler.
 */
QmlFetched
qml_fetches_of_queue(int queue, bool unnamed)
{
	QmlFetched fetched = {0};

	if (fetches == NULL)
		return fetched;
	LWLockAcquire(fetches->lock, LW_SHARED);
	add_queue(queue, unnamed, &fetched);
	add_queue(QML_FETCHES_ALL, unnamed, &fetched);
	LWLockRelease(fetches->lock);
	return fetched;
}

/* The same of a method with this hash, by its name. */
QmlFetched
qml_fetches_of_method(int queue, uint64 hash)
{
	QmlFetched fetched = {0};

	if (fetches == NULL)
		return fetched;
	LWLockAcquire(fetches->lock, LW_SHARED);
	add_method(queue, (uint32) hash, &fetched);
	add_method(QML_FETCHES_ALL, (uint32) hash, &fetched);
	LWLockRelease(fetches->lock);
	return fetched;
}

/* Since when fetches are known; 0: they are not, because qml is not preloaded. */
TimestampTz
qml_fetches_since(void)
{
	return fetches ? fetches->since : 0;
}
