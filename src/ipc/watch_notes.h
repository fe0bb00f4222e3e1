/*
 * watch_notes.h
 *		What a transaction changes, for sessions that watch the database.
 */
#ifndef QML_WATCH_NOTES_H
#define QML_WATCH_NOTES_H

extern void qml_watch_notes_init(void);
extern void qml_watch_note_queue(int queue);
extern void qml_watch_note_unknown_queue(void);
extern void qml_watch_note_common(void);
extern void qml_watch_note_rights(void);
extern void qml_watch_note_everything(void);
extern bool qml_watch_notes_exist(void);

#endif
