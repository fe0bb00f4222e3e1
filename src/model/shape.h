/*
 * shape.h
 *		What was done to qml's tables by hand, and whether qml can still work with them.
 */
#ifndef QML_SHAPE_H
#define QML_SHAPE_H

#include "utils/rel.h"

#include "compat.h"

/*
 * Tables whose rows are read by the numbers of their columns, and partitions: of the history,
 * and of the ledger of ticks.
 */
typedef enum QmlShape
{
	QML_SHAPE_LIVE = 0,
	QML_SHAPE_HISTORY,
	QML_SHAPE_LEAF,
	QML_SHAPE_OVERFLOW,
	QML_SHAPE_RECURRING,
	QML_SHAPE_OCCURRENCE,
	QML_SHAPE_QUEUE,
	QML_SHAPE_HANDLER,
	QML_SHAPE_HOOK,
	QML_SHAPE_MIDDLEWARE,
	QML_SHAPE_ACL,
	QML_SHAPE_INSTANCE,
	QML_SHAPE_OTHER /* read and written by SQL alone */
} QmlShape;

/* Indexes that are searched without a plan. */
typedef enum QmlIndexShape
{
	QML_INDEX_LIVE_PKEY = 0,
	QML_INDEX_LIVE_READY,
	QML_INDEX_LIVE_DUE,
	QML_INDEX_LEAF_ID,
	QML_INDEX_RECURRING_DUE,
	QML_INDEX_OCCURRENCE,
	QML_INDEX_ACL_QUEUE,
	QML_INDEX_ACL_ALL
} QmlIndexShape;

/* Whether an open index of an open table is the one that is looked for. */
typedef bool (*QmlIndexFits)(Relation table, Relation index, const void *arg);

extern void qml_shape_check(Relation rel, QmlShape shape);
extern bool qml_shape_is_plain(Relation rel, Oid own_trigger, const Oid *labels);
extern void qml_shape_require_plain(Relation rel, Oid own_trigger, const Oid *labels);
extern bool qml_shape_index_fits(Relation index, QmlIndexShape shape);
extern Relation qml_shape_find_index(Relation table, QmlIndexFits fits, const void *arg, bool wait,
									 bool *locked);
extern Relation qml_shape_open_index(Relation table, QmlIndexShape shape, bool wait, bool *locked);
extern bool qml_shape_is_index(Oid table, Oid index, QmlIndexShape shape);
pg_noreturn extern void qml_shape_raise_index(Oid table, Oid index, QmlIndexShape shape);

#endif
