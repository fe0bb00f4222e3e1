/*
 * signature.h
 *		What a handler takes, and how a payload is converted to its arguments.
 */
#ifndef QML_SIGNATURE_H
#define QML_SIGNATURE_H

#include "access/tupdesc.h"
#include "fmgr.h"

typedef enum QmlTakes
{
	QML_TAKES_PAYLOAD, /* one jsonb */
	QML_TAKES_JOB,	   /* one qml.job */
	QML_TAKES_ARGS	   /* named arguments, one for each key of the payload */
} QmlTakes;

/* An argument that gets its value from a key of the payload. */
typedef struct QmlArgument
{
	char *name;
	Oid type;
	int needs;	   /* of its conversion: see common/conversion.h */
	bool optional; /* has a default */
	bool builtin;  /* conversion to its type runs only the server's own code */
	Datum row;	   /* a row of this one column, null */
	TupleDesc desc;
	FmgrInfo convert;
} QmlArgument;

typedef struct QmlSignature
{
	Oid function;
	Oid owner;
	bool procedure;
	bool strict;
	Oid result; /* VOIDOID: none */
	int result_needs;
	QmlTakes takes;
	int check_needs; /* of the arguments that are checked at enqueue */
	int bind_needs;	 /* of all arguments */
	int nargs;
	QmlArgument *args;
} QmlSignature;

extern QmlSignature *qml_signature_load(Oid function, Oid job_type, char **reason);
extern void qml_signature_check(const QmlSignature *signature, Datum payload);
extern void qml_signature_bind(const QmlSignature *signature, Datum payload, Datum *values,
							   bool *nulls, bool *present);

#endif
