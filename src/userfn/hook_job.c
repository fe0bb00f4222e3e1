/*
 * hook_job.c
 *		Jobs that call after-commit hooks.
 *
 * A hook of a role that is not the owner's must not run in the sessions of others
 * (userfn/callback.c).  So each transition that it is called for makes a job, in the same
 * transaction (jobs/after_commit.c), and a worker of the hook's role runs the job:
 *
 *	 queue		qml's own, which nobody else can enqueue to or fetch from
 *	 method		the name of the hook
 *	 created_by	the role of the hook
 *	 payload	what the hook is told
 *
 * To the workers such a job is like any other.  Its handler is not in the table of handlers
 * but made of the hook.  A job whose hook is gone, or belongs to another role by now, has
 * none; maintenance deletes it.
 *
 * The right of the role to the queue of the transition is looked at when the job is made,
 * and again before it runs.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"

#include "model/acl.h"
#include "model/queue.h"
#include "model/role_mark.h"
#include "userfn/hook_job.h"

/* Whether a hook, which is not revoked, is called after the commit of transitions to the state. */
bool
qml_hook_job_wants(const QmlCallback *hook, QmlState state)
{
	return hook->options.after_commit && (hook->states & (1 << state)) != 0 &&
		   qml_role_mark_has(QML_MARK_REGISTRATION, hook->role);
}

/* Whether any is. */
bool
qml_hook_job_wanted(QmlState state)
{
	ListCell *lc;

	foreach(lc, qml_callback_all(QML_HOOK))
	{
		if (qml_hook_job_wants(lfirst(lc), state))
			return true;
	}
	return false;
}

/* The handler of jobs of a hook; NULL: the role has no after-commit hook of that name. */
static const QmlHandler *
find_handler(Datum name, Oid role)
{
	char *wanted = TextDatumGetCString(name);
	ListCell *lc;

	/* Those of the cache, because the handler is kept with its hook. */
	foreach(lc, qml_callback_all(QML_HOOK))
	{
		QmlCallback *hook = lfirst(lc);

		if (strcmp(hook->name, wanted) != 0)
			continue;
		if (!hook->options.after_commit || hook->role != role)
			return NULL;
		if (hook->handler == NULL)
			hook->handler = qml_handler_make(hook->name, &hook->function, hook->role);
		return hook->handler;
	}
	return NULL;
}

/* What runs jobs of this queue, method and role: a handler, a hook, or NULL. */
const QmlHandler *
qml_hook_job_handler_of(int queue_id, Datum method, Oid created_by)
{
	return qml_queue_is_own(queue_id) ? find_handler(method, created_by) : qml_handler_of(method);
}

/* The same for a job. */
const QmlHandler *
qml_hook_job_handler(const QmlJob *job)
{
	return qml_hook_job_handler_of(job->queue_id, job->method, job->created_by);
}

/* The queue of the transition that a job tells of; NULL: it says none. */
static char *
find_queue(Datum payload)
{
	JsonbValue job;
	JsonbValue queue;

	if (!JB_ROOT_IS_OBJECT(DatumGetJsonbP(payload)) ||
		getKeyJsonValueFromContainer(&DatumGetJsonbP(payload)->root, "job", 3, &job) == NULL ||
		job.type != jbvBinary || !JsonContainerIsObject(job.val.binary.data) ||
		getKeyJsonValueFromContainer(job.val.binary.data, "queue", 5, &queue) == NULL ||
		queue.type != jbvString)
		return NULL;
	return pnstrdup(queue.val.string.val, queue.val.string.len);
}

/*
 * Whether the role of a hook may still know of the transition that its job tells of;
 * *problem says why not.  True for all other jobs.
 */
bool
qml_hook_job_is_allowed(const QmlJob *job, QmlProblem *problem)
{
	char *queue;

	if (!qml_queue_is_own(job->queue_id))
		return true;
	queue = find_queue(job->payload);
	if (queue && qml_acl_role_may(job->created_by, QML_CAN_ADMIN, queue))
		return true;
	problem->sqlerrcode = ERRCODE_INSUFFICIENT_PRIVILEGE;
	problem->message = psprintf("hook \"%s\" may not know of jobs of queue \"%s\"",
								TextDatumGetCString(job->method), queue ? queue : "");
	problem->detail = psprintf("Role \"%s\", which registered it, does not have the capability "
							   "\"admin\" on the queue.",
							   GetUserNameFromId(job->created_by, true));
	return false;
}
