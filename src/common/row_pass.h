/*
 * row_pass.h
 *		Passes over rows, some of which may be broken.
 */
#ifndef QML_ROW_PASS_H
#define QML_ROW_PASS_H

#include "executor/tuptable.h"
#include "storage/itemptr.h"

#include "common/subxact.h"

typedef struct QmlRowPass
{
	/*
	 * Reads the rows and calls qml_row_pass_visit() for each that is to be changed.
	 * It may be called twice, and starts from nothing each time.
	 */
	void (*walk)(void *arg);

	/* Changes the row that the walk has just read.  False: it was left alone. */
	bool (*change)(void *arg);

	/*
	 * The same for the row at tid, in a subtransaction: with tables and a snapshot
	 * that it opens and closes itself.
	 */
	bool (*change_alone)(void *arg, ItemPointer tid);

	/* Told of each row that failed.  failure lasts until it returns. */
	void (*failed)(void *arg, TupleTableSlot *slot, const QmlFailure *failure);

	void *arg;

	/* Written by row_pass.c. */
	bool row_by_row;		   /* this is the second walk */
	MemoryContext row_context; /* of one visit */
} QmlRowPass;

extern void qml_row_pass_run(QmlRowPass *pass);
extern bool qml_row_pass_visit(QmlRowPass *pass, TupleTableSlot *slot);

#endif
