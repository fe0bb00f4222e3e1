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

typedef struct QmlCatalog
{
	int sql_minor;		 /* minor version of the SQL objects */
	Oid schema;			 /* qml */
	Oid function_schema; /* where qml_* functions are */
	Oid owner;			 /* of the tables */
	Oid live;
	Oid live_pkey;
	Oid live_ready;
	Oid live_due;
	Oid live_trigger;					/* qml.note_sql() */
	TransactionId live_trigger_version; /* 0: it does not tell of all SQL */
	Oid history;
	Oid overflow; /* qml.history_overflow */
	Oid queue;
	Oid handler;
	Oid hook;
	Oid middleware;
	Oid acl;
	Oid capability_mark; /* see model/role_mark.c */
	Oid registration_mark;
	Oid lock;
	Oid instance;
	Oid recurring;
	Oid recurring_due;
	Oid occurrence; /* and its partitions: see schedule/occurrence.c */
	Oid occurrences[QML_OCCURRENCE_PARTITIONS];
	Oid server;
	Oid job;	  /* the view qml.job */
	Oid job_type; /* its row type */
	Oid state_type;
	Oid states[QML_STATES];
	bool adopted;		   /* false: a copy that must stay idle */
	bool history_is_plain; /* nothing was added to qml.history: see model/shape.c */
	bool occurrences_checked[QML_OCCURRENCE_PARTITIONS];
} QmlCatalog;

extern void qml_catalog_init(void);
extern const QmlCatalog *qml_catalog(void);
extern const QmlCatalog *qml_catalog_to_work(void);
extern QmlState qml_catalog_state(Oid label);
extern void qml_catalog_require_library(const char *version);
extern QmlState qml_catalog_state_or_none(Oid label);
extern bool qml_catalog_try_lock(Oid class, uint32 object, uint16 sub, LOCKMODE mode);

#endif
