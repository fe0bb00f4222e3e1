/*
 * reject.h
 *		Finding the roles that have work, and failing ready jobs that no worker can run.
 */
#ifndef QML_REJECT_H
#define QML_REJECT_H

#include "nodes/pg_list.h"

#include "common/walk.h"

extern bool qml_reject_search(QmlWalk *walk, int max, List **roles);

#endif
