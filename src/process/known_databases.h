/*
 * known_databases.h
 *		The databases that the launcher knows, and what others see of them.
 */
#ifndef QML_KNOWN_DATABASES_H
#define QML_KNOWN_DATABASES_H

#include "nodes/pg_list.h"

#include "ipc/shmem.h"

/* What to start for a database. */
typedef enum QmlNext
{
	QML_NEXT_NOTHING = 0, /* until the launcher is called */
	QML_NEXT_LOOK,
	QML_NEXT_SCHEDULER
} QmlNext;

/* What the launcher knows of a database. */
typedef struct QmlKnownDatabase
{
	Oid oid;
	char name[NAMEDATALEN];
	bool listed; /* seen in pg_database in this round */
	Oid role;	 /* owner of the extension's tables */
	QmlNext next;
	int64 not_before; /* monotonic, milliseconds */
	int failures;	  /* in a row */
	bool running;	  /* its look or scheduler has a slot */
	bool called;	  /* since its process started */
	bool asked;		  /* perhaps it has the extension: to be looked at now and then */
	int64 started;	  /* monotonic */
	int64 ended;	  /* the same; since it was found, if there was no process yet */
	bool rested;	  /* its scheduler left for another one: it wants one when something is due */
	bool is_copy;	  /* that is not adopted */
	TimestampTz served_at;
	int64 time_left; /* in this round: until it wants a scheduler; PG_INT64_MAX: none, or soon */

	/* In shared memory, and what was last written there. */
	int entry;
	QmlDatabaseState shown_state;
	int shown_roles;
	TimestampTz shown_served_at;
} QmlKnownDatabase;

extern void qml_known_databases_init(void);
extern void qml_known_databases_forget(void);
extern void qml_known_databases_read_if_changed(void);
extern List *qml_known_databases_all(void);
extern QmlKnownDatabase *qml_known_databases_find(Oid oid);
extern QmlKnownDatabase *qml_known_databases_add(Oid oid);
extern bool qml_known_databases_wants_process(const QmlKnownDatabase *database);
extern int qml_known_databases_count_wanting(void);
extern void qml_known_databases_show(int64 now);
extern void qml_known_databases_hide(void);

#endif
