/*
 * callback.h
 *		Functions of users that qml calls besides handlers: state hooks, middleware.
 */
#ifndef QML_CALLBACK_H
#define QML_CALLBACK_H

#include "fmgr.h"
#include "nodes/pg_list.h"

#include "common/function_ref.h"

typedef enum QmlCallbackKind
{
	QML_HOOK = 0,
	QML_MIDDLEWARE
} QmlCallbackKind;

#define QML_CALLBACK_KINDS 2

/* Arguments that one can have at most. */
#define QML_CALLBACK_ARGS 3

/* A row of qml.hook or qml.middleware.  Holds to the end of the transaction. */
typedef struct QmlCallback
{
	QmlCallbackKind kind;
	char *name;
	QmlFunctionName function;
	Oid role; /* that it runs as */

	int position; /* of a middleware */

	int states;	 /* of a hook: a bit for each state that it wants to know of */
	bool broken; /* switched off */
	int errors;	 /* in a row */
} QmlCallback;

/* One that can be called. */
typedef struct QmlCallable
{
	const QmlCallback *callback;
	FmgrInfo function;
} QmlCallable;

extern void qml_callback_init(void);
extern List *qml_callback_all(QmlCallbackKind kind);
extern const QmlCallback *qml_callback_find(QmlCallbackKind kind, const char *name);
extern const char *qml_callback_word(QmlCallbackKind kind);
extern char *qml_callback_refuse(QmlCallbackKind kind, Oid function);
extern bool qml_callback_usable(const QmlCallback *callback, QmlProblem *problem);
extern void qml_callback_prepare(const QmlCallback *callback, QmlCallable *callable);
extern Datum qml_callback_call(QmlCallable *callable, const NullableDatum *args, bool *isnull);

#endif
