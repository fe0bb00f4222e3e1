/*
 * state.h
 *		The state machine of a job.
 */
#ifndef QML_STATE_H
#define QML_STATE_H

#include <stdbool.h>

#include "qml.h"

extern bool qml_state_allowed(QmlState from, QmlState to);
extern bool qml_state_is_final(QmlState state);
extern const char *qml_state_label(QmlState state);

#endif
