/*
 * unlogged.h
 *		Lives of the unlogged tables: from one crash of the server to the next.
 */
#ifndef QML_MODEL_UNLOGGED_H
#define QML_MODEL_UNLOGGED_H

#include "utils/relcache.h"

extern void qml_unlogged_begin(void);
extern void qml_unlogged_begin_sql(Relation live);
extern void qml_unlogged_begin_anew(void);
extern int qml_unlogged_first_attempt(void);

#endif
