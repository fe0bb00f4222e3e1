/*
 * life.h
 *		Lives: from one crash of the server to the next.
 */
#ifndef QML_LIFE_H
#define QML_LIFE_H

#include "utils/relcache.h"

extern void qml_life_begin_unlogged(void);
extern void qml_life_begin_unlogged_by_sql(Relation live);
extern void qml_life_begin_anew(void);
extern int qml_life_unlogged(void);
extern int qml_life_async(void);
extern int qml_life_first_attempt(int life);
extern void qml_life_reach(int attempt);

#endif
