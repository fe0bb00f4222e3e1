/*
 * unlogged.h
 *		Lives of the unlogged tables: from one crash of the server to the next.
 */
#ifndef QML_MODEL_UNLOGGED_H
#define QML_MODEL_UNLOGGED_H

extern void qml_unlogged_begin(void);
extern void qml_unlogged_begin_anew(void);
extern int qml_unlogged_first_attempt(void);

#endif
