/*
 * catalog.h
 *		The oids of qml's own objects.
 */
#ifndef QML_CATALOG_H
#define QML_CATALOG_H

#include "storage/lockdefs.h"

#include "model/columns.h"
#include "qml.h"

/* The tables of model/role_mark.c: DROP ROLE shows these names to people. */
#define QML_CAPABILITY_MARK	  "capabilities_see_qml_drop_role_objects"
#define QML_REGISTRATION_MARK "registrations_see_qml_drop_role_objects"

/* Partitions of the ledger of ticks. */
#define QML_OCCURRENCE_PARTITIONS 10

/* Where jobs are stored: by the storage class of their queue. */
typedef enum QmlStoreId
{
	QML_STORE_LOGGED = 0,
	QML_STORE_UNLOGGED,
	QML_STORES
} QmlStoreId;

/* The tables of one of these. */
typedef struct QmlStore
{
	Oid live;
	Oid live_pkey;
	Oid live_ready;
	Oid live_due;
	TransactionId live_trigger_version; /* 0: it does not tell of all SQL */
	Oid history;
	Oid overflow;		   /* jobs that have finished and are in no partition */
	const char *names;	   /* of the history, as those of its partitions begin */
	bool history_is_plain; /* nothing was added to the history: see model/shape.c */
} QmlStore;

/* What is known of lives (model/life.c); 0: nothing. */
typedef struct QmlKnownLives
{
	int unlogged; /* that of the unlogged tables; 0: they are empty */
	int async;
	int given; /* this number was given, or will not be */
} QmlKnownLives;

typedef struct QmlCatalog
{
	int sql_minor;		 /* minor version of the SQL objects */
	Oid schema;			 /* qml */
	Oid function_schema; /* where qml_* functions are */
	Oid owner;			 /* of the tables */
	QmlStore stores[QML_STORES];
	Oid live_trigger; /* qml.note_sql() */
	Oid search_order; /* functions of model/search_index.c; InvalidOid: there is none */
	Oid search_key;
	Oid search_own;
	Oid search_slow;
	Oid lives; /* sequences: see model/life.c */
	Oid unlogged_life;
	Oid async_life;
	Oid queue;
	Oid handler;
	Oid hook;
	Oid middleware;
	Oid acl;
	Oid capability_mark; /* see model/role_mark.c */
	Oid registration_mark;
	Oid lock;
	Oid instance;
	Oid pause;
	Oid recurring;
	Oid recurring_due;
	Oid occurrence; /* and its partitions: see schedule/occurrence.c */
	Oid occurrences[QML_OCCURRENCE_PARTITIONS];
	Oid server;
	Oid job;	  /* the view qml.job */
	Oid job_type; /* its row type */
	Oid state_type;
	Oid states[QML_STATES];
	bool adopted; /* false: a copy that must stay idle */
	bool paused;  /* no job of any queue is given out */
	bool occurrences_checked[QML_OCCURRENCE_PARTITIONS];
} QmlCatalog;

extern void qml_catalog_init(void);
extern const QmlCatalog *qml_catalog(void);
extern const QmlCatalog *qml_catalog_to_work(void);
extern const QmlStore *qml_store(QmlStoreId store);
extern int qml_stores_in_use(void);
extern QmlKnownLives *qml_catalog_known_lives(void);
extern QmlState qml_catalog_state(Oid label);
extern void qml_catalog_require_library(const char *version);
extern QmlState qml_catalog_state_or_none(Oid label);
extern Oid qml_catalog_trigger_function(const char *name);
extern bool qml_catalog_try_lock(Oid class, uint32 object, uint16 sub, LOCKMODE mode);

#endif
