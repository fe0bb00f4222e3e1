/*
 * callback_call.h
 *		Calls a state hook or a middleware in somebody else's session.
 */
#ifndef QML_CALLBACK_CALL_H
#define QML_CALLBACK_CALL_H

#include "fmgr.h"

#include "userfn/callback.h"

/* Arguments that one can have at most. */
#define QML_CALLBACK_ARGS 3

/* A callback that can be called in this transaction. */
typedef struct QmlCallable
{
	const QmlCallback *callback;
	FmgrInfo function;
} QmlCallable;

extern void qml_callback_call_prepare(const QmlCallback *callback, QmlCallable *callable);
extern Datum qml_callback_call_run(QmlCallable *callable, const NullableDatum *args, bool *isnull);

#endif
