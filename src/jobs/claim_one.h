/*
 * claim_one.h
 *		Claiming one job by its id.
 */
#ifndef QML_CLAIM_ONE_H
#define QML_CLAIM_ONE_H

#include "model/job.h"

typedef struct QmlClaimOne
{
	Datum worker; /* text */
	Datum server; /* text, 0: none */
	bool fetches; /* it is a worker's: whoever explains why jobs wait must know */
	bool early;	  /* also one that is scheduled, or waits for its retry: it is made ready first */

	/* Raises an error if the caller must not have the job; NULL: everybody may who may work it. */
	void (*check)(const QmlJob *job);
} QmlClaimOne;

extern QmlJob *qml_claim_one(const pg_uuid_t *id, const QmlClaimOne *claim);
extern QmlJob *qml_claim_one_if_early(const pg_uuid_t *id, const QmlClaimOne *claim);

#endif
