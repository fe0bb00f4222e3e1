/*
 * search_demand.h
 *		What a query demands of every job.
 */
#ifndef QML_SEARCH_DEMAND_H
#define QML_SEARCH_DEMAND_H

#include "core/state.h"
#include "jobs/search_request.h"

#define QML_STATE_BIT(state) (1 << (state))
#define QML_ALL_STATES		 ((1 << QML_STATES) - 1)
#define QML_READY_STATES	 (QML_STATE_BIT(QML_ENQUEUED) | QML_STATE_BIT(QML_PROCESSING))
#define QML_LATER_STATES                                                \
	(QML_STATE_BIT(QML_SCHEDULED) | QML_STATE_BIT(QML_AWAITING_RETRY) | \
	 QML_STATE_BIT(QML_AWAITING_PARENTS))
#define QML_LIVE_STATES (QML_READY_STATES | QML_LATER_STATES)

typedef struct QmlSearchDemand
{
	int states; /* bits */
	bool has_ids;
	int nids;
	const pg_uuid_t **ids;
	bool has_queues;
	int nqueues;
	int *queues;
	int nmethods; /* 0: any */
	uint32 *methods;
	bool has_end; /* it is finished, and */
	TimestampTz first_end;
	TimestampTz last_end;
	TimestampTz first_created;
	TimestampTz last_created;
} QmlSearchDemand;

extern int qml_search_demand_states(const QmlSearch *search);
extern void qml_search_demand_read(QmlSearchDemand *demand, const QmlSearch *search);
extern bool qml_search_demand_is_impossible(const QmlSearchDemand *demand);

#endif
