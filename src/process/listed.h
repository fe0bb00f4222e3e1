/*
 * listed.h
 *		The names in qml.databases that lead to no database that can be worked in.
 */
#ifndef QML_LISTED_H
#define QML_LISTED_H

extern bool qml_listed_has_changed(void);
extern void qml_listed_start(void);
extern void qml_listed_note(const char *name, bool refused);
extern void qml_listed_end(void);
extern int qml_listed_count_hidden(void);

#endif
