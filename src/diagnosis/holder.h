/*
 * holder.h
 *		Whose transaction has the row of a job.
 */
#ifndef QML_HOLDER_H
#define QML_HOLDER_H

#include "executor/tuptable.h"
#include "lib/stringinfo.h"

/* Holders of one row that are told. */
#define QML_HOLDERS_MOST 5

/* Those of a row, or of several. */
typedef struct QmlHolders
{
	int count;
	TransactionId xids[QML_HOLDERS_MOST];
} QmlHolders;

extern bool qml_holder_note(QmlHolders *holders, TupleTableSlot *slot);
extern char *qml_holder_describe(const QmlHolders *holders, int *pid);

#endif
