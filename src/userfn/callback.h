/*
 * callback.h
 *		State hooks and middleware: functions of users that qml calls besides handlers.
 */
#ifndef QML_CALLBACK_H
#define QML_CALLBACK_H

#include "nodes/pg_list.h"

#include "common/function_ref.h"
#include "model/options.h"

typedef enum QmlCallbackKind
{
	QML_HOOK = 0,
	QML_MIDDLEWARE
} QmlCallbackKind;

#define QML_CALLBACK_KINDS 2

/* A row of the table of its kind.  Pointers to it are valid until the transaction ends. */
typedef struct QmlCallback
{
	QmlCallbackKind kind;
	char *name;
	QmlFunctionName function;
	Oid role; /* that it runs as: the one that registered it */

	int position; /* of a middleware */

	int states;	 /* of a hook: a bit for each state that it is called for */
	bool broken; /* disabled after too many errors */
	int errors;	 /* in a row */
	QmlHookOptions options;
	struct QmlHandler *handler; /* of an after-commit hook; NULL: not made yet */
} QmlCallback;

extern void qml_callback_init(void);
extern Oid qml_callback_table(QmlCallbackKind kind);
extern List *qml_callback_all(QmlCallbackKind kind);
extern const QmlCallback *qml_callback_find(QmlCallbackKind kind, const char *name);
extern const char *qml_callback_word(QmlCallbackKind kind);
extern char *qml_callback_refuse(QmlCallbackKind kind, bool after_commit, Oid function);
extern bool qml_callback_is_owners(Oid role);
extern char *qml_callback_stranger(Oid function);
extern bool qml_callback_is_allowed(const QmlCallback *callback, Oid session_role);
extern char *qml_callback_lost_right(const QmlCallback *callback);
extern char *qml_callback_problem(const QmlCallback *callback);
extern Oid qml_callback_resolve(const QmlCallback *callback, QmlProblem *problem);

#endif
