/*
 * ack.h
 *		Acknowledgements: what workers say about the jobs they hold.
 */
#ifndef QML_ACK_H
#define QML_ACK_H

#include "model/job.h"

typedef enum QmlAckKind
{
	QML_ACK_SUCCEED = 0,
	QML_ACK_FAIL,
	QML_ACK_RELEASE,
	QML_ACK_HEARTBEAT,
	QML_ACK_PROGRESS
} QmlAckKind;

/* An acknowledgement of an attempt; the attempt is the token of the claim. */
typedef struct QmlAck
{
	QmlAckKind kind;
	int attempt;
	Datum document;	   /* result or progress; 0: none */
	int64 lease;	   /* of a heartbeat, microseconds; -1: as the queue says */
	QmlJobError error; /* of a failure, with the next two */
	bool retry;
	TimestampTz retry_at; /* QML_NO_TIME: by the backoff */

	/* Results, written by ack.c. */
	bool accepted;
	QmlState state;				  /* that follows */
	TimestampTz lease_expires_at; /* QML_NO_TIME: the claim is bound to its session */
} QmlAck;

extern void qml_ack_one(const pg_uuid_t *id, QmlAck *ack);
extern void qml_ack_many(const pg_uuid_t *ids, QmlAck *acks, int count);
extern void qml_ack_write_progress(const pg_uuid_t *id, QmlAck *ack);

#endif
