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
	QML_ACK_DISCARD,
	QML_ACK_PROGRESS
} QmlAckKind;

/* An acknowledgement of an attempt; the attempt is the token of the claim. */
typedef struct QmlAck
{
	QmlAckKind kind;
	int attempt;
	Datum document;	   /* result or progress; 0: none */
	QmlJobError error; /* of a failure, with the next one */
	bool retry;
	TimestampTz run_at; /* of a failure: QML_NO_TIME: by the backoff; of a release: at once */
	Datum reason;		/* of a release or a discard; 0: none */

	/* Results, written by ack.c. */
	bool accepted;
	bool forbidden; /* among many: the caller may not work the queue of the job */
	bool repeated;	/* among many: an earlier element said so of the same attempt, and counts */
	QmlState state; /* that follows */
} QmlAck;

/* A heartbeat of an attempt. */
typedef struct QmlHeartbeat
{
	int attempt;
	int64 lease; /* microseconds; -1: as the queue says */

	/* Results, written by ack.c. */
	bool accepted;		   /* the attempt holds the job, or has succeeded with it */
	TimestampTz row_end;   /* the end of the lease before, as the row has it */
	TimestampTz lease_end; /* QML_NO_TIME: not extended */
} QmlHeartbeat;

extern void qml_ack_one(const pg_uuid_t *id, QmlAck *ack);
extern void qml_ack_many(const pg_uuid_t *ids, QmlAck *acks, int count);
extern void qml_ack_heartbeat(const pg_uuid_t *id, QmlHeartbeat *beat);
extern void qml_ack_heartbeat_many(const pg_uuid_t *ids, QmlHeartbeat *beats, int count);
extern void qml_ack_write_progress(const pg_uuid_t *id, QmlAck *ack);

#endif
