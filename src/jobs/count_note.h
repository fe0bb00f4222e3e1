/*
 * count_note.h
 *		What a changed job does to the numbers of jobs, noted for the end of the transaction.
 */
#ifndef QML_COUNT_NOTE_H
#define QML_COUNT_NOTE_H

#include "ipc/counter_notes.h"
#include "model/job.h"

extern void qml_count_note(int queue, int count, int from, TimestampTz from_expires, int to,
						   TimestampTz to_expires);
extern void qml_count_note_job(const QmlJob *job, int from, TimestampTz from_expires, int to,
							   TimestampTz to_expires);

#endif
