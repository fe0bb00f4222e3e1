/*
 * fetches.c
 *		Who has fetched lately: from which queues, and jobs of which methods.
 *
 * Whoever asks why a job does not run must hear whether any worker outside the database has
 * asked for such jobs, and when.  A fetch says so here, of each queue that it looks at, with the
 * methods that it names.  Background workers do not: which jobs they take is known from the
 * handlers.
 *
 * It costs a fetch next to nothing: a session tells the same again only after some seconds
 * (NOTE_INTERVAL), and remembers what it has told in memory of its own.
 *
 * The memory is a table of fixed size, of buckets with some places each.  In a full bucket the
 * oldest entry makes way, so that with more queues and methods than there is room for, the fetches
 * of some are forgotten.  It begins empty at each start of the server; qml_fetches_since() says
 * since when it knows.  Nothing but explanations depends on it.
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

#define BUCKETS	  1024
#define IN_BUCKET 8

/* What is told again after so long; reports are that much out of date at most. */
#define NOTE_INTERVAL (2 * USECS_PER_SEC)

/* Methods that one fetch tells of. */
#define MOST_METHODS 1000

/* Under the lock. */
typedef struct Fetch
{
	Oid database; /* InvalidOid: the place is free */
	int queue;
	uint32 method; /* by hash, or one of the above */
	uint32 at;	   /* seconds, as a timestamp counts them */
} Fetch;

typedef struct Fetches
{
	LWLock *lock;	   /* set at start */
	TimestampTz since; /* set at start */
	Fetch places[BUCKETS][IN_BUCKET];
} Fetches;

static Fetches *fetches = NULL;

/* What this session has told last, by queue. */
#define TOLD 64

static struct
{
	int queue;
	uint64 filter;
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

/* What stands for a method: never one of the two that mean something else. */
uint32
qml_fetches_method(uint64 hash)
{
	uint32 method = (uint32) hash;

	return method <= QML_FETCHES_ANY ? method + 2 : method;
}

static Fetch *
bucket_of(int queue, uint32 method)
{
	uint32 hash = hash_combine(hash_combine(murmurhash32((uint32) MyDatabaseId),
											murmurhash32((uint32) queue)),
							   murmurhash32(method));

	return fetches->places[hash % BUCKETS];
}

static bool
is_for(const Fetch *fetch, int queue, uint32 method)
{
	return fetch->database == MyDatabaseId && fetch->queue == queue && fetch->method == method;
}

/* Writes a fetch into the place that it has, or a free one, or that of the oldest one. */
static void
put(int queue, uint32 method, uint32 at)
{
	Fetch *bucket = bucket_of(queue, method);
	Fetch *place = &bucket[0];

	Assert(LWLockHeldByMeInMode(fetches->lock, LW_EXCLUSIVE));
	for (int i = 0; i < IN_BUCKET; i++)
	{
		if (is_for(&bucket[i], queue, method))
		{
			place = &bucket[i];
			break;
		}
		if (OidIsValid(place->database) &&
			(!OidIsValid(bucket[i].database) || bucket[i].at < place->at))
			place = &bucket[i];
	}
	place->database = MyDatabaseId;
	place->queue = queue;
	place->method = method;
	place->at = at;
}

/*
 * This session fetches from a queue jobs of these methods, or (NULL) of all that have no handler.
 * filter: the same for the same methods.
 */
void
qml_fetches_note(int queue, uint64 filter, const uint64 *methods, int count)
{
	int number = (int) ((uint32) queue % TOLD);
	TimestampTz now;
	uint32 at;

	if (fetches == NULL)
		return;
	now = GetCurrentTimestamp();
	if (told[number].queue == queue && told[number].filter == filter &&
		told[number].at > now - NOTE_INTERVAL && told[number].at <= now)
		return;
	told[number].queue = queue;
	told[number].filter = filter;
	told[number].at = now;

	at = (uint32) (now / USECS_PER_SEC);
	LWLockAcquire(fetches->lock, LW_EXCLUSIVE);
	put(queue, QML_FETCHES_ANY, at);
	if (methods == NULL)
		put(queue, QML_FETCHES_UNNAMED, at);
	for (int i = 0; methods && i < Min(count, MOST_METHODS); i++)
		put(queue, qml_fetches_method(methods[i]), at);
	LWLockRelease(fetches->lock);
}

/* When somebody fetched so last; 0: it is not known that anybody did. */
TimestampTz
qml_fetches_last(int queue, uint32 method)
{
	const Fetch *bucket;
	TimestampTz last = 0;

	if (fetches == NULL)
		return 0;
	bucket = bucket_of(queue, method);
	LWLockAcquire(fetches->lock, LW_SHARED);
	for (int i = 0; i < IN_BUCKET; i++)
	{
		if (is_for(&bucket[i], queue, method))
			last = (TimestampTz) bucket[i].at * USECS_PER_SEC;
	}
	LWLockRelease(fetches->lock);
	return last;
}

/* Since when fetches are known; 0: they are not, because qml is not preloaded. */
TimestampTz
qml_fetches_since(void)
{
	return fetches ? fetches->since : 0;
}
