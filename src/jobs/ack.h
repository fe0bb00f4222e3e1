/*
 * ack.h
 *		What a worker says about the jobs it holds.
 */
#ifndef QML_ACK_H
#define QML_ACK_H

#include "model/job.h"

/* An acknowledgement, under the token of the claim. */
typedef struct QmlAck
{
	int attempt;
	Datum document; /* result or progress; 0: none */
	int64 lease;	/* microseconds; -1: as the queue says */
	QmlJobError error;
	bool retry;
	TimestampTz retry_at;
} QmlAck;

extern void qml_ack_succeed(const pg_uuid_t *id, QmlAck *ack);
extern int qml_ack_succeed_many(const pg_uuid_t *ids, QmlAck *acks, int count, bool *accepted);
extern QmlState qml_ack_fail(const pg_uuid_t *id, QmlAck *ack);
extern void qml_ack_release(const pg_uuid_t *id, QmlAck *ack);
extern TimestampTz qml_ack_heartbeat(const pg_uuid_t *id, QmlAck *ack);
extern void qml_ack_progress(const pg_uuid_t *id, QmlAck *ack);
extern void qml_ack_show_progress(const pg_uuid_t *id, QmlAck *ack);

#endif
