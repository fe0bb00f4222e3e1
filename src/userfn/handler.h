/*
 * handler.h
 *		Handlers: the functions and commands that run the jobs of a method.
 */
#ifndef QML_HANDLER_H
#define QML_HANDLER_H

#include "common/function_ref.h"
#include "model/options.h"
#include "userfn/signature.h"

/* A row of the table of handlers.  Pointers to it are valid until the transaction ends. */
typedef struct QmlHandler
{
	char *method;
	char *command; /* the text of a statement; NULL: it is a function */
	QmlFunctionName function;
	Oid run_as;
	Oid registered_by;
	QmlHandlerOptions options;
	const QmlSignature *signature; /* once resolved; NULL: it cannot be called */
	char *reason;				   /* why not, a sentence */
	MemoryContext resolution;	   /* holds both; NULL: not resolved yet */
	uint64 resolved_at;			   /* value of object_changes at that time */
	MemoryContext context;		   /* holds the rest */
	HeapTuple row;				   /* as it was read */
	bool gone;					   /* no longer in the table, or replaced */
	uint64 read_at;				   /* see common/cache.h */
	bool is_hook;				   /* not in the table: calls an after-commit hook of this name */
} QmlHandler;

extern void qml_handler_init(void);
extern bool qml_handler_exist(void);
extern bool qml_handler_exist_for(Oid role);
extern List *qml_handler_all(void);
extern uint64 qml_handler_generation(void);
extern void qml_handler_know_hashes(Oid role);
extern bool qml_handler_has_hash(uint64 hash);
extern bool qml_handler_runs_hash(uint64 hash);
extern const QmlHandler *qml_handler_find(const char *method);
extern const QmlHandler *qml_handler_of(Datum method);
extern QmlHandler *qml_handler_make(const char *name, const QmlFunctionName *function, Oid role);
extern void qml_handler_retire(QmlHandler *handler);
extern const QmlSignature *qml_handler_signature(const QmlHandler *handler);
extern void qml_handler_check(const QmlHandler *handler, Datum payload);
extern bool qml_handler_ignores(const QmlHandler *handler, Datum payload);
extern bool qml_handler_role_usable(Oid role, QmlProblem *problem);
extern bool qml_handler_is_revoked(const QmlHandler *handler);
extern Oid qml_handler_role(const QmlHandler *handler);
extern bool qml_handler_usable(const QmlHandler *handler, QmlProblem *problem);
extern bool qml_handler_never_retries(const QmlHandler *handler, const char *error_type);

#endif
