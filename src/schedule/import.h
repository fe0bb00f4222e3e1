/*
 * import.h
 *		Making schedules of the jobs of pg_cron.
 */
#ifndef QML_IMPORT_H
#define QML_IMPORT_H

#include "nodes/pg_list.h"

/* A job of pg_cron, and what became of it. */
typedef struct QmlImport
{
	int64 jobid;
	char *jobname;	/* NULL: it has none */
	char *schedule; /* the id of its schedule; NULL: it was not imported */
	char *problem;	/* why not, or what is to be known of its schedule; NULL: nothing */
} QmlImport;

extern List *qml_import_jobs(void);

#endif
