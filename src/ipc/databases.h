/*
 * databases.h
 *		The databases of the server: which are served, and what is due in the others.
 */
#ifndef QML_DATABASES_H
#define QML_DATABASES_H

#include "ipc/shmem.h"

/* An entry as it was at one moment. */
typedef struct QmlDatabaseView
{
	Oid database;
	QmlDatabaseState state;
	char name[NAMEDATALEN];
	int waiting_roles;
	TimestampTz served_at; /* 0: never */
	TimestampTz due;	   /* QML_WAKE_NEVER: nothing that is known */
} QmlDatabaseView;

/* By the launcher; an entry is its number, or -1 if there was none left. */
extern void qml_databases_reset(void);
extern int qml_databases_add(Oid database, const char *name);
extern void qml_databases_remove(int entry);
extern void qml_databases_set(int entry, const char *name, QmlDatabaseState state,
							  int waiting_roles, TimestampTz served_at);
extern void qml_databases_set_limit(int processes, bool by_server);
extern void qml_databases_set_hidden(int count);
extern int qml_databases_most(void);
extern TimestampTz qml_databases_due(int entry);

/* By any session, of its own database, when it has no scheduler. */
extern void qml_databases_note_due(QmlWake kind, TimestampTz time);

/* By a scheduler, of its own database. */
extern TimestampTz qml_databases_take_due(QmlWake kind);
extern void qml_databases_keep_turn(const void *turn, Size size);
extern bool qml_databases_take_turn(void *turn, Size size);

/* How many of so many processes can be schedulers; all, if there can be no workers. */
static inline int
qml_databases_most_schedulers(int processes, bool workers)
{
	return workers ? processes - Max(Min(2, processes / 2), processes / 4) : processes;
}

/* In ipc. */
extern QmlDatabase *qml_databases_find_own(void);
extern void qml_databases_note_missed(QmlDatabase *entry);
extern bool qml_databases_is_there(QmlSlot *scheduler);
extern QmlPending *qml_databases_pending(QmlSlot *scheduler);

/* By all. */
extern int qml_databases_copy(QmlDatabaseView *views, int *limit, bool *by_server, int *hidden);

#endif
