/*
 * occurrence.h
 *		The ledger of ticks that have fired.
 */
#ifndef QML_OCCURRENCE_H
#define QML_OCCURRENCE_H

#include "utils/uuid.h"

#include "common/table.h"

/* The ledger, open for writing. */
typedef struct QmlOccurrences
{
	QmlTable table;
	Relation pkey; /* (occurrence, recurring) */
} QmlOccurrences;

extern void qml_occurrence_open(QmlOccurrences *occurrences);
extern void qml_occurrence_close(QmlOccurrences *occurrences);
extern bool qml_occurrence_find(QmlOccurrences *occurrences, const char *recurring,
								TimestampTz tick);
extern void qml_occurrence_record(QmlOccurrences *occurrences, const char *recurring,
								  TimestampTz tick, const pg_uuid_t *job);
extern void qml_occurrence_forget(void);

#endif
