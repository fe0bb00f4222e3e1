/*
 * work.c
 *		Why nobody takes jobs of a method from a queue.
 *
 * Two kinds of workers are told apart.  A job whose method has a handler is run by a background
 * worker of the role of the handler; all others are for workers outside, who fetch them
 * (jobs/claim_filter.c).  A worker outside that names the method takes the former, too.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "common/guc.h"
#include "diagnosis/pauses.h"
#include "diagnosis/served.h"
#include "diagnosis/status.h"
#include "diagnosis/work.h"
#include "ipc/fetches.h"
#include "ipc/slots.h"
#include "maintenance/service.h"
#include "model/acl.h"
#include "userfn/hook_job.h"

void
qml_work_init(QmlCase *about, const QmlQueue *queue, Datum method, Oid created_by,
			  QmlReasons *reasons)
{
	memset(about, 0, sizeof(*about));
	about->queue = queue;
	about->method = method;
	about->name = TextDatumGetCString(method);
	about->handler = qml_hook_job_handler_of(queue->id, method, created_by);
	about->is_named = about->handler && qml_served_by_name(queue, method) == QML_SERVED;
	about->by_name = about->is_named ||
					 (about->handler == NULL && qml_served_unnamed(queue) != QML_SERVED &&
					  qml_served_by_name(queue, method) == QML_SERVED);
	about->now = GetCurrentTimestamp();
	about->reasons = reasons;
}

/* What its jobs need to be run: see status.h. */
int
qml_work_needs(const QmlCase *about)
{
	return QML_NEEDS_CLAIM | (about->handler && !about->is_named ? QML_NEEDS_WORKERS : 0);
}

/*
 * Whether another job of the queue is for the same workers.  Those that name methods take only these:
 * which methods a worker names together is not known, so all that are named count.
 */
bool
qml_work_is_same_kind(QmlCase *about, Datum method, Oid created_by)
{
	const QmlHandler *other = qml_hook_job_handler_of(about->queue->id, method, created_by);
	uint64 hash = qml_job_hash_method_long(method);

	if (about->by_name)
	{
		if (hash != about->last_hash)
			about->last_named = qml_served_by_name(about->queue, method) == QML_SERVED;
		about->last_hash = hash;
		return about->last_named || hash == qml_job_hash_method_long(about->method);
	}
	if (about->handler == NULL || other == NULL)
		return about->handler == other;
	return about->handler->run_as == other->run_as;
}

void
qml_work_explain_pause(QmlCase *about)
{
	const QmlQueue *queue = about->queue;

	if (queue->paused)
		qml_finding_add_reason(about->reasons, "queue paused",
							   psprintf("queue \"%s\" is paused%s", queue->name,
										qml_pauses_describe(queue)),
							   qml_finding_call("qml_resume_queue",
												qml_finding_quote(queue->name)));
}

/* A handler that cannot be called now. */
void
qml_work_explain_handler(QmlCase *about)
{
	QmlProblem problem;

	if (about->handler == NULL || about->is_named || qml_handler_usable(about->handler, &problem))
		return;
	qml_finding_add_reason(about->reasons, "handler cannot run",
						   problem.detail ? psprintf("%s: %s", problem.message, problem.detail) :
											problem.message,
						   psprintf("SELECT * FROM qml.%s WHERE problem IS NOT NULL;",
									about->handler->is_hook ? "hook" : "handler"));
}

/* What to do, with the call that registers a handler, but for the function. */
static char *
describe_register(const QmlCase *about)
{
	return psprintf("Start a worker that fetches from it, or register a handler with %s(%s, "
					"<function>).",
					qml_acl_qualify("qml_register_handler"), qml_finding_quote(about->name));
}

/* Somebody may fetch such jobs, but it is not known. */
static void
explain_unknown(QmlCase *about, const char *why)
{
	qml_finding_add_reason(
		about->reasons, "no handler",
		psprintf("no handler is registered for method \"%s\", and it is not known "
				 "who fetches from queue \"%s\", because %s",
				 about->name, about->queue->name, why),
		describe_register(about));
}

/* No handler, and nobody outside fetches such jobs. */
void
qml_work_explain_fetches(QmlCase *about)
{
	const QmlQueue *queue = about->queue;
	QmlServed served;

	/* On a standby nobody can. */
	if (about->handler || queue->own || RecoveryInProgress())
		return;
	served = qml_served_outside(queue, about->method);
	if (served == QML_SERVED)
		return;
	if (qml_fetches_since() == 0)
		explain_unknown(about, "qml is not in shared_preload_libraries");
	else if (served == QML_SERVED_PERHAPS)
		explain_unknown(about, "more queues and methods were fetched from lately than are "
							   "remembered");
	else if (qml_served_at_all(queue) == QML_SERVED)
		qml_finding_add_reason(
			about->reasons, "nobody fetches it",
			psprintf("no handler is registered for method \"%s\", and those who fetch "
					 "from queue \"%s\" name other methods",
					 about->name, queue->name),
			describe_register(about));
	else
		qml_finding_add_reason(
			about->reasons, "nobody fetches it",
			psprintf("no handler is registered for method \"%s\", and nobody has "
					 "fetched from queue \"%s\" %s",
					 about->name, queue->name, qml_served_since(queue)),
			describe_register(about));
}

/* Limits on how many jobs run at once. */
void
qml_work_explain_limits(QmlCase *about)
{
	const QmlHandler *handler = about->handler;
	uint32 method;
	int limit;

	if (handler == NULL || about->is_named || qml_shmem == NULL)
		return;
	limit = handler->options.concurrency;
	method = (uint32) qml_job_hash_method_long(about->method);
	if (limit > 0 && !qml_slots_concurrency_is_free(MyDatabaseId, method, limit, NULL))
		qml_finding_add_reason(
			about->reasons, "limit reached",
			psprintf("%d of %d workers that may run jobs of method \"%s\" at once do so", limit,
					 limit, about->name),
			"It is the option \"concurrency\" of the handler.");
	if (about->job && qml_job_count_errors(about->job, QML_SERVER_DOWN) > 0 &&
		!qml_slots_concurrency_is_free(MyDatabaseId, 0, 1, NULL))
		qml_finding_add_reason(
			about->reasons, "runs alone",
			"it was running when the server went down, and such jobs run one at a time: "
			"another one runs now",
			NULL);
}

/* Workers of the handler's role that are all busy, or none. */
void
qml_work_explain_workers(QmlCase *about)
{
	const QmlHandler *handler = about->handler;
	QmlService service;
	int own;

	if (handler == NULL || about->is_named || qml_shmem == NULL || qml_workers == 0)
		return;
	qml_service_find_own(&service);
	own = qml_slots_count_workers(MyDatabaseId, handler->run_as);
	if (qml_slots_count_idle(MyDatabaseId, handler->run_as) > 0)
		return;
	if (service.workers >= qml_workers)
		qml_finding_add_reason(
			about->reasons, "no free worker",
			psprintf("all %s of this database are busy, %d of them for role \"%s\" of "
					 "the handler; %s",
					 qml_finding_count(service.workers, "worker", "workers"), own,
					 GetUserNameFromId(handler->run_as, true), QML_FINDING_RELOAD),
			qml_finding_setting("qml.workers", psprintf("%d", qml_workers * 2)));
	else if (service.view.waiting_roles > 0)
		qml_finding_add_reason(
			about->reasons, "no free worker",
			psprintf("%s, and no process can be started for another one",
					 own == 0 ? "no worker runs for the role of the handler" :
								psprintf("%s of the handler's role are busy",
										 qml_finding_count(own, "worker", "workers"))),
			"Raise max_worker_processes and qml.max_workers, which needs a restart.");
}
