/*
 * control.h
 *		Changing jobs by hand.
 */
#ifndef QML_CONTROL_H
#define QML_CONTROL_H

#include "model/job.h"

/* What the caller gives with a state.  Datums are 0 when null. */
typedef struct QmlControl
{
	QmlState to;
	TimestampTz run_at; /* QML_NO_TIME: none given */
	int64 lease;		/* microseconds; -1: as the queue says */
	Datum worker;
	Datum reason;
	Datum result;
	QmlJobError error;
} QmlControl;

extern bool qml_control_delete(const pg_uuid_t *id, Datum reason);
extern bool qml_control_retry(const pg_uuid_t *id);
extern bool qml_control_schedule(const pg_uuid_t *id, TimestampTz run_at, Datum reason);
extern Datum qml_control_set_state(const pg_uuid_t *id, const QmlControl *control);

#endif
