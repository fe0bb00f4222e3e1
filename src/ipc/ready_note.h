/*
 * ready_note.h
 *		What a transaction does to ready jobs, told to their lists when it ends.
 */
#ifndef QML_READY_NOTE_H
#define QML_READY_NOTE_H

#include "ipc/ready_list.h"

extern void qml_ready_note_init(void);
extern void qml_ready_note_reserve(int count);
extern void qml_ready_note_made(int queue, const QmlReadyEntry *entry);
extern void qml_ready_note_taking(int queue, const QmlReadyEntry *entry);
extern void qml_ready_note_taken(int queue, const QmlReadyEntry *entry);
extern void qml_ready_note_left(int queue, const QmlReadyEntry *entry);
extern QmlReadyAnswer qml_ready_note_take(int queue, const QmlReadyPart *part, QmlReadyEntry *taken,
										  int most);
extern bool qml_ready_note_take_one(int queue, QmlReadyEntry *entry);
extern void qml_ready_note_claimed(void);
extern void qml_ready_note_put_back(int queue, const QmlReadyEntry *entry);
extern void qml_ready_note_gone(int queue, const QmlReadyEntry *entry);
extern void qml_ready_note_sql(void);
extern bool qml_ready_note_is_unknown(void);
extern int qml_ready_note_next_queue(int after);
extern bool qml_ready_note_first_made(int queue, QmlReadyKey *key);
extern bool qml_ready_note_keep(QmlReadyKept *kept);
extern void qml_ready_note_tell_kept(const QmlReadyKept *kept, bool committed);

#endif
