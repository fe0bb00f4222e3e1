/*
 * stats_notes.h
 *		What a transaction counts for the statistics of jobs.
 */
#ifndef QML_STATS_NOTES_H
#define QML_STATS_NOTES_H

#include "ipc/stats_store.h"

extern void qml_stats_notes_init(void);
extern bool qml_stats_notes_wanted(void);
extern void qml_stats_notes_count(Oid live, int queue, Datum method, int counter, int count);
extern void qml_stats_notes_time(Oid live, int queue, Datum method, int counter, bool ran,
								 int64 duration);
extern int qml_stats_notes_copy(QmlStatNote *copies, int most, uint64 *others);

#endif
