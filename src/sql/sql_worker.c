/*
 * sql_worker.c
 *		SQL functions by which workers get jobs: qml_fetch, qml_fetch_job, qml_succeed_fetch,
 *		qml_succeed_fetch_many.
 */
#include "postgres.h"

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "common/args.h"
#include "common/srf.h"
#include "compat.h"
#include "errcodes.h"
#include "ipc/session_claim.h"
#include "jobs/claim.h"
#include "jobs/claim_one.h"
#include "model/acl.h"
#include "model/job.h"
#include "qml.h"
#include "sql/sql_ack.h"

QML_FUNCTION(qml_fetch);
QML_FUNCTION(qml_fetch_job);
QML_FUNCTION(qml_succeed_fetch);
QML_FUNCTION(qml_succeed_fetch_many);

/* Stale claims whose ids are told. */
#define MAX_TOLD 20

/* The lease in microseconds; 0 binds the claim to the session, NULL is that of the queue. */
static int64
read_lease(FunctionCallInfo fcinfo, int arg)
{
	if (PG_ARGISNULL(arg))
		return QML_LEASE_OF_QUEUE;
	if (qml_args_interval_usecs(PG_GETARG_INTERVAL_P(arg)) != 0)
		return qml_args_duration(fcinfo, arg, "lease");
	if (!qml_session_claim_can_hold())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a claim cannot be bound to the session of a background process"),
				 errdetail("The session goes on after the hook that claims."),
				 errhint("Give a lease that is longer than 0.")));
	return QML_NO_LEASE;
}

/* The rows of a fetch, and the columns that its caller expects. */
typedef struct Fetched
{
	QmlSrfRows *rows;
	TupleDesc expected;
} Fetched;

static void
collect_job(const QmlJob *job, void *arg)
{
	Fetched *fetched = arg;
	QmlSrfRows *rows = fetched->rows;

	rows->values[rows->count++] = qml_job_expected_row(job, QML_ACCESS_FULL, fetched->expected);
}

/*
 * The name of a worker and the id of its server, or 0.  The name may begin with that id and a
 * slash; by default it is made of the user and the process.
 */
static void
read_worker(FunctionCallInfo fcinfo, int arg, Datum *name, Datum *server)
{
	char *worker = qml_args_name_or_null(fcinfo, arg, "worker", QML_MAX_NAME);
	const char *slash;

	if (worker == NULL)
		worker = psprintf("%s-%d", GetUserNameFromId(GetUserId(), false), MyProcPid);
	*name = CStringGetTextDatum(worker);
	slash = strchr(worker, '/');
	*server = slash && slash != worker ?
				  PointerGetDatum(cstring_to_text_with_len(worker, slash - worker)) :
				  (Datum) 0;
}

/* Reads the arguments of a fetch, of which `first` is the first. */
static void
read_claim(FunctionCallInfo fcinfo, int first, QmlClaim *claim)
{
	char **methods;
	int nmethods;

	memset(claim, 0, sizeof(*claim));
	read_worker(fcinfo, first, &claim->worker, &claim->server);
	claim->queues = qml_args_queues(fcinfo, first + 1, "queues", &claim->nqueues);
	claim->batch = qml_args_int(fcinfo, first + 2, "batch", 1, QML_MAX_BATCH);
	claim->lease = read_lease(fcinfo, first + 3);
	if (claim->lease == QML_NO_LEASE)
		claim->server = CStringGetTextDatum(qml_session_claim_id());
	methods = qml_args_methods(fcinfo, first + 4, "methods", &nmethods);
	if (methods)
		claim->methods = qml_method_set_make(methods, nmethods);
}

/* The rows of a fetch with these arguments. */
static QmlSrfRows *
fetch_jobs(FunctionCallInfo fcinfo, QmlClaim *claim)
{
	Fetched fetched = {.expected = qml_srf_expected(fcinfo)};
	QmlMore more;

	fetched.rows = qml_srf_alloc(claim->batch);
	claim->take = collect_job;
	claim->arg = &fetched;
	(void) qml_claim_batch(claim, &more);
	return fetched.rows;
}

/* The rows of qml_fetch(). */
static QmlSrfRows *
fetch(FunctionCallInfo fcinfo)
{
	QmlClaim claim;

	qml_acl_require_any(QML_CAN_WORK);
	read_claim(fcinfo, 0, &claim);
	return fetch_jobs(fcinfo, &claim);
}

Datum
qml_fetch(PG_FUNCTION_ARGS)
{
	return qml_srf_return(fcinfo, fetch);
}

/* One job, by its id: not SETOF, because there is a row or an error. */
Datum
qml_fetch_job(PG_FUNCTION_ARGS)
{
	QmlClaimOne claim = {.fetches = true};
	pg_uuid_t *id;

	qml_acl_require_any(QML_CAN_WORK);
	id = qml_args_uuid(fcinfo, 0, "id");
	read_worker(fcinfo, 1, &claim.worker, &claim.server);
	PG_RETURN_DATUM(
		qml_job_expected_row(qml_claim_one(id, &claim), QML_ACCESS_FULL, qml_srf_expected(fcinfo)));
}

/* ----- the same after the end of the jobs before ----- */

/* The rows of qml_succeed_fetch(): nothing is claimed if the attempt does not hold the job. */
static QmlSrfRows *
succeed_fetch(FunctionCallInfo fcinfo)
{
	QmlAck ack;
	pg_uuid_t *id;
	QmlClaim claim;

	qml_acl_require_any(QML_CAN_WORK);
	id = qml_sql_ack_read_success(fcinfo, &ack);
	read_claim(fcinfo, 3, &claim);
	qml_ack_one(id, &ack);
	return fetch_jobs(fcinfo, &claim);
}

/*
 * The rows are the jobs that are claimed, so those that were not finished, because their claims are
 * stale or (forbidden) the caller may not work their queues, are told in a warning; not those that
 * were finished by another element of this call.  A caller that must know them before its
 * transaction commits asks qml_succeed_many().
 */
static void
warn_of_unfinished(const pg_uuid_t *ids, const QmlAck *acks, int count, bool forbidden)
{
	StringInfoData list;
	int unfinished = 0;
	int repeated = 0;

	initStringInfo(&list);
	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		repeated += acks[i].repeated ? 1 : 0;
		if (acks[i].accepted || acks[i].repeated || acks[i].forbidden != forbidden)
			continue;
		if (++unfinished <= MAX_TOLD)
			appendStringInfo(&list, "%s%s", unfinished > 1 ? ", " : "", qml_job_id_string(&ids[i]));
	}
	if (unfinished == 0)
		return;
	if (unfinished > MAX_TOLD)
		appendStringInfo(&list, ", and %d more", unfinished - MAX_TOLD);
	ereport(WARNING,
			(errcode(ERRCODE_QML_STALE_CLAIMS_SKIPPED),
			 forbidden ?
				 errmsg_plural(
					 "%d of %d jobs was not finished, because its queue may not be worked by the caller",
					 "%d of %d jobs were not finished, because their queues may not be worked by the caller",
					 unfinished, unfinished, count - repeated) :
				 errmsg_plural("%d of %d jobs was not finished, because its claim is stale",
							   "%d of %d jobs were not finished, because their claims are stale",
							   unfinished, unfinished, count - repeated),
			 errdetail("Ids: %s.", list.data)));
}

/* The rows of qml_succeed_fetch_many(). */
static QmlSrfRows *
succeed_fetch_many(FunctionCallInfo fcinfo)
{
	pg_uuid_t *ids;
	QmlAck *acks;
	int count;
	QmlClaim claim;

	qml_acl_require_any(QML_CAN_WORK);
	count = qml_sql_ack_read_successes(fcinfo, &ids, &acks);
	read_claim(fcinfo, 3, &claim);
	qml_ack_many(ids, acks, count);
	warn_of_unfinished(ids, acks, count, false);
	warn_of_unfinished(ids, acks, count, true);
	return fetch_jobs(fcinfo, &claim);
}

Datum
qml_succeed_fetch(PG_FUNCTION_ARGS)
{
	return qml_srf_return(fcinfo, succeed_fetch);
}

Datum
qml_succeed_fetch_many(PG_FUNCTION_ARGS)
{
	return qml_srf_return(fcinfo, succeed_fetch_many);
}
