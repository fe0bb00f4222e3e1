/*
 * claim.h
 *		Giving out jobs to workers.
 */
#ifndef QML_CLAIM_H
#define QML_CLAIM_H

#include "jobs/claim_request.h"

extern int qml_claim_batch(const QmlClaim *claim, QmlMore *more);
extern bool qml_claim_is_ready(const QmlReadyJobs *kind);

#endif
