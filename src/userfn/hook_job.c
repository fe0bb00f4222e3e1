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
 * Hooks that are called for alerts get such jobs, too, in the transaction that begins or ends the
 * alert.
 *
 * To the workers such a job is like any other.  Its handler is not in the table of handlers
 * but made of the hook.  A job whose hook is gone, or belongs to another role by now, has
 * none; maintenance deletes it.
 *
 * The right of the role to the queue of the transition or alert is looked at when the job is made,
 * and again before it runs.  An alert that is about no queue is for those who have it on all.
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

/* Whether a hook, which is not revoked, is called for alerts. */
bool
qml_hook_job_wants_alerts(const QmlCallback *hook)
{
	return hook->options.after_commit && hook->options.alerts &&
		   qml_role_mark_has(QML_MARK_REGISTRATION, hook->role);
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

/*
 * The queue that a job tells of, by the member of the payload that has it; false: it says none.
 * NULL: it is about all of them.
 */
static bool
find_queue(Datum payload, const char *member, char **queue)
{
	JsonbContainer *root = &DatumGetJsonbP(payload)->root;
	JsonbValue object;
	JsonbValue name;

	if (!JsonContainerIsObject(root) ||
		getKeyJsonValueFromContainer(root, member, strlen(member), &object) == NULL ||
		object.type != jbvBinary || !JsonContainerIsObject(object.val.binary.data) ||
		getKeyJsonValueFromContainer(object.val.binary.data, "queue", 5, &name) == NULL ||
		(name.type != jbvString && name.type != jbvNull))
		return false;
	*queue = name.type == jbvNull ? NULL : pnstrdup(name.val.string.val, name.val.string.len);
	return true;
}

/*
 * Whether the role of a hook may still know of the transition that its job tells of;
 * *problem says why not.  True for all other jobs.
 */
bool
qml_hook_job_is_allowed(const QmlJob *job, QmlProblem *problem)
{
	char *queue = NULL;
	bool is_alert;

	if (!qml_queue_is_own(job->queue_id))
		return true;
	is_alert = find_queue(job->payload, "alert", &queue);
	if ((is_alert || (find_queue(job->payload, "job", &queue) && queue)) &&
		qml_acl_role_may(job->created_by, QML_CAN_ADMIN, queue))
		return true;
	problem->sqlerrcode = ERRCODE_INSUFFICIENT_PRIVILEGE;
	if (is_alert)
	{
		problem->message = psprintf("hook \"%s\" may not know of the alert",
									TextDatumGetCString(job->method));
		problem->detail = psprintf("Role \"%s\", which registered it, does not have the capability "
								   "\"admin\" on %s.",
								   GetUserNameFromId(job->created_by, true),
								   queue ? psprintf("queue \"%s\"", queue) : "all queues");
		return false;
	}
	problem->message = psprintf("hook \"%s\" may not know of jobs of queue \"%s\"",
								TextDatumGetCString(job->method), queue ? queue : "");
	problem->detail = psprintf("Role \"%s\", which registered it, does not have the capability "
							   "\"admin\" on the queue.",
							   GetUserNameFromId(job->created_by, true));
	return false;
}
