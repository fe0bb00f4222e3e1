/*
 * claim.h
 *		Giving out jobs.
 */
#ifndef QML_CLAIM_H
#define QML_CLAIM_H

#include "utils/timestamp.h"

typedef struct QmlClaim
{
	Datum worker;  /* text */
	Datum server;  /* text, 0: none */
	char **queues; /* NULL: all that the caller may work */
	int nqueues;
	int batch;
	int64 lease; /* microseconds; -1: as the queue says */
} QmlClaim;

extern int qml_claim_batch(const QmlClaim *claim, Datum *rows);

#endif
