/*
 * handler.h
 *		Handlers: the functions that are registered for methods.
 */
#ifndef QML_HANDLER_H
#define QML_HANDLER_H

#include "common/function_ref.h"
#include "model/options.h"
#include "userfn/signature.h"

/* A row of qml.handler.  Pointers to it hold to the end of the transaction. */
typedef struct QmlHandler
{
	char *method;
	QmlFunctionName function;
	Oid run_as;
	Oid registered_by;
	QmlHandlerOptions options;
	const QmlSignature *signature; /* once resolved; NULL: see reason */
	char *reason;				   /* why it cannot be called, a sentence */
	MemoryContext resolution;	   /* of both; NULL: not resolved yet */
	uint64 resolved_at;			   /* how many changes of objects there had been */
	MemoryContext context;		   /* of the rest */
	HeapTuple row;				   /* as it was read */
	bool gone;					   /* not in the table any more, or changed */
} QmlHandler;

extern void qml_handler_init(void);
extern const QmlHandler *qml_handler_find(const char *method);
extern const QmlHandler *qml_handler_of(Datum method);
extern const QmlSignature *qml_handler_signature(const QmlHandler *handler);
extern void qml_handler_check(const QmlHandler *handler, Datum payload);
extern bool qml_handler_role_usable(Oid role, QmlProblem *problem);
extern bool qml_handler_usable(const QmlHandler *handler, QmlProblem *problem);
extern bool qml_handler_never_retries(const QmlHandler *handler, const char *error_type);

#endif
