/*
 * srf.h
 *		Set-returning functions that make all their rows in the first call.
 */
#ifndef QML_SRF_H
#define QML_SRF_H

#include "fmgr.h"

typedef struct QmlRows
{
	Datum *values;
	int count;
} QmlRows;

extern QmlRows *qml_srf_alloc(int most);
extern Datum qml_srf_return(FunctionCallInfo fcinfo, QmlRows *(*make)(FunctionCallInfo fcinfo));

#endif
