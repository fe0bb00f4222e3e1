/*
 * shmem.h
 *		The layout of qml's shared memory.
 *
 * It exists only when the library is in shared_preload_libraries; otherwise
 * qml_shmem is NULL.  All of it is hints and the state of processes.  A crash of
 * the server clears it and loses nothing else.
 *
 * One LWLock, qml_shmem->lock, protects all fields for which the comments say "under
 * the lock".  Lists of ready jobs lie apart, and have locks of their own
 * (ready_store.c).  Only the files of src/ipc take it; "make lint" checks that.  It is a
 * leaf: nobody waits for a heavyweight lock, reads a table or runs a function of a
 * user while holding it.  The only lock taken below it is the spinlock of a slot.  The
 * table of running claims has locks of its own, which are leaves as well.
 *
 * Each group of fields belongs to one file, which alone writes it.  Only slots.c also
 * writes the fields of other files in a slot: it clears them when the slot is reserved for
 * a process, or taken by it.
 *
 *		shmem.c			launcher
 *		slots.c			states of slots, heartbeats, concurrency slots, progress, cancels
 *		databases.c		databases, what is due in those without a scheduler, the limit of processes
 *		due.c			due[], asleep_until
 *		dispatch.c		has_work, idle, roles and queues that wait, worker requests
 *		waiters.c		sessions that wait
 *		wakeup.c		calls to the launcher, rules
 *		prepared.c		prepared transactions, unknown_prepared_at
 *		session_claim.c	session tokens, lost jobs, last running jobs
 *		beats.c			heartbeats of jobs whose rows are held
 *		lease_table.c	running claims, what is known of them, in locks of its own
 *		stuck_hooks.c	stuck hooks
 *
 * Other folders read some fields of their own slot, and call functions of these files
 * for the rest.
 */
#ifndef QML_SHMEM_H
#define QML_SHMEM_H

#include "access/xact.h"
#include "port/atomics.h"
#include "storage/itemptr.h"
#include "storage/lwlock.h"
#include "storage/spin.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "ipc/counter_store.h"
#include "ipc/ready_store.h"
#include "ipc/stats_note.h"

/* The life of a slot: free, starting, running, ended, and free again. */
typedef enum QmlSlotState
{
	QML_SLOT_FREE = 0, /* by the launcher */
	QML_SLOT_STARTING, /* by the launcher */
	QML_SLOT_RUNNING,  /* by the process, when it begins */
	QML_SLOT_ENDED	   /* by the process, when it exits */
} QmlSlotState;

/* Why a process ended; what the launcher does next depends on it. */
typedef enum QmlOutcome
{
	QML_ENDED_EARLY = 0,	/* it could not connect */
	QML_ENDED_FAILED,		/* the database is not as it should be; a worker: errors in a row */
	QML_ENDED_TERMINATED,	/* by a signal, or by an error */
	QML_ENDED_NO_EXTENSION, /* the database does not have the extension */
	QML_ENDED_FOUND,		/* the owner of the extension is in slot->role: of a look, or of a
							 * scheduler after the owner has changed */
	QML_ENDED_COPY,			/* the jobs are a copy that is not adopted */
	QML_ENDED_IDLE,			/* a worker that had no work */
	QML_ENDED_MADE_WAY,		/* another session needs the database exclusively */
	QML_ENDED_TURN,			/* a scheduler whose slot another database needs */
	QML_ENDED_DISABLED		/* by a setting; a worker: its slot is for another one, too */
} QmlOutcome;

/* What a process with a slot does. */
typedef enum QmlKind
{
	QML_LOOK = 0, /* finds out who owns the extension */
	QML_SCHEDULER,
	QML_WORKER
} QmlKind;

/* What a sleeping scheduler may have to be woken for. */
typedef enum QmlWake
{
	QML_WAKE_DUE = 0,	/* a scheduled or awaiting_retry job */
	QML_WAKE_LEASE,		/* the end of a lease */
	QML_WAKE_RECURRING, /* a recurring job */
	QML_WAKE_WORK,		/* ready jobs, and no worker that is free */
	QML_WAKE_SESSION,	/* a session that held jobs has ended */
	QML_WAKE_PROGRESS,	/* a job in the database reports its progress */
	QML_WAKE_NOTIFY,	/* ready jobs in queues that have listeners */
	QML_WAKE_HOOK,		/* a hook that could not be canceled ended its process */
	QML_WAKE_HISTORY,	/* a job has finished, and the history has no partition for it */
	QML_WAKE_SERVER,	/* a server was given up */
	QML_WAKE_STATS,		/* something was counted that is not stored */
	QML_WAKE_BULK,		/* a bulk operation */
	QML_WAKES
} QmlWake;

/* Sizes of the lists for a scheduler; what does not fit becomes "all". */
#define QML_MAX_ROLES		16
#define QML_MAX_LOST		128
#define QML_MAX_KEPT_LOST	16 /* while the database has no scheduler */
#define QML_MAX_WAIT_QUEUES 16
#define QML_MAX_WAIT_NAMES	16

/* A due time that is later than all others. */
#define QML_WAKE_NEVER PG_INT64_MAX

/* Concurrency slots, one a method, that one worker can hold. */
#define QML_MAX_CONCURRENCY_SLOTS 16

/* Largest progress document that a job in the database can show, in bytes. */
#define QML_MAX_SHOWN_PROGRESS 4096

/*
 * What sessions leave for the scheduler of their database, or for the next one.  Under the
 * lock; dispatch.c also reads the roles without it.
 */
typedef struct QmlPending
{
	int nroles; /* that have ready jobs and no worker that is free */
	bool any_role;
	Oid roles[QML_MAX_ROLES];
	int nnotify; /* queues with listeners that have ready jobs */
	bool notify_all;
	int notify[QML_MAX_WAIT_QUEUES];
} QmlPending;

typedef struct QmlProgress
{
	pg_uuid_t job;
	int attempt;
	int length; /* 0: nothing new */
	char document[QML_MAX_SHOWN_PROGRESS] pg_attribute_aligned(MAXIMUM_ALIGNOF);
} QmlProgress;

/*
 * A background process, and what others leave for it.
 *
 * A process is identified by its slot and the generation that it was started with:
 * it owns the slot as long as `generation` is that one.
 */
typedef struct QmlSlot
{
	/*
	 * Written under the lock: by the launcher while the slot is free or ended, by
	 * the process that owns it otherwise.  Some readers do without the lock; see
	 * slots.c.
	 */
	QmlSlotState state;
	QmlKind kind;
	uint32 generation; /* only grows */
	Oid database;
	Oid role; /* to connect as; of a process that looks: what it found */
	int pid;
	bool connected; /* to its database */
	QmlOutcome outcome;
	TimestampTz started_at;
	int64 started_ms; /* the same on the monotonic clock */

	/* Written by the process that owns the slot; read by everybody without a lock. */
	pg_atomic_uint32 process;	   /* its PGPROC, counted from 1; 0: none */
	pg_atomic_uint64 heartbeat_at; /* TimestampTz */
	pg_atomic_uint64 asleep_until; /* TimestampTz, of a scheduler; 0: awake */

	/*
	 * Of a scheduler: the earliest time at which something of a kind is due,
	 * TimestampTz.  Lowered by any session without a lock, taken by the scheduler;
	 * see due.c.
	 */
	pg_atomic_uint64 due[QML_WAKES];

	/* Of a scheduler: prepared.c's last wake-up for a transaction of unknown name. */
	pg_atomic_uint64 unknown_prepared_at; /* TimestampTz */

	/*
	 * Of a scheduler, under the lock: added by any session as long as `process` is set,
	 * taken by the scheduler.  A session that sees its role there leaves it to the
	 * scheduler, which takes it later.  A session that adds its role then looks for workers;
	 * a worker that becomes idle or ends shows that, and then looks for roles.  There is a
	 * full barrier between, so that one of them sees the other.
	 */
	QmlPending pending;
	int nlost; /* jobs whose session has ended */
	bool any_lost;
	pg_uuid_t lost[QML_MAX_LOST];

	/* Of a worker, without a lock; see dispatch.c. */
	pg_atomic_uint32 has_work; /* set by any session, cleared by the worker */
	pg_atomic_uint32 idle;	   /* set by the worker, cleared by the session that wakes it */

	/*
	 * Set by the launcher under the lock, read without: the worker is to end after its
	 * job, the scheduler after its round.
	 */
	volatile bool leave;

	/*
	 * Of a worker, written by it under the lock: the methods, by hash, of which it
	 * holds a concurrency slot.
	 */
	int nconcurrency_slots;
	uint32 concurrency_slots[QML_MAX_CONCURRENCY_SLOTS];

	/* Of a worker, under the lock: written by the worker, taken by the scheduler. */
	QmlProgress progress;

	/* Of a worker, under the mutex: the job that it runs, and whether it must stop it. */
	slock_t mutex;
	bool has_job;
	pg_uuid_t job;	 /* by the worker, as is has_job */
	bool has_cancel; /* by the session that deletes the job; the worker reads it without, too */
} QmlSlot;

/* Whether a database is served, and why not. */
typedef enum QmlDatabaseState
{
	QML_DATABASE_FREE = 0, /* of an entry: it belongs to none */
	QML_DATABASE_STARTING, /* its process has been asked for, or will be in a moment */
	QML_DATABASE_SERVED,   /* it has a scheduler */
	QML_DATABASE_WAITING,  /* for a slot */
	QML_DATABASE_RESTING,  /* it has had a turn, and nothing is due */
	QML_DATABASE_FAILED,   /* it will be tried again */
	QML_DATABASE_COPY,	   /* it is not adopted */
	QML_DATABASE_UNKNOWN,  /* not a database: a name in qml.databases that none has */
	QML_DATABASE_REFUSED   /* listed there, but a template, or closed to connections */
} QmlDatabaseState;

/* Databases beyond these have their turns, but are not shown. */
#define QML_MAX_DATABASES 1024

/* Room for what a scheduler keeps for its next turn: see process/steps.h. */
#define QML_TURN_BYTES 1312

typedef struct QmlDatabase
{
	/* Under the lock, by the launcher; sessions read `database` without it. */
	Oid database;
	QmlDatabaseState state;
	char name[NAMEDATALEN];
	int waiting_roles;	   /* that want a worker */
	TimestampTz served_at; /* when it had a scheduler last; 0: never */

	/* Without a lock, by sessions while there is no scheduler; taken by the next one. */
	pg_atomic_uint64 due[QML_WAKES]; /* TimestampTz */

	/* Under the lock: the same that its slot has, while there is no scheduler. */
	QmlPending pending;
	int nlost;
	bool any_lost;
	pg_uuid_t lost[QML_MAX_KEPT_LOST];

	/* Numbers of lease_table.c: the last claim that is missing there, and that of a reading. */
	pg_atomic_uint64 lease_missed;
	pg_atomic_uint64 lease_known;

	/* Under the lock: by a scheduler that ends with its turn, taken by the next one. */
	bool has_turn;
	char turn[QML_TURN_BYTES];
} QmlDatabase;

/* What a session waits for. */
typedef enum QmlWaitKind
{
	QML_WAITS_NOT = 0,
	QML_WAITS_READY,   /* a ready job */
	QML_WAITS_FINISHED /* the end of a job */
} QmlWaitKind;

/*
 * A set of names, by hash; none: all names.  If they do not fit there is a bit for each hash,
 * counted modulo the bits, so that it may seem to have a name that it does not have.
 */
typedef struct QmlNames
{
	int count;
	uint32 hashes[QML_MAX_WAIT_NAMES];
} QmlNames;

/* Ready jobs of one queue and one method. */
typedef struct QmlReadyJobs
{
	int queue;	   /* id */
	uint32 name;   /* of the queue, by hash: who waits for a queue that is to come has no id */
	uint32 method; /* by hash */
	bool handled;  /* it has a handler: only who names it may fetch them */
	int count;
} QmlReadyJobs;

/* What a session is woken for. */
typedef struct QmlWakeUp
{
	QmlReadyJobs ready; /* count: for how many sessions, this one included; 0: it looks */
	int first;			/* the session that had it first, by number; -1: none */
} QmlWakeUp;

/*
 * What others look at first of a session that waits.  These lie close together, so that those
 * of hundreds of sessions are looked through in a microsecond.  Written under the mutex of the
 * waiter, all but that one bit by the session itself; read without it by those who then take it.
 */
typedef struct QmlWaitSign
{
	/*
	 * A bit for each name, of queues together with the database: others may have the same.
	 * None if it does not wait for ready jobs.  One more bit among those of the queues: while
	 * it waits, and others have not woken it since it looked.
	 */
	uint32 queues;
	uint32 methods;
	uint32 began; /* when it began to wait, monotonic and in milliseconds, modulo 2^32 */
	uint8 kind;	  /* QmlWaitKind; what it waits for is valid if it waits */
} QmlWaitSign;

/*
 * A session that waits.  What it waits for is written by that session, the rest by others,
 * too; under the mutex, and read without it by those who then take it.
 */
typedef struct QmlWaiter
{
	slock_t mutex;
	Oid database;
	QmlNames queues; /* which need not exist yet */
	QmlNames methods;
	pg_uuid_t job;
	QmlWakeUp wakeup; /* if it is woken */

	/* It looks at this time, monotonic and in milliseconds, whether such jobs are left; 0: no. */
	int64 guard_at;
	QmlReadyJobs guarded;
} QmlWaiter;

/* Changes of the numbers of jobs, and notes for statistics, that are kept of a prepared transaction. */
#define QML_PREPARED_DELTAS 16
#define QML_PREPARED_STATS	32

/* A prepared transaction that will do something when it ends; see prepared.c. */
typedef struct QmlPrepared
{
	Oid database;		   /* InvalidOid: the entry is free */
	FullTransactionId xid; /* invalid: it is not prepared yet */
	bool has_name;		   /* which others can end it by */
	bool unheard;		   /* nobody may tell of its end */
	int nending;		   /* sessions that are ending it by a statement */
	char name[GIDSIZE];
	bool call;	/* wake the launcher when it commits */
	bool took;	/* it took ready jobs, which are ready again if it is rolled back */
	bool rules; /* it changed who runs which jobs */

	/* What it does to lists of ready jobs. */
	QmlReadyKept ready;

	bool changed; /* more than jobs, for those who watch */

	/* What it does to the numbers of jobs; or that is not known. */
	bool uncounted;
	int ndeltas;
	QmlCounterDelta deltas[QML_PREPARED_DELTAS];

	/* What it counts for statistics, and events that found no room here. */
	int nstats;
	uint64 missed_stats;
	QmlStatNote stats[QML_PREPARED_STATS];
} QmlPrepared;

/* A role that a scheduler wants one more worker for. */
typedef struct QmlRequest
{
	Oid database;
	Oid role;
} QmlRequest;

#define QML_MAX_REQUESTS 64

/* A hook that could not be canceled and ended its process, by a hash of its name. */
typedef struct QmlStuckHook
{
	Oid database;
	uint32 hook;
} QmlStuckHook;

#define QML_MAX_STUCK 32

/* How a job was lost with its session. */
typedef enum QmlLoss
{
	QML_LOST_UNKNOWN = 0,
	QML_LOST_RUNNING,  /* it ran or was being recorded when the session ended */
	QML_LOST_OVERDUE,  /* so it did, after its timeout */
	QML_LOST_IN_GROUP, /* it ran, for longer than its group could wait: alone it may */
	QML_LOST_BESIDE	   /* others had begun, or none */
} QmlLoss;

/* An attempt that had begun when its session ended, or that none had. */
typedef struct QmlLastJob
{
	int session;  /* number of its PGPROC */
	uint32 token; /* of the session; 0: it held nothing */
	pg_uuid_t job;
	int attempt; /* 0: none */
	QmlLoss loss;
} QmlLastJob;

/* Some groups may end at the same time. */
#define QML_MAX_LAST_JOBS 512

/* The end of a lease that could not be written into the job's row; free when it is over. */
typedef struct QmlBeat
{
	Oid database;
	pg_uuid_t job;
	int attempt;
	TimestampTz end;
} QmlBeat;

/* A beat is in the bucket of its job. */
#define QML_BEAT_BUCKETS 512
#define QML_BUCKET_BEATS 8

/* Where the row of a job is, or was. */
typedef struct QmlRowPlace
{
	ItemPointerData root; /* see common/table.c; invalid: not known */
	uint16 store;		  /* which table: see model/catalog.h */
} QmlRowPlace;

/* A claim that runs; see lease_table.c. */
typedef struct QmlLeaseEntry
{
	pg_uuid_t job;
	union
	{
		TimestampTz end;
		struct
		{
			int number;
			uint32 token;
		} session;
	} u;
	Oid database; /* InvalidOid: the entry is free */
	int attempt;
	uint32 server;	   /* hash of its id; 0: none */
	QmlRowPlace place; /* of the job */
	uint16 next;	   /* of its bucket, or of the free ones; as in `first` */
	bool bound : 1;	   /* to a session */
	bool ending : 1;   /* the transaction that ends it commits, or has tried to */
	uint8 pauses;	   /* how often it was put off */
} QmlLeaseEntry;

/* The table of claims is in so many partitions, with so many claims each: 262,144 in all. */
#define QML_LEASE_PARTITIONS 64
#define QML_LEASE_ENTRIES	 4096
#define QML_LEASE_BUCKETS	 1024

/* Under its own lock.  Entries are counted from 1; 0: none. */
typedef struct QmlLeasePartition
{
	uint16 first[QML_LEASE_BUCKETS];
	uint16 free;			 /* list of those that were used */
	uint16 used;			 /* entries behind these were not used since all were free */
	uint16 count;			 /* entries that are not free */
	TimestampTz searched_at; /* for one that makes way */
	QmlLeaseEntry entries[QML_LEASE_ENTRIES];
} QmlLeasePartition;

/* A database that a session asks the launcher to look at. */
typedef struct QmlCall
{
	Oid database;
	bool sure; /* the extension was made or changed there; if not, it may have been */
} QmlCall;

#define QML_MAX_CALLS 64

/* Raised with each change of what lies in the shared memory. */
#define QML_SHMEM_LAYOUT 11

typedef struct QmlShmem
{
	uint32 layout;			   /* QML_SHMEM_LAYOUT of the library that made it; first */
	LWLock *lock;			   /* set at start */
	pg_atomic_uint32 launcher; /* its PGPROC, counted from 1; 0: none.  By the launcher */

	/* Under the lock: added by any session, taken by the launcher. */
	int ncalls;
	bool call_all; /* more than fit */
	QmlCall calls[QML_MAX_CALLS];

	/* Under the lock: added by sessions that prepare, removed by those that end one. */
	int nprepared;			   /* set at start */
	QmlPrepared *prepared;	   /* set at start */
	pg_atomic_uint32 nunheard; /* of these; written under the lock */

	/* Under the lock: added by schedulers and workers, taken by the launcher. */
	int nrequests;
	QmlRequest requests[QML_MAX_REQUESTS];
	pg_atomic_uint32 has_waiting; /* roles wait for a worker.  By the launcher */

	/* Under the lock: added by processes that end, removed by those that follow them. */
	int nstuck;
	QmlStuckHook stuck[QML_MAX_STUCK];

	/* Under the lock: a ring, written by processes that end; the oldest is replaced. */
	int next_last_job;
	QmlLastJob last_jobs[QML_MAX_LAST_JOBS];

	/* Under the lock: written by sessions that send heartbeats. */
	QmlBeat beats[QML_BEAT_BUCKETS][QML_BUCKET_BEATS];
	/* The latest end that a beat has, or had; only grows.  Written under the lock. */
	pg_atomic_uint64 last_beat_end;

	/* See lease_table.c: running claims, and the numbers of those that are missing. */
	QmlLeasePartition *leases; /* set at start, as are the locks */
	LWLockPadded *lease_locks; /* one a partition */
	pg_atomic_uint64 last_lease_miss;
	pg_atomic_uint64 prepared_told_since; /* TimestampTz; 0: not known yet */

	/*
	 * Sessions that hold jobs, by the number of their PGPROC: a token, or 0.  Behind
	 * them, counted from nsessions on, the jobs that run in them, if they hold jobs.  Each
	 * is written by its session without a lock.  `boot` is a random number of this
	 * start of the server.
	 */
	uint32 boot; /* set at start */
	pg_atomic_uint32 next_token;
	int nsessions;				/* set at start */
	pg_atomic_uint32 *sessions; /* set at start */

	/* Under the lock, by the launcher. */
	int process_limit;
	bool limited_by_server;
	int ndatabases;			/* entries from here on are free; read by sessions without the lock */
	int nhidden;			/* databases, and names in qml.databases, that found no entry */
	QmlDatabase *databases; /* set at start */

	/* Sessions that wait, by the number of their PGPROC, and how many they are, by kind. */
	pg_atomic_uint32 nready;
	pg_atomic_uint32 nfinished;
	pg_atomic_uint32 last_warm; /* number of a session: see waiters.c */
	QmlWaiter *waiters;			/* set at start */
	QmlWaitSign *signs;			/* set at start */

	/* Changes of who runs which jobs, in all databases; see wakeup.c. */
	pg_atomic_uint32 rules;

	int nslots; /* set at start */
	QmlSlot slots[FLEXIBLE_ARRAY_MEMBER];
} QmlShmem;

extern QmlShmem *qml_shmem;

extern void qml_shmem_init(void);
extern void qml_shmem_set_launcher(void);
extern void qml_shmem_clear_launcher(void);
extern void qml_shmem_wake_launcher(void);
extern uint32 qml_shmem_my_process(void);
extern void qml_shmem_set_latch(pg_atomic_uint32 *process);

#endif
