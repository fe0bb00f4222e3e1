/*
 * claim_filter.h
 *		Which ready jobs a worker outside the database gets.
 */
#ifndef QML_CLAIM_FILTER_H
#define QML_CLAIM_FILTER_H

#include "executor/tuptable.h"

#include "jobs/method_set.h"

typedef struct QmlClaimFilter
{
	const QmlMethodSet *methods; /* NULL: those that have no handler */
	uint64 key;					 /* the same for filters that pass over the same jobs; 0: none */
	bool left_to_handler;		 /* a job was passed over because its method has a handler */
} QmlClaimFilter;

extern void qml_claim_filter_init(QmlClaimFilter *filter, const QmlMethodSet *methods);
extern bool qml_claim_filter_passes_hash(uint64 method, void *filter);
extern bool qml_claim_filter_passes(QmlClaimFilter *filter, TupleTableSlot *slot);
extern void qml_claim_filter_tell(const QmlClaimFilter *filter);

#endif
