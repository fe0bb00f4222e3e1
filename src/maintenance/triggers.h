/*
 * triggers.h
 *		The triggers by which qml learns of what SQL writes.
 */
#ifndef QML_TRIGGERS_H
#define QML_TRIGGERS_H

#include "nodes/pg_list.h"

/* One that does not tell of everything. */
typedef struct QmlSilentTrigger
{
	Oid table;
	const char *name;
	const char *table_name;
	bool is_missing; /* there is none of this name */
	char *create;	 /* the statement that makes it */
} QmlSilentTrigger;

extern List *qml_triggers_silent(void);
extern bool qml_triggers_tell_of_jobs(void);
extern void qml_triggers_mend(void);

#endif
