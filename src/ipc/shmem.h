/*
 * shmem.h
 *		What qml keeps in shared memory: one slot per database that is worked.
 *
 * Only there when the library is in shared_preload_libraries; qml_shmem is NULL
 * otherwise.  All of it is hints and the state of processes: it is lost in a
 * crash, and nothing else is.
 */
#ifndef QML_SHMEM_H
#define QML_SHMEM_H

#include "port/atomics.h"
#include "storage/lwlock.h"
#include "storage/spin.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

/* A slot goes round: free, starting, running, ended. */
typedef enum QmlSlotState
{
	QML_SLOT_FREE = 0,
	QML_SLOT_STARTING, /* by the launcher */
	QML_SLOT_RUNNING,  /* by the process, when it begins */
	QML_SLOT_ENDED	   /* by the process, when it exits */
} QmlSlotState;

/* Why a process ended; what the launcher does next depends on it. */
typedef enum QmlOutcome
{
	QML_ENDED_EARLY = 0,	/* could not connect */
	QML_ENDED_FAILED,		/* the database is not as it should be */
	QML_ENDED_TERMINATED,	/* signal, error */
	QML_ENDED_NO_EXTENSION, /* nothing to do here */
	QML_ENDED_FOUND,		/* looked, and found the extension of slot->role */
	QML_ENDED_COPY,			/* not adopted */
	QML_ENDED_IDLE,			/* a worker without work */
	QML_ENDED_MADE_WAY,		/* somebody wants the database for himself */
	QML_ENDED_DISABLED		/* by a setting */
} QmlOutcome;

/* What a process does that has a slot. */
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
	QML_WAKE_SESSION,	/* a session that held jobs is gone */
	QML_WAKE_PROGRESS,	/* a job says how far it is */
	QML_WAKE_ANNOUNCE,	/* ready jobs that listeners shall know of */
	QML_WAKE_HOOK,		/* a hook took a process with it */
	QML_WAKES
} QmlWake;

/* Roles, or jobs, that a scheduler is told of by name; more are "some". */
#define QML_MAX_ROLES		16
#define QML_MAX_LOST		128
#define QML_MAX_WAIT_QUEUES 16

/* No time: later than all. */
#define QML_WAKE_NEVER PG_INT64_MAX

/* Methods of limited concurrency, by hash, that one worker can be at. */
#define QML_MAX_PLACES 16

/* How far the job of a worker is, to be written into it. */
#define QML_MAX_SHOWN_PROGRESS 4096

typedef struct QmlProgress
{
	pg_uuid_t job;
	int attempt;
	int length; /* 0: nothing new */
	char document[QML_MAX_SHOWN_PROGRESS] pg_attribute_aligned(MAXIMUM_ALIGNOF);
} QmlProgress;

/*
 * The fields of the first group are written under the lock: by the launcher in a
 * free or ended slot, by the process that has the slot otherwise.  A process has
 * it while `generation` is the one it was started with.
 */
typedef struct QmlSlot
{
	QmlSlotState state;
	QmlKind kind;
	uint32 generation; /* only grows */
	Oid database;
	Oid role; /* to connect as; of one that looks: what it found */
	int pid;
	bool connected; /* to its database */
	QmlOutcome outcome;
	TimestampTz started_at;

	/* Without the lock, by the process that has the slot. */
	pg_atomic_uint32 process;	   /* its PGPROC, counted from 1; 0: none */
	pg_atomic_uint64 heartbeat_at; /* TimestampTz */
	pg_atomic_uint64 asleep_until; /* TimestampTz; 0: awake */

	/* When a prepared transaction of unknown name was told of last, TimestampTz. */
	pg_atomic_uint64 unknown_told;

	/*
	 * Of a scheduler.  The earliest time told since it looked last, TimestampTz;
	 * lowered by whoever commits, taken by the scheduler.
	 */
	pg_atomic_uint64 told[QML_WAKES];

	/* Under the lock: added by whoever tells, taken by the scheduler. */
	int nroles;	   /* that have work, and no worker that is free */
	bool any_role; /* more than fit, or not known which */
	Oid roles[QML_MAX_ROLES];
	int nlost;	   /* jobs whose session is gone */
	bool any_lost; /* more than fit */
	pg_uuid_t lost[QML_MAX_LOST];
	int nannounced;	   /* queues with ready jobs that listeners shall know of */
	bool announce_all; /* more than fit, or not known which */
	int announced[QML_MAX_WAIT_QUEUES];

	/* Of a worker: `more` is set by whoever has work for it, `idle` taken back. */
	pg_atomic_uint32 more;
	pg_atomic_uint32 idle;
	volatile bool leave; /* by the launcher: after this job */

	/* Under the lock, by the worker: methods of limited concurrency that it is at. */
	int nplaces;
	uint32 places[QML_MAX_PLACES];

	QmlProgress progress; /* under the lock: by the worker, and taken by the scheduler */

	/* Under the mutex: what it is doing, and what it shall no longer do. */
	slock_t mutex;
	bool has_job;
	bool has_cancel;
	pg_uuid_t job;	  /* by the worker */
	pg_uuid_t cancel; /* by whoever deletes it */
} QmlSlot;

/* What a session waits for. */
typedef enum QmlWaitKind
{
	QML_WAITS_NOT = 0,
	QML_WAITS_READY,   /* a ready job */
	QML_WAITS_FINISHED /* the end of a job */
} QmlWaitKind;

/* Written by the session whose it is, `kind` last; read by whoever commits. */
typedef struct QmlWaiter
{
	pg_atomic_uint32 kind;
	Oid database;
	int nqueues; /* 0: any */
	int queues[QML_MAX_WAIT_QUEUES];
	pg_uuid_t job;
} QmlWaiter;

/*
 * A prepared transaction that will make something due, by a hash of its name; a
 * free entry has no database.
 */
typedef struct QmlPrepared
{
	Oid database;
	uint32 name;
	bool call; /* the launcher shall look */
	bool took; /* ready jobs, which are there again if it is rolled back */
} QmlPrepared;

#define QML_MAX_PREPARED 128

/* A role that a scheduler wants one more worker for. */
typedef struct QmlRequest
{
	Oid database;
	Oid role;
} QmlRequest;

#define QML_MAX_REQUESTS 64

/* A hook that took a process with it, by a hash of its name. */
typedef struct QmlStuck
{
	Oid database;
	uint32 hook;
} QmlStuck;

#define QML_MAX_STUCK 32

/* An attempt that a session ended under. */
typedef struct QmlCulprit
{
	int place;	  /* of the session */
	uint32 token; /* 0: none */
	pg_uuid_t job;
	int attempt;
	int loss; /* QmlLoss; 0: another one */
} QmlCulprit;

#define QML_MAX_CULPRITS 64

/* Databases that somebody asks the launcher to look at. */
#define QML_MAX_CALLS 64

typedef struct QmlShmem
{
	LWLock *lock;
	pg_atomic_uint32 launcher; /* its PGPROC, counted from 1; 0: none */

	/* Under the lock: by whoever calls, and taken by the launcher. */
	int ncalls;
	bool call_all; /* more than fit */
	Oid calls[QML_MAX_CALLS];

	/* Under the lock, by whoever prepares or ends a transaction. */
	QmlPrepared prepared[QML_MAX_PREPARED];

	/* Under the lock: by schedulers, and taken by the launcher. */
	int nrequests;
	QmlRequest requests[QML_MAX_REQUESTS];

	/* Under the lock: by processes that end, and forgotten by those that come after. */
	int nstuck;
	QmlStuck stuck[QML_MAX_STUCK];

	/* Under the lock: by processes that end; the oldest gives way. */
	int next_culprit;
	QmlCulprit culprits[QML_MAX_CULPRITS];

	/*
	 * Sessions that hold jobs, by the number of their PGPROC: a token, 0 for none;
	 * written by the session.  `boot` tells one start of the server from others.
	 */
	uint32 boot;
	pg_atomic_uint32 next_token;
	int nsessions; /* fixed at start */
	pg_atomic_uint32 *sessions;

	/* Sessions that wait, by the number of their PGPROC, and how many do. */
	pg_atomic_uint32 nwaiting;
	QmlWaiter *waiters;

	int nslots; /* fixed at start */
	QmlSlot slots[FLEXIBLE_ARRAY_MEMBER];
} QmlShmem;

extern QmlShmem *qml_shmem;

extern void qml_shmem_init(void);
extern QmlSlot *qml_shmem_scheduler(Oid database);
extern void qml_shmem_request(Oid database, Oid role);
extern int qml_shmem_count_workers(Oid database, Oid role);
extern bool qml_shmem_take_place(QmlSlot *slot, uint32 method, int limit);
extern bool qml_shmem_has_room(Oid database, uint32 method, int limit, const QmlSlot *except);
extern void qml_shmem_leave_places(QmlSlot *slot, const uint32 *methods, int count);
extern void qml_shmem_set_latch(pg_atomic_uint32 *process);
extern uint32 qml_shmem_my_process(void);
extern void qml_shmem_beat(QmlSlot *slot);
extern void qml_shmem_note_culprit(const QmlCulprit *culprit);
extern bool qml_shmem_find_culprit(QmlCulprit *culprit);
extern bool qml_shmem_is_surplus(const QmlSlot *worker, int most);

#endif
