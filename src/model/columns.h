/*
 * columns.h
 *		The columns of qml's tables that the library knows, and what becomes of others.
 */
#ifndef QML_COLUMNS_H
#define QML_COLUMNS_H

#include "executor/tuptable.h"
#include "utils/rel.h"

/*
 * Columns that the library knows.  Those up to ..._NUMBERED came with version 1.0, and have
 * these numbers in all tables.  Those that came later may have others, or not be there:
 * qml_columns_number() says which.  A table may have more: see columns.c.
 */

/* Columns of qml.live and qml.history; the first ten are the same in both, and so are the numbers
 * of some that follow. */
enum
{
	LIVE_ID = 1,
	LIVE_CREATED_AT,
	LIVE_QUEUE_ID,
	LIVE_PRIORITY,
	LIVE_MAX_RETRIES,
	LIVE_LINEAGE,
	LIVE_CREATED_BY,
	LIVE_STATE,
	LIVE_ATTEMPT,
	LIVE_READY_AT,
	LIVE_RUN_AT,
	LIVE_STARTED_AT,
	LIVE_LEASE_EXPIRES_AT,
	LIVE_TIMEOUT_MS,
	LIVE_UNCOUNTED,
	LIVE_WORKER,
	LIVE_SERVER,
	LIVE_METHOD,
	LIVE_JOB_TYPE,
	LIVE_METADATA,
	LIVE_PROGRESS,
	LIVE_ERRORS,
	LIVE_REASON,
	LIVE_PAYLOAD,
#ifdef QML_NEXT
	LIVE_NOTE,
#endif
	LIVE_END,
	LIVE_NATTS = LIVE_END - 1,
	LIVE_NUMBERED = LIVE_PAYLOAD
};

enum
{
	HISTORY_FINISHED_AT = LIVE_READY_AT + 1,
	HISTORY_EXPIRES_AT,
	HISTORY_STARTED_AT,
	HISTORY_TIMEOUT_MS,
	HISTORY_UNCOUNTED,
	HISTORY_WORKER,
	HISTORY_SERVER,
	HISTORY_METHOD,
	HISTORY_JOB_TYPE,
	HISTORY_METADATA,
	HISTORY_PROGRESS,
	HISTORY_ERRORS,
	HISTORY_REASON,
	HISTORY_PAYLOAD,
	HISTORY_RESULT,
#ifdef QML_NEXT
	HISTORY_NOTE,
#endif
	HISTORY_END,
	HISTORY_NATTS = HISTORY_END - 1,
	HISTORY_NUMBERED = HISTORY_RESULT
};

/* The columns of the view qml.job, counted from 0. */
enum
{
	JOB_ID,
	JOB_QUEUE,
	JOB_METHOD,
	JOB_PAYLOAD,
	JOB_STATE,
	JOB_PRIORITY,
	JOB_ATTEMPT,
	JOB_TRIES,
	JOB_MAX_RETRIES,
	JOB_RETRIES_LEFT,
	JOB_RUN_AT,
	JOB_CREATED_AT,
	JOB_READY_AT,
	JOB_STARTED_AT,
	JOB_FINISHED_AT,
	JOB_EXPIRES_AT,
	JOB_LEASE_EXPIRES_AT,
	JOB_WORKER,
	JOB_SERVER,
	JOB_TIMEOUT,
	JOB_RESULT,
	JOB_PROGRESS,
	JOB_ERROR,
	JOB_ERRORS,
	JOB_METADATA,
	JOB_JOB_TYPE,
	JOB_REASON,
	JOB_CREATED_BY,
#ifdef QML_NEXT
	JOB_NOTE,
#endif
	JOB_NATTS,
	JOB_NUMBERED = JOB_CREATED_BY + 1
};

/* Columns of qml.recurring_data and qml.occurrence_data. */
enum
{
	RECURRING_ID = 1,
	RECURRING_CREATED_AT,
	RECURRING_UPDATED_AT,
	RECURRING_CREATED_BY,
	RECURRING_ENABLED,
	RECURRING_NEXT_RUN_AT,
	RECURRING_LAST_RUN_AT,
	RECURRING_FIRED_THROUGH,
	RECURRING_ANCHOR,
	RECURRING_LAST_JOB,
	RECURRING_PRIORITY,
	RECURRING_MAX_RETRIES,
	RECURRING_TIMEOUT_MS,
	RECURRING_MISFIRE,
	RECURRING_OVERLAP,
	RECURRING_CRON,
	RECURRING_TIMEZONE,
	RECURRING_QUEUE,
	RECURRING_METHOD,
	RECURRING_JOB_TYPE,
	RECURRING_METADATA,
	RECURRING_ERROR,
	RECURRING_PAUSED_AT,
	RECURRING_PAUSED_BY,
	RECURRING_PAUSE_REASON,
	RECURRING_OPEN_JOBS,
	RECURRING_IMPORTED,
	RECURRING_PAYLOAD,
	RECURRING_NATTS = RECURRING_PAYLOAD
};

enum
{
	OCCURRENCE_AT = 1,
	OCCURRENCE_RECURRING,
	OCCURRENCE_JOB,
	OCCURRENCE_FIRED_AT,
	OCCURRENCE_PARTITION,
	OCCURRENCE_OUTCOME,
	OCCURRENCE_THROUGH,
	OCCURRENCE_NATTS = OCCURRENCE_THROUGH,
	OCCURRENCE_NUMBERED = OCCURRENCE_THROUGH
};

/* Columns of qml.queue_data, as far as they are read here. */
enum
{
	QUEUE_ID = 1,
	QUEUE_NAME,
	QUEUE_PAUSED,
	QUEUE_DROPPED,
	QUEUE_OPTIONS
};

/* Columns of qml.acl_data, as far as they are read here. */
enum
{
	ACL_GRANTEE = 1,
	ACL_CAPABILITY,
	ACL_QUEUE
};

/* Columns of qml.instance_data. */
enum
{
	INSTANCE_SYSTEM_IDENTIFIER = 1,
	INSTANCE_DATABASE
};

/* Columns of qml.handler_data. */
enum
{
	HANDLER_METHOD = 1,
	HANDLER_SCHEMA,
	HANDLER_NAME,
	HANDLER_ARGUMENT_TYPES,
	HANDLER_OWNER,
	HANDLER_RUN_AS,
	HANDLER_REGISTERED_BY,
	HANDLER_REGISTERED_AT,
	HANDLER_OPTIONS,
	HANDLER_COMMAND,
	HANDLER_NATTS = HANDLER_COMMAND
};

/* Columns of qml.hook_data and qml.middleware_data; the first seven are the same in both. */
enum
{
	CALLBACK_NAME = 1,
	CALLBACK_SCHEMA,
	CALLBACK_FUNCTION,
	CALLBACK_ARGUMENT_TYPES,
	CALLBACK_OWNER,
	CALLBACK_RUN_AS,
	CALLBACK_REGISTERED_AT
};

enum
{
	HOOK_STATES = CALLBACK_REGISTERED_AT + 1,
	HOOK_ERRORS,
	HOOK_BROKEN,
	HOOK_LAST_ERROR,
	HOOK_LAST_ERROR_AT,
	HOOK_OPTIONS,
	HOOK_NATTS = HOOK_OPTIONS
};

enum
{
	MIDDLEWARE_POSITION = CALLBACK_REGISTERED_AT + 1,
	MIDDLEWARE_NATTS = MIDDLEWARE_POSITION
};

/* Tables, and the view qml.job, whose row type is that of a job. */
typedef enum QmlKnownTable
{
	QML_TABLE_LIVE = 0,
	QML_TABLE_HISTORY,
	QML_TABLE_RECURRING,
	QML_TABLE_OCCURRENCE,
	QML_TABLE_QUEUE,
	QML_TABLE_HANDLER,
	QML_TABLE_HOOK,
	QML_TABLE_MIDDLEWARE,
	QML_TABLE_ACL,
	QML_TABLE_LOCK,
	QML_TABLE_INSTANCE,
	QML_TABLE_SERVER,
	QML_VIEW_JOB
} QmlKnownTable;

extern void qml_columns_begin(int minor, Oid state);
extern void qml_columns_check(QmlKnownTable table, Oid relid);
extern void qml_columns_check_open(QmlKnownTable table, Relation rel);
extern void qml_columns_check_leaf(Relation leaf);
extern const char *qml_columns_hint(void);
extern int qml_columns_number(QmlKnownTable table, TupleDesc desc, int known);
extern void qml_columns_copy(TupleTableSlot *row, int numbered, TupleTableSlot *source);
extern void qml_columns_fill_others(QmlKnownTable table, TupleTableSlot *row, int numbered,
									TupleTableSlot *source);

/*
 * Fills the columns of a row to be written that this library does not know: as they are in
 * the row that it was read as, else with their defaults.
 * numbered: the columns of version 1.0, which are filled.
 * source: that row, of this table or of another one; NULL: it is new.
 */
static inline void
qml_columns_fill_unknown(QmlKnownTable table, TupleTableSlot *row, int numbered,
						 TupleTableSlot *source)
{
	if (row->tts_tupleDescriptor->natts > numbered)
		qml_columns_fill_others(table, row, numbered, source);
}

#endif
