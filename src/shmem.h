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
#include "utils/timestamp.h"

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
	QML_ENDED_MADE_WAY,		/* somebody wants the database for himself */
	QML_ENDED_DISABLED		/* by a setting */
} QmlOutcome;

/* What a sleeping scheduler may have to be woken for. */
typedef enum QmlWake
{
	QML_WAKE_DUE = 0,	/* a scheduled or awaiting_retry job */
	QML_WAKE_LEASE,		/* the end of a lease */
	QML_WAKE_RECURRING, /* a recurring job */
	QML_WAKES
} QmlWake;

/* No time: later than all. */
#define QML_WAKE_NEVER PG_INT64_MAX

/*
 * The fields of the first group are written under the lock: by the launcher in a
 * free or ended slot, by the process that has the slot otherwise.  A process has
 * it while `generation` is the one it was started with.
 */
typedef struct QmlSlot
{
	QmlSlotState state;
	uint32 generation; /* only grows */
	Oid database;
	Oid role; /* to connect as; InvalidOid: look who owns the extension */
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
	 * The earliest time told since the scheduler looked last, TimestampTz; lowered
	 * by whoever commits, taken by the scheduler.
	 */
	pg_atomic_uint64 told[QML_WAKES];
} QmlSlot;

/*
 * A prepared transaction that will make something due, by a hash of its name; a
 * free entry has no database.
 */
typedef struct QmlPrepared
{
	Oid database;
	uint32 name;
	bool call; /* the launcher shall look */
} QmlPrepared;

#define QML_MAX_PREPARED 128

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

	int nslots; /* fixed at start */
	QmlSlot slots[FLEXIBLE_ARRAY_MEMBER];
} QmlShmem;

extern QmlShmem *qml_shmem;

extern void qml_shmem_init(void);
extern QmlSlot *qml_shmem_slot(Oid database);
extern void qml_shmem_set_latch(pg_atomic_uint32 *process);
extern uint32 qml_shmem_my_process(void);

#endif
