/*
 * transition.h
 *		Changing jobs: the state machine at work on stored rows.
 */
#ifndef QML_TRANSITION_H
#define QML_TRANSITION_H

#include "access/genam.h"

#include "common/table.h"
#include "model/job.h"
#include "userfn/hook.h"

/*
 * A session of changes within one call.  `snapshot` is what reads see; rows that
 * move to history are gathered and written together if `batch`.  Hooks are told when
 * it is closed.
 */
typedef struct QmlWriter
{
	QmlTable live;
	Relation pkey;
	IndexScanDesc by_id;
	Snapshot snapshot;
	bool batch;
	bool latest; /* the newest version of a job is judged in any isolation level */
	bool leaf_open;
	Oid leaf_oid;
	QmlTable leaf;
	TupleTableSlot **pending; /* rows for leaf; the slots are used again */
	int npending;
	int nslots;
	QmlHookCalls transitions;
} QmlWriter;

/* Changes a job; false: leave it as it is.  Called again when somebody was faster. */
typedef bool (*QmlChange)(QmlJob *job, void *arg);

extern void qml_transition_set(QmlJob *job, QmlState to, TimestampTz now);
extern void qml_transition_fail(QmlJob *job, const QmlJobError *error, bool retry,
								TimestampTz retry_at, TimestampTz now);
extern void qml_transition_lose(QmlJob *job, const char *reason, const char *error_type,
								TimestampTz now);

extern void qml_transition_give_up(QmlJob *job, const char *reason, const char *error_type,
								   TimestampTz now);

extern void qml_writer_open(QmlWriter *writer, bool batch, bool carefully);
extern void qml_writer_close(QmlWriter *writer);
extern Snapshot qml_writer_snapshot(QmlWriter *writer);
extern TM_Result qml_writer_put(QmlWriter *writer, const QmlJob *job, bool wait);
extern bool qml_writer_run(QmlWriter *writer, const pg_uuid_t *id, QmlChange change, void *arg);
extern bool qml_writer_try(QmlWriter *writer, const pg_uuid_t *id, QmlChange change, void *arg);

#endif
