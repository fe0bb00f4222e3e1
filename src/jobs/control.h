/*
 * control.h
 *		Changing jobs by hand.
 */
#ifndef QML_CONTROL_H
#define QML_CONTROL_H

#include "model/job.h"
#include "model/options.h"

extern void qml_control_check_admin(const QmlJob *job);
extern bool qml_control_delete(const pg_uuid_t *id, Datum reason);
extern bool qml_control_cancel(const pg_uuid_t *id, Datum reason);
extern bool qml_control_retry(const pg_uuid_t *id);
extern bool qml_control_schedule(const pg_uuid_t *id, TimestampTz run_at, Datum reason);
extern Datum qml_control_set_state(const pg_uuid_t *id, QmlState state, const QmlStateData *data);

#endif
