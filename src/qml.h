/*
 * qml.h
 *		What every part of qml may rely on: the version, the states of a job and
 *		the limits on what callers pass in.
 */
#ifndef QML_H
#define QML_H

/* Version of the SQL objects this library works with; qml.control says the same. */
#define QML_VERSION "1.0"

/* Schema of qml's types, tables and views; the script creates it by this name. */
#define QML_SCHEMA "qml"

/* The queue of those who name none; the script says the same. */
#define QML_DEFAULT_QUEUE "default"

/* States of a job, in the order of the labels of qml.job_state. */
typedef enum QmlState
{
	QML_SCHEDULED = 0,
	QML_ENQUEUED,
	QML_PROCESSING,
	QML_AWAITING_RETRY,
	QML_SUCCEEDED,
	QML_FAILED,
	QML_DELETED
} QmlState;

#define QML_STATES 7

/* A time that is not there: a NULL timestamptz.  Infinite times are refused. */
#define QML_NO_TIME PG_INT64_MIN

/* Lengths of names in characters. */
#define QML_MAX_QUEUE_NAME 128
#define QML_CHANNEL_PREFIX "qml_" /* and the name of the queue: a channel of NOTIFY */
#define QML_MAX_NAME	   255

/* Longest name of a server in bytes; its id has some more. */
#define QML_MAX_SERVER_NAME 128

/* Longest texts kept of an error, in bytes; longer ones are cut. */
#define QML_MAX_ERROR		8192
#define QML_MAX_STACK_TRACE 16384

/* Failed attempts of a job that are kept: the last ones. */
#define QML_MAX_ERRORS 100

#define QML_MAX_BATCH	10000
#define QML_MAX_RETRIES 1000

/* Highest limit on the jobs of one handler that run at the same time. */
#define QML_MAX_CONCURRENCY 1000

/* Longest lease, retry delay, lock or time to live, seconds: ten years of 366 days. */
#define QML_MAX_SECONDS (10.0 * 366 * 86400)

#endif
