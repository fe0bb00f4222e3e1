/*
 * qml.h
 *		What every part of qml may rely on: the version, the states of a job and
 *		the limits on what callers pass in.
 */
#ifndef QML_H
#define QML_H

/*
 * The version of this library, and of the SQL objects that came with it; qml.control says
 * the same.  It serves SQL objects of this major version, older and newer ones: see
 * model/columns.c.
 */
#define QML_VERSION_MAJOR 1
#ifndef QML_NEXT
#define QML_VERSION_MINOR 0
#else
/*
 * Only tests build this: a library that plays the next version, with a column more in some
 * tables.  What is done for that column is what a real one takes.
 */
#define QML_VERSION_MINOR 1
#endif
#define QML_VERSION CppAsString2(QML_VERSION_MAJOR) "." CppAsString2(QML_VERSION_MINOR)

/* Schema of qml's types, tables and views; the script creates it by this name. */
#define QML_SCHEMA "qml"

/* The queue of those who name none; the script says the same. */
#define QML_DEFAULT_QUEUE "default"

/* Queues whose names begin so are qml's own. */
#define QML_RESERVED_QUEUES "qml."

/* That of the calls of after-commit hooks. */
#define QML_HOOK_QUEUE QML_RESERVED_QUEUES "hooks"

/* States of a job, in the order of the labels of qml.job_state. */
typedef enum QmlState
{
	QML_SCHEDULED = 0,
	QML_ENQUEUED,
	QML_PROCESSING,
	QML_AWAITING_RETRY,
	QML_SUCCEEDED,
	QML_FAILED,
	QML_DELETED,
	QML_AWAITING_PARENTS
} QmlState;

#define QML_STATES 8

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
#define QML_MAX_TOKENS	1000000 /* claims that one call speaks of */
#define QML_MAX_RETRIES 1000

/* Highest limit on the jobs of one handler that run at the same time. */
#define QML_MAX_CONCURRENCY 1000

/* Longest lease, retry delay, lock or time to live, seconds: ten years of 366 days. */
#define QML_MAX_SECONDS (10.0 * 366 * 86400)

#endif
