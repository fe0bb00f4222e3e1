/*
 * claim_search.h
 *		Claiming the ready jobs of a queue by the index.
 */
#ifndef QML_CLAIM_SEARCH_H
#define QML_CLAIM_SEARCH_H

#include "jobs/claim_state.h"

extern void qml_claim_search(QmlClaimState *state, const QmlQueue *queue, const QmlReadyKey *from);
extern void qml_claim_search_from(QmlClaimState *state, const QmlQueue *queue,
								  const QmlReadyKey *key, bool with_key);

#endif
