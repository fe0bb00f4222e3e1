/*
 * reject.h
 *		Failing ready jobs that no worker can run.
 */
#ifndef QML_REJECT_H
#define QML_REJECT_H

#include "executor/tuptable.h"

#include "common/function_ref.h"

extern Oid qml_reject_role_of(TupleTableSlot *slot);
extern int qml_reject_jobs(Oid role, const QmlProblem *problem, int max);

#endif
