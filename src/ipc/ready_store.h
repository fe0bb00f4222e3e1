/*
 * ready_store.h
 *		Sorted lists of ready jobs in shared memory.
 */
#ifndef QML_READY_STORE_H
#define QML_READY_STORE_H

#include "storage/itemptr.h"
#include "utils/uuid.h"

/*
 * The place of a job in its queue: a higher priority first, then the lower pass, then the lower id.
 * The pass is for queues in which jobs take turns: there are none yet, and it is 0 for all jobs
 * (jobs/ready_row.c).
 */
typedef struct QmlReadyKey
{
	int64 pass;
	int32 priority;
	pg_uuid_t id;
} QmlReadyKey;

/* A job that was ready when this was written. */
typedef struct QmlReadyEntry
{
	QmlReadyKey key;
	ItemPointerData root; /* what the indexes have for its row; invalid: not known */
	uint64 method;		  /* by hash, see common/hash_set.c */
} QmlReadyEntry;

/* How far into its queue a list reaches. */
typedef enum QmlReadyReach
{
	QML_REACH_NOTHING = 0,
	QML_REACH_KEY, /* it has the jobs before a key */
	QML_REACH_ALL
} QmlReadyReach;

typedef struct QmlReadyBound
{
	QmlReadyReach reach;
	QmlReadyKey key; /* of QML_REACH_KEY */
} QmlReadyBound;

typedef struct QmlReadyList
{
	/* Which list it is; free ones belong to no database. */
	Oid database;
	int queue;
	int next;  /* in its bucket, or of the free ones */
	bool used; /* since the search for one to give up came by */

	uint32 generation; /* of the database when it was begun: see ready_queues.c */
	QmlReadyBound bound;
	int count; /* entries */
	int first; /* chunk */
	int last;

	/* Somebody adds what is behind the bound; 0: nobody. */
	uint32 fill;
	int last_fill; /* entries that the last fill could have */
	bool has_late; /* a job from behind the bound has become ready meanwhile */
	QmlReadyKey late;
} QmlReadyList;

/* Jobs that are kept of a prepared transaction. */
#define QML_READY_KEPT 32

/* What a prepared transaction did to ready jobs. */
typedef struct QmlReadyKept
{
	bool unknown; /* the database forgets its lists */
	int count;
	int queues[QML_READY_KEPT];
	bool made[QML_READY_KEPT];			   /* or taken */
	QmlReadyEntry entries[QML_READY_KEPT]; /* without a row: the list is cut there */
} QmlReadyKept;

/* Whether a job of this method is wanted. */
typedef bool (*QmlReadyMatch)(uint64 method, void *arg);

/* Which entries of a list are wanted. */
typedef struct QmlReadyPart
{
	const QmlReadyKey *after;  /* NULL: from the first one on */
	const QmlReadyKey *before; /* NULL: up to the last one */
	QmlReadyMatch match;	   /* NULL: of all methods */
	void *arg;
} QmlReadyPart;

/* Lists that share a lock, and the memory for their entries. */
typedef struct QmlReadyStore QmlReadyStore;

/* Locks, and parts of the memory. */
#define QML_READY_STORES 16

/* Entries of a list; what is behind them is not in it. */
#define QML_READY_MOST 1024

extern Size qml_ready_store_request(void);
extern Size qml_ready_store_size(void);
extern void qml_ready_store_init(void *memory, bool found);
extern QmlReadyStore *qml_ready_store_lock(Oid database, int queue);
extern void qml_ready_store_unlock(QmlReadyStore *store);
extern void qml_ready_store_lock_all(void);
extern void qml_ready_store_unlock_all(void);
extern uint32 qml_ready_store_number(QmlReadyStore *store);

extern int qml_ready_compare(const QmlReadyKey *a, const QmlReadyKey *b);
extern bool qml_ready_is_before(const QmlReadyKey *key, const QmlReadyBound *bound);

extern QmlReadyList *qml_ready_store_find(QmlReadyStore *store, Oid database, int queue);
extern QmlReadyList *qml_ready_store_make(QmlReadyStore *store, Oid database, int queue);
extern void qml_ready_store_clear(QmlReadyStore *store, QmlReadyList *list);
extern void qml_ready_store_cut(QmlReadyStore *store, QmlReadyList *list, const QmlReadyKey *key);
extern void qml_ready_store_insert(QmlReadyStore *store, QmlReadyList *list,
								   const QmlReadyEntry *entry);
extern bool qml_ready_store_has(const QmlReadyStore *store, const QmlReadyList *list,
								const QmlReadyKey *key);
extern bool qml_ready_store_remove(QmlReadyStore *store, QmlReadyList *list, const QmlReadyKey *key,
								   QmlReadyEntry *removed);
extern int qml_ready_store_take(QmlReadyStore *store, QmlReadyList *list, const QmlReadyPart *part,
								QmlReadyEntry *entries, int most);
extern int qml_ready_store_look(QmlReadyStore *store, QmlReadyList *list, const QmlReadyPart *part,
								QmlReadyEntry *entries, int most);

#endif
