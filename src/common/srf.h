/*
 * srf.h
 *		Set-returning functions that make all their rows in the first call.
 */
#ifndef QML_SRF_H
#define QML_SRF_H

#include "access/tupdesc.h"
#include "fmgr.h"

/* The rows of one call: values of the function's return type. */
typedef struct QmlSrfRows
{
	Datum *values;
	int count;
} QmlSrfRows;

extern QmlSrfRows *qml_srf_alloc(int most);
extern TupleDesc qml_srf_expected(FunctionCallInfo fcinfo);
extern Datum qml_srf_return(FunctionCallInfo fcinfo, QmlSrfRows *(*make)(FunctionCallInfo fcinfo));

#endif
