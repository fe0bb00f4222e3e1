/*
 * purge.h
 *		Deleting all jobs of a queue that wait.
 */
#ifndef QML_PURGE_H
#define QML_PURGE_H

extern int64 qml_purge_queue_jobs(const char *name, Datum reason, bool missing_ok);

#endif
