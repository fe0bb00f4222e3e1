/*
 * acl.c
 *		Who may do what to which queue.
 *
 * A role holds a capability for one queue or, in a row without a queue, for all.  The
 * owner of the extension's tables and superusers hold all.  admin includes the other
 * three.  The current user is checked, not the session user, so that a
 * security-definer function lends its owner's capabilities with its other rights.
 *
 * Answers are cached by role, capability and queue until rights or role memberships
 * change.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "common/cache.h"
#include "model/acl.h"
#include "model/catalog.h"
#include "qml.h"

/* A row of qml.acl_data. */
typedef struct Grant
{
	Oid grantee;
	QmlCapability capability;
	char *queue; /* NULL: all */
} Grant;

/* A cached answer.  any: for some queue, whichever; the name is empty then. */
typedef struct AnswerKey
{
	Oid role;
	QmlCapability capability;
	bool any;
	char queue[QML_MAX_QUEUE_NAME * MAX_MULTIBYTE_CHAR_LEN + 1];
} AnswerKey;

typedef struct Answer
{
	AnswerKey key;
	bool allowed;
} Answer;

const char *const qml_capability_names[QML_CAPABILITIES] = {"enqueue", "work", "monitor", "admin"};

/* All that is cached; nobody holds pointers into it while it is read again. */
static MemoryContext rights_context = NULL;
static List *grants;
static HTAB *answers;

static QmlCapability
parse_capability(const char *name)
{
	for (int i = 0; i < QML_CAPABILITIES; i++)
	{
		if (strcmp(name, qml_capability_names[i]) == 0)
			return (QmlCapability) i;
	}
	elog(ERROR, "unexpected capability \"%s\" in table \"%s.acl_data\"", name, QML_SCHEMA);
}

/* NULL for a row that is not about a capability; see grant.c. */
static Grant *
read_grant(HeapTuple tuple, TupleDesc desc)
{
	Grant *grant;
	char *capability;
	bool isnull;
	Datum queue;

	capability = TextDatumGetCString(heap_getattr(tuple, ACL_CAPABILITY, desc, &isnull));
	if (strcmp(capability, QML_ACL_USAGE) == 0)
		return NULL;
	grant = palloc(sizeof(Grant));
	grant->grantee = DatumGetObjectId(heap_getattr(tuple, ACL_GRANTEE, desc, &isnull));
	grant->capability = parse_capability(capability);
	queue = heap_getattr(tuple, ACL_QUEUE, desc, &isnull);
	grant->queue = isnull ? NULL : TextDatumGetCString(queue);
	return grant;
}

/* QmlCache.start. */
static void
start_rights(void)
{
	HASHCTL control = {.keysize = sizeof(AnswerKey), .entrysize = sizeof(Answer)};

	if (rights_context)
		MemoryContextReset(rights_context);
	else
		rights_context = AllocSetContextCreate(TopMemoryContext, "qml rights",
											   ALLOCSET_SMALL_SIZES);
	control.hcxt = rights_context;
	grants = NIL;
	answers = hash_create("qml rights", 64, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* QmlCache.add. */
static void
add_grant(HeapTuple tuple, TupleDesc desc)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(rights_context);
	Grant *grant = read_grant(tuple, desc);

	if (grant)
		grants = lappend(grants, grant);
	MemoryContextSwitchTo(oldcontext);
}

static QmlCache rights_cache = {
	.start = start_rights,
	.add = add_grant,
};

/* Answers depend on roles and memberships, too. */
static void
roles_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	qml_cache_forget(&rights_cache);
}

void
qml_acl_init(void)
{
	qml_cache_init(&rights_cache);
	CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, roles_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, roles_changed, (Datum) 0);
}

static void
refresh_rights(void)
{
	qml_cache_refresh(&rights_cache, qml_catalog()->acl);
}

/* Whether the current user is a superuser, or has the privileges of the extension's owner. */
static bool
is_owner(void)
{
	return superuser() || has_privs_of_role(GetUserId(), qml_catalog()->owner);
}

/* Whether rows grant a role the capability; any: for some queue, else NULL is all queues. */
static bool
has_grant(Oid role, QmlCapability capability, const char *queue, bool any)
{
	ListCell *lc;

	foreach(lc, grants)
	{
		Grant *grant = lfirst(lc);

		if (grant->capability != capability && grant->capability != QML_CAN_ADMIN)
			continue;
		if (!any && grant->queue && (queue == NULL || strcmp(grant->queue, queue) != 0))
			continue;
		if (has_privs_of_role(role, grant->grantee))
			return true;
	}
	return false;
}

/* Whether the current user holds the capability; arguments as above. */
static bool
is_allowed(QmlCapability capability, const char *queue, bool any)
{
	AnswerKey key;
	Answer *entry;
	bool found;
	bool allowed;

	Assert(capability >= 0 && capability < QML_CAPABILITIES);
	Assert(!any || queue == NULL);
	if (is_owner())
		return true;
	refresh_rights();
	/* Not cached: the right to all queues, which is rarely asked for, and very long names. */
	if (!any && (queue == NULL || strlen(queue) >= sizeof(key.queue)))
		return has_grant(GetUserId(), capability, queue, false);

	memset(&key, 0, sizeof(key));
	key.role = GetUserId();
	key.capability = capability;
	key.any = any;
	if (!any)
		strlcpy(key.queue, queue, sizeof(key.queue));
	entry = hash_search(answers, &key, HASH_FIND, NULL);
	if (entry)
		return entry->allowed;

	/* This may read catalogs, and learn that rights changed: then it is not cached. */
	allowed = has_grant(key.role, capability, queue, any);
	if (rights_cache.valid)
	{
		entry = hash_search(answers, &key, HASH_ENTER, &found);
		entry->allowed = allowed;
	}
	return allowed;
}

/* Whether the current user may do this to the queue; NULL: to all queues. */
bool
qml_acl_allow(QmlCapability capability, const char *queue)
{
	return is_allowed(capability, queue, false);
}

/* Whether the current user may do this to some queue. */
bool
qml_acl_allow_any(QmlCapability capability)
{
	return is_allowed(capability, NULL, true);
}

/* Raises an error unless the current user may do this to the queue; NULL: to all queues. */
void
qml_acl_require(QmlCapability capability, const char *queue)
{
	/* A right that was revoked meanwhile is gone, also within a transaction. */
	AcceptInvalidationMessages();
	if (qml_acl_allow(capability, queue))
		return;
	if (queue)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for queue \"%s\"", queue),
				 errdetail("The capability \"%s\" on the queue is required.",
						   qml_capability_names[capability]),
				 errhint("The owner of the extension can grant it with qml_grant().")));
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for extension \"qml\""),
			 errdetail("The capability \"%s\" on all queues is required.",
					   qml_capability_names[capability]),
			 errhint("The owner of the extension can grant it with qml_grant().")));
}

/* Raises an error unless the current user may do this to some queue. */
void
qml_acl_require_any(QmlCapability capability)
{
	AcceptInvalidationMessages();
	if (!qml_acl_allow_any(capability))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for extension \"qml\""),
				 errdetail("The capability \"%s\" on at least one queue is required.",
						   qml_capability_names[capability]),
				 errhint("The owner of the extension can grant it with qml_grant().")));
}

/* Raises an error unless the current user is the owner. */
void
qml_acl_require_owner(const char *action)
{
	if (!is_owner())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to %s", action),
				 errdetail("Only the owner of extension \"qml\" may do this.")));
}

/*
 * Whether a role may enqueue to the queue.  It need not be the current user, and may
 * have been dropped.
 */
bool
qml_acl_role_may_enqueue(Oid role, const char *queue)
{
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(role)))
		return false;
	if (superuser_arg(role) || has_privs_of_role(role, qml_catalog()->owner))
		return true;
	refresh_rights();
	return has_grant(role, QML_CAN_ENQUEUE, queue, false);
}

/* Whether the current user created the job, and may enqueue to its queue. */
bool
qml_acl_own_job(const char *queue, Oid created_by)
{
	return has_privs_of_role(GetUserId(), created_by) && qml_acl_allow(QML_CAN_ENQUEUE, queue);
}

/*
 * What the current user sees of a job.  Workers and administrators of its queue see
 * all of it, and so does the role that created it while it may enqueue to the queue.  A
 * role with the capability monitor sees all jobs of the queues that it holds it for, and
 * an outline of the others.
 */
QmlAccess
qml_acl_access(const char *queue, Oid created_by)
{
	if (qml_acl_allow(QML_CAN_WORK, queue) || qml_acl_allow(QML_CAN_MONITOR, queue) ||
		qml_acl_own_job(queue, created_by))
		return QML_ACCESS_FULL;
	return qml_acl_allow_any(QML_CAN_MONITOR) ? QML_ACCESS_OUTLINE : QML_ACCESS_NONE;
}
