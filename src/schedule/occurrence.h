/*
 * occurrence.h
 *		The ledger of ticks: what became of each.
 */
#ifndef QML_OCCURRENCE_H
#define QML_OCCURRENCE_H

#include "common/table.h"
#include "model/catalog.h"
#include "schedule/misfire.h"

/* The ledger, open for writing; its partitions are opened as they are needed. */
typedef struct QmlOccurrences
{
	MemoryContext context; /* of what is opened later */
	TimestampTz now;
	bool available; /* nobody has locked the ledger as a whole */
	bool readable;	/* its partitions in use are locked for this transaction */
	QmlTable tables[QML_OCCURRENCE_PARTITIONS];
	bool open[QML_OCCURRENCE_PARTITIONS];
} QmlOccurrences;

extern void qml_occurrence_open(QmlOccurrences *occurrences, TimestampTz now);
extern void qml_occurrence_close(QmlOccurrences *occurrences);
extern bool qml_occurrence_try_read(QmlOccurrences *occurrences);
extern bool qml_occurrence_try_write(QmlOccurrences *occurrences, const QmlTimes *times);
extern TimestampTz qml_occurrence_last_fired(QmlOccurrences *occurrences, const char *recurring,
											 TimestampTz from);
extern bool qml_occurrence_has_fired(QmlOccurrences *occurrences, const char *recurring,
									 TimestampTz tick);
extern void qml_occurrence_record(QmlOccurrences *occurrences, const char *recurring,
								  const QmlTimes *times, const QmlTick *tick);
extern void qml_occurrence_forget(void);

#endif
