/*
 * search_index.h
 *		Indexes by which jobs are sought: what is in them.
 */
#ifndef QML_SEARCH_INDEX_H
#define QML_SEARCH_INDEX_H

#include "executor/tuptable.h"
#include "utils/rel.h"

/* Kinds of them. */
typedef enum QmlSearchIndex
{
	QML_SEARCH_BY_NONE = 0, /* another index */
	QML_SEARCH_BY_KEY,		/* (key, order): all finished jobs */
	QML_SEARCH_BY_STATE,	/* (state, order, key) of finished jobs that did not succeed */
	QML_SEARCH_BY_OWN,		/* (order) of finished jobs with ids of their own */
	QML_SEARCH_BY_END,		/* (finished_at) of finished jobs that took long */
	QML_SEARCH_LIVE_BY_OWN, /* (order, queue) of unfinished jobs with ids of their own */
	QML_SEARCH_LIVE_LATER,	/* (queue_id, order) of those that are not ready */
	QML_SEARCH_LIVE_BY_KEY, /* (key, order) of all of them; only if somebody has made it */
	QML_SEARCH_INDEXES
} QmlSearchIndex;

extern void qml_search_index_init(void);
extern int64 qml_search_index_key(int queue_id, Datum method);
extern int64 qml_search_index_first_key(int queue_id);
extern int64 qml_search_index_last_key(int queue_id);
extern uint32 qml_search_index_method(Datum method);
extern Relation qml_search_index_open(Relation table, QmlSearchIndex kind);

#endif
