/*
 * job.h
 *		A job in memory, and how it is laid out in rows.
 */
#ifndef QML_JOB_H
#define QML_JOB_H

#include "executor/tuptable.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "compat.h"
#include "model/acl.h"
#include "qml.h"

/*
 * Variable-length values are varlena datums, 0 when null; they may point into the
 * row that the job was read from and are valid as long as its slot.  Times are
 * QML_NO_TIME when null.
 */
typedef struct QmlJob
{
	pg_uuid_t id;
	TimestampTz created_at;
	int queue_id;
	int priority;
	QmlState state;
	QmlState was;  /* the state it was read with */
	int was_queue; /* and the queue */
	int attempt;
	int uncounted;
	int max_retries;
	bool retries_asked; /* with the job, or by its command; not by another default */
	int16 lineage;		/* of the attempt's number (model/lineage.h) */
	int timeout_ms;
	Oid created_by;
	TimestampTz ready_at; /* QML_NO_TIME: when it was created, or run_at */
	TimestampTz run_at;
	TimestampTz started_at;
	TimestampTz finished_at;
	TimestampTz expires_at;
	TimestampTz lease_expires_at;
	Datum worker;
	Datum server;
	Datum method;
	Datum job_type;
	Datum metadata;
	Datum progress;
	Datum errors;
	Datum reason;
	Datum payload;
	Datum result;
#ifdef QML_NEXT
	Datum note;
#endif
	/* What became of it in memory, for statistics: not stored. */
	TimestampTz changed_at; /* when it got this state; 0: it has the one that it was read with */
	bool released;			/* the attempt was given back, and does not count */
	bool told;				/* whoever had the claim told of the end of the attempt */
	bool lost;				/* nobody has told of it */
	TupleTableSlot *source; /* the row it was read from; NULL: none, or it is a copy */
} QmlJob;

/* Type of the error of an attempt that the whole server ended with. */
#define QML_SERVER_DOWN "server_down"

/* That of a job which took too long. */
#define QML_TIMEOUT "timeout"

/* One failed attempt, for `errors`. */
typedef struct QmlJobError
{
	Datum error; /* text; the rest may be 0 */
	Datum error_type;
	Datum stack_trace;
} QmlJobError;

/* In the stored number of retries: they were asked for.  Above QML_MAX_RETRIES. */
#define QML_STORED_RETRIES_ASKED 0x1000

/* How many retries a job may have in all. */
typedef int (*QmlRetriesMost)(const QmlJob *job);

extern void qml_job_init(QmlRetriesMost most);
extern void qml_job_set_stored_retries(QmlJob *job, int stored);
extern int qml_job_tries(const QmlJob *job);
extern int qml_job_retries_left(const QmlJob *job);
extern void qml_job_from_live(TupleTableSlot *slot, QmlJob *job);
extern void qml_job_from_history(TupleTableSlot *slot, QmlJob *job);
extern void qml_job_to_live(const QmlJob *job, TupleTableSlot *slot);
extern void qml_job_to_history(const QmlJob *job, TupleTableSlot *slot);
extern QmlAccess qml_job_visibility(const QmlJob *job);
extern Datum qml_job_row(const QmlJob *job, QmlAccess access);
extern Datum qml_job_expected_row(const QmlJob *job, QmlAccess access, TupleDesc expected);
extern QmlState qml_job_live_state(TupleTableSlot *slot);
extern uint32 qml_job_hash_method(Datum method);
extern uint64 qml_job_hash_method_long(Datum method);
extern Datum qml_job_live_method(TupleTableSlot *slot);
extern void qml_job_live_place(TupleTableSlot *slot, int *priority, pg_uuid_t *id);

extern void qml_job_copy(const QmlJob *job, QmlJob *copy);
extern Datum qml_job_last_error(const QmlJob *job);
extern Datum qml_job_last_error_type(const QmlJob *job);
extern char *qml_job_fingerprint(const QmlJob *job);
extern void qml_job_add_error(QmlJob *job, const QmlJobError *error, TimestampTz at);
extern void qml_job_forgive(QmlJob *job, const char *error_type);
extern int qml_job_count_errors(const QmlJob *job, const char *error_type);
extern char *qml_job_id_string(const pg_uuid_t *id);
pg_noreturn extern void qml_job_raise_missing(const pg_uuid_t *id);
extern char *qml_job_timeout_message(const QmlJob *job);

#endif
