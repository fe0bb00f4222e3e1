/*
 * holder.h
 *		Whose transaction has the row of a job.
 */
#ifndef QML_HOLDER_H
#define QML_HOLDER_H

#include "executor/tuptable.h"
#include "nodes/pg_list.h"

/* Holders of one row that are told. */
#define QML_HOLDERS_MOST 5

/* Those of a row, or of several. */
typedef struct QmlHolders
{
	int count;
	bool more; /* there are others */
	TransactionId xids[QML_HOLDERS_MOST];
} QmlHolders;

/* Those that one statement ends. */
typedef struct QmlHolderGroup
{
	char *who;	  /* for a sentence */
	char *remedy; /* NULL: none is known */
} QmlHolderGroup;

extern bool qml_holder_note(QmlHolders *holders, TupleTableSlot *slot);
extern List *qml_holder_groups(const QmlHolders *holders);

#endif
