/*
 * catalog.h
 *		The oids of qml's own objects, and the columns of its tables.
 */
#ifndef QML_CATALOG_H
#define QML_CATALOG_H

#include "storage/lockdefs.h"

#include "qml.h"

/* Columns of qml.live and qml.history; the first ten are the same in both. */
enum
{
	LIVE_ID = 1,
	LIVE_CREATED_AT,
	LIVE_QUEUE_ID,
	LIVE_PRIORITY,
	LIVE_STATE,
	LIVE_ATTEMPT,
	LIVE_UNCOUNTED,
	LIVE_MAX_RETRIES,
	LIVE_TIMEOUT_MS,
	LIVE_CREATED_BY,
	LIVE_RUN_AT,
	LIVE_STARTED_AT,
	LIVE_LEASE_EXPIRES_AT,
	LIVE_WORKER,
	LIVE_SERVER,
	LIVE_METHOD,
	LIVE_JOB_TYPE,
	LIVE_METADATA,
	LIVE_PROGRESS,
	LIVE_ERRORS,
	LIVE_REASON,
	LIVE_PAYLOAD,
	LIVE_NATTS = LIVE_PAYLOAD
};

enum
{
	HISTORY_FINISHED_AT = LIVE_CREATED_BY + 1,
	HISTORY_EXPIRES_AT,
	HISTORY_STARTED_AT,
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
	HISTORY_NATTS = HISTORY_RESULT
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
	RECURRING_LAST_JOB,
	RECURRING_PRIORITY,
	RECURRING_MAX_RETRIES,
	RECURRING_TIMEOUT_MS,
	RECURRING_MISFIRE,
	RECURRING_CRON,
	RECURRING_TIMEZONE,
	RECURRING_QUEUE,
	RECURRING_METHOD,
	RECURRING_METADATA,
	RECURRING_ERROR,
	RECURRING_PAUSE_REASON,
	RECURRING_PAYLOAD,
	RECURRING_NATTS = RECURRING_PAYLOAD
};

enum
{
	OCCURRENCE_AT = 1,
	OCCURRENCE_RECURRING,
	OCCURRENCE_JOB,
	OCCURRENCE_NATTS = OCCURRENCE_JOB
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
	HANDLER_NATTS = HANDLER_OPTIONS
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
	HOOK_NATTS = HOOK_LAST_ERROR_AT
};

enum
{
	MIDDLEWARE_POSITION = CALLBACK_REGISTERED_AT + 1,
	MIDDLEWARE_NATTS = MIDDLEWARE_POSITION
};

typedef struct QmlCatalog
{
	Oid schema;			 /* qml */
	Oid function_schema; /* where qml_* functions are */
	Oid owner;			 /* of the tables */
	Oid live;
	Oid live_pkey;
	Oid live_ready;
	Oid live_due;
	Oid history;
	Oid queue;
	Oid handler;
	Oid hook;
	Oid middleware;
	Oid acl;
	Oid lock;
	Oid instance;
	Oid recurring;
	Oid recurring_due;
	Oid occurrence;
	Oid occurrence_pkey;
	Oid job_type; /* row type of the view qml.job */
	Oid state_type;
	Oid states[QML_STATES];
	bool adopted; /* false: a copy that must stay idle */
} QmlCatalog;

extern void qml_catalog_init(void);
extern const QmlCatalog *qml_catalog(void);
extern const QmlCatalog *qml_catalog_to_work(void);
extern QmlState qml_catalog_state(Oid label);
extern bool qml_catalog_try_lock(Oid class, uint32 object, uint16 sub, LOCKMODE mode);

#endif
