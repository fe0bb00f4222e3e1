/*
 * function_ref.h
 *		Functions of users, kept by name.
 */
#ifndef QML_FUNCTION_REF_H
#define QML_FUNCTION_REF_H

#include "access/htup.h"
#include "access/tupdesc.h"
#include "nodes/pg_list.h"

/* Four columns of a table name a function: schema, name, argument types, owner. */
typedef struct QmlFunctionName
{
	char *schema;
	char *name;
	List *types; /* of its arguments, strings */
	Oid owner;	 /* when it was registered */
} QmlFunctionName;

/* Why a function cannot be called, for an error or a view. */
typedef struct QmlProblem
{
	int sqlerrcode;
	char *message;
	char *detail; /* NULL: none */
} QmlProblem;

/* The number of these columns. */
#define QML_FUNCTION_COLUMNS 4

extern void qml_function_ref_read(HeapTuple tuple, TupleDesc desc, int first,
								  QmlFunctionName *name);
extern void qml_function_ref_values(Oid function, Datum *values);
extern Oid qml_function_ref_owner(Oid function);
extern Oid qml_function_ref_find(const QmlFunctionName *name);
extern Oid qml_function_ref_choose(const char *text, const char *word,
								   bool (*fits)(Oid function, void *arg), void *arg);
extern char *qml_function_ref_show(const QmlFunctionName *name);
extern bool qml_function_ref_trusted(const QmlFunctionName *name, Oid owner, Oid role);
extern bool qml_function_ref_superuser_allowed(Oid owner, Oid role);

#endif
