/*
 * pass_failures.h
 *		Jobs that a pass over rows left out because they could not be processed.
 */
#ifndef QML_PASS_FAILURES_H
#define QML_PASS_FAILURES_H

#include "executor/tuptable.h"

#include "common/subxact.h"

typedef struct QmlPassFailures
{
	MemoryContext context; /* of the first one; set before the pass */
	int count;
	QmlFailure first; /* without its hint */
	char *first_id;
	bool hidden; /* what it says may quote what is hidden in the job */
} QmlPassFailures;

extern void qml_pass_failures_note(QmlPassFailures *failures, TupleTableSlot *slot,
								   const QmlFailure *failure);
extern int qml_pass_failures_detail(const QmlPassFailures *failures, const char *before);

#endif
