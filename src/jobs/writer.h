/*
 * writer.h
 *		Writing changed jobs back into their tables.
 */
#ifndef QML_WRITER_H
#define QML_WRITER_H

#include "access/genam.h"

#include "common/table.h"
#include "jobs/after_commit.h"
#include "model/catalog.h"
#include "model/job.h"
#include "userfn/handler.h"
#include "userfn/hook.h"

/* The tables of one storage class. */
typedef struct QmlWriterTables
{
	bool is_open;
	QmlTable live;
	Relation pkey;			  /* of live; NULL: not open yet */
	IndexScanDesc by_id;	  /* over pkey; NULL: not begun yet */
	bool leaf_open;			  /* the partition that finished jobs go to: */
	Oid leaf_oid;			  /* - which one */
	QmlTable leaf;			  /* - open */
	TupleTableSlot **pending; /* rows for leaf; the slots are used again */
	int npending;			  /* of them hold a row */
	bool pending_lazy;		  /* a commit need not wait for any of these */
	int nslots;				  /* are made */
} QmlWriterTables;

/*
 * The changes of one call.  All of it belongs to the call; nothing is shared.  It works on the
 * tables of one storage class at a time, those of logged queues at first: see qml_writer_turn().
 */
typedef struct QmlWriter
{
	QmlStoreId store;
	QmlTable *live; /* of that store: the unfinished jobs */
	QmlWriterTables tables[QML_STORES];
	MemoryContext context;		 /* what is opened later lives there too */
	LOCKMODE lockmode;			 /* of live */
	Snapshot snapshot;			 /* what reads see; NULL: not taken yet */
	bool batch;					 /* rows for the history are gathered and written together */
	Size room;					 /* in its page, for the new version of a row */
	bool latest;				 /* judge the newest version of a job in any isolation level */
	bool unwatched;				 /* who watches need not be told of what stays in its state */
	bool is_taken;				 /* the list of ready jobs knows that live->slot's is taken */
	QmlHookCalls transitions;	 /* hooks run for them when the writer is closed */
	QmlAfterCommit after_commit; /* jobs that call hooks are made for them then */
} QmlWriter;

/* Changes a job; false: leave it as it is.  Called again when somebody was faster. */
typedef bool (*QmlChange)(QmlJob *job, void *arg);

/* What became of a change that does not wait. */
typedef enum QmlChanged
{
	QML_NO_SUCH_JOB = 0,
	QML_CHANGED, /* or left as it is, as the caller wanted */
	QML_HELD,	 /* another transaction has the row */
	QML_UNSEEN	 /* not in qml.live; part of the history is locked */
} QmlChanged;

extern void qml_writer_open(QmlWriter *writer, bool batch, bool catch_hook_errors);
extern void qml_writer_expect_ends(QmlWriter *writer);
extern void qml_writer_close(QmlWriter *writer);
extern void qml_writer_open_to_read(QmlWriter *writer);
extern void qml_writer_close_after_read(QmlWriter *writer);
extern void qml_writer_turn(QmlWriter *writer, QmlStoreId store);
extern Snapshot qml_writer_snapshot(QmlWriter *writer);
extern Snapshot qml_writer_new_snapshot(QmlWriter *writer);
extern void qml_writer_insert(QmlWriter *writer, const QmlJob *job, const QmlHandler *handler,
							  bool is_new);
extern bool qml_writer_try_insert(QmlWriter *writer, const QmlJob *job);
extern void qml_writer_take_back(QmlWriter *writer);
extern void qml_writer_note_new(QmlWriter *writer, const QmlJob *job, const QmlHandler *handler);
extern void qml_writer_insert_new(QmlWriter *writer, const QmlJob *jobs, const QmlHandler *handler,
								  TupleTableSlot **rows, int count);
extern void qml_writer_note_free(QmlWriter *writer);
extern TM_Result qml_writer_put(QmlWriter *writer, const QmlJob *job, bool wait);
extern TM_Result qml_writer_put_finished(QmlWriter *writer, QmlTable *leaf, const QmlJob *job,
										 bool wait);
extern bool qml_writer_change(QmlWriter *writer, const pg_uuid_t *id, QmlChange change, void *arg);
extern QmlChanged qml_writer_change_unless_held(QmlWriter *writer, const pg_uuid_t *id,
												QmlChange change, void *arg);
extern bool qml_writer_try_change(QmlWriter *writer, const pg_uuid_t *id, QmlChange change,
								  void *arg);

#endif
