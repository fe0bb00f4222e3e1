/*
 * enqueue.h
 *		Adding jobs.
 */
#ifndef QML_ENQUEUE_H
#define QML_ENQUEUE_H

#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "model/queue.h"

/* What the jobs of one call have in common.  Datums are 0 when null. */
typedef struct QmlEnqueue
{
	Datum method; /* text */
	const char *queue;
	int priority;
	TimestampTz run_at; /* QML_NO_TIME: now */
	int max_retries;	/* -1: as the handler or the queue says */
	int timeout_ms;		/* -1: as the handler or the queue says */
	Datum metadata;
	Datum job_type;
	Oid created_by; /* a schedule's owner; InvalidOid: the current user, who needs the right */
	QmlEnqueueOptions options;
} QmlEnqueue;

/* What became of the request for a job. */
typedef struct QmlEnqueued
{
	bool created;	/* false: a job of this id, which is the same, was there */
	QmlState state; /* of the one or the other */
} QmlEnqueued;

extern const QmlQueue *qml_enqueue_lock_queue(const char *name, bool named);
extern const QmlQueue *qml_enqueue_try_lock_queue(const char *name);
extern QmlEnqueued qml_enqueue_one(const QmlEnqueue *request, Datum payload, const pg_uuid_t *id,
								   bool own_id);
extern QmlState qml_enqueue_batch(const QmlEnqueue *request, const Datum *payloads, int count,
								  pg_uuid_t *ids);

#endif
