/*
 * after_commit.h
 *		Jobs that call hooks after the commit of the transitions they are called for.
 */
#ifndef QML_AFTER_COMMIT_H
#define QML_AFTER_COMMIT_H

#include "common/table.h"
#include "model/job.h"

/* The transitions of one operation, for which jobs have yet to be made. */
typedef struct QmlAfterCommit
{
	List *transitions;
	List *failed; /* jobs of hooks that have failed for good */
	Size noted;	  /* bytes in transitions */
	MemoryContext context;
} QmlAfterCommit;

extern void qml_after_commit_start(QmlAfterCommit *calls);
extern void qml_after_commit_note(QmlAfterCommit *calls, const QmlJob *job, bool is_new);
extern bool qml_after_commit_is_full(const QmlAfterCommit *calls);
extern void qml_after_commit_write(QmlAfterCommit *calls, QmlTable *live);
extern void qml_after_commit_record(QmlAfterCommit *calls);
extern void qml_after_commit_tell_alert(Datum told, const char *queue);
extern void qml_after_commit_make_queue(void);
extern uint64 qml_after_commit_forget(void);

#endif
