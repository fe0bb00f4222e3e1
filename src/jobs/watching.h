/*
 * watching.h
 *		Sessions that watch what changes in their database.
 */
#ifndef QML_WATCHING_H
#define QML_WATCHING_H

extern void qml_watching_init(void);
extern void qml_watching_note_queue(const char *queue);
extern bool qml_watching_wait(const int64 *since, int64 timeout, int64 *version);

#endif
