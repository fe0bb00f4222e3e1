/*
 * pace.h
 *		How long the jobs of each method took lately.
 */
#ifndef QML_PACE_H
#define QML_PACE_H

#include "model/job.h"

extern void qml_pace_init(void);
extern bool qml_pace_is_short(const QmlJob *job);
extern void qml_pace_note(const QmlJob *job, double milliseconds, bool fits_group);

#endif
