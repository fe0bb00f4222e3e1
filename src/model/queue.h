/*
 * queue.h
 *		Queues: their names, options and state, cached by each backend.
 */
#ifndef QML_QUEUE_H
#define QML_QUEUE_H

#include "nodes/pg_list.h"
#include "storage/lockdefs.h"

#include "model/catalog.h"
#include "model/options.h"

/*
 * Pointers are valid for the session, and show the queue as it was read last.  A queue
 * that was never committed, or whose row was deleted, stays in memory as `gone`.
 */
typedef struct QmlQueue
{
	int id;
	char *name;
	uint32 name_hash; /* qml_queue_hash_name() of it */
	bool paused;
	bool dropped;
	bool own;		/* holds the calls of after-commit hooks */
	bool gone;		/* no row: not committed, or deleted by hand */
	uint64 read_at; /* QmlCache.changes at that time; 0: out of date */
	uint64 seen_at; /* QmlCache.seen */
	QmlQueueOptions options;
} QmlQueue;

/*
 * SQL: the options that a queue, whose row is q, has still when it was dropped, and when it is made
 * again by that.  Its finished jobs can be seen, so what is hidden in them stays hidden.
 */
#define QML_QUEUE_KEPT_OPTIONS             \
	"CASE WHEN q.options ? 'redact' THEN " \
	"pg_catalog.jsonb_build_object('redact', q.options -> 'redact') ELSE '{}' END"

extern void qml_queue_init(void);
extern const QmlQueue *qml_queue_by_name(const char *name);
extern const QmlQueue *qml_queue_by_name_or_dropped(const char *name);
extern const QmlQueue *qml_queue_by_id(int id);
extern void qml_queue_raise_missing(const char *name);
extern const QmlQueue *qml_queue_require(int id);
extern bool qml_queue_is_own(int id);
extern int qml_queue_own_id(void);
extern const QmlQueue *qml_queue_to_enqueue(const char *name, bool named, bool *created);
extern const QmlQueue *qml_queue_try_to_enqueue(const char *name, bool *created);
extern void qml_queue_check_named(const char *name);
extern void qml_queue_lock_name(const char *name);
extern const QmlQueue *qml_queue_try_lock(const char *name, LOCKMODE mode);

extern void qml_queue_changed(void);

extern QmlStorage qml_queue_storage(int id);
extern int qml_queue_max_retries(const QmlQueue *queue);
extern int qml_queue_timeout_ms(const QmlQueue *queue);
extern int64 qml_queue_lease(const QmlQueue *queue);
extern int64 qml_queue_ttl(const QmlQueue *queue, bool failed);
extern QmlStoreId qml_queue_store(const QmlQueue *queue);
extern List *qml_queue_ttls(QmlStoreId store);
extern List *qml_queue_ttls_of(const QmlQueue *queue);
extern List *qml_queue_all(void);
extern uint32 qml_queue_hash_name(const char *name);

#endif
