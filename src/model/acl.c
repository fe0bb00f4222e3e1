/*
 * acl.c
 *		Who may do what to which queue.
 *
 * A role holds a capability for one queue or, in a row without a queue, for all.  The
 * owner of the extension's tables and superusers hold all.  admin includes the other
 * three.  The current user is checked, not the session user, so that a
 * security-definer function lends its owner's capabilities with its other rights.
 *
 * The rows of a role without its mark count as revoked (model/role_mark.c).
 *
 * Answers are cached by role, capability and queue until rights or role memberships
 * change.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "common/args.h"
#include "common/cache.h"
#include "model/acl.h"
#include "model/catalog.h"
#include "model/role_mark.h"
#include "qml.h"

/* A row of qml.acl_data. */
typedef struct Grant
{
	Oid grantee;
	QmlCapability capability;
	char *queue; /* NULL: all */
} Grant;

/* Answers that are kept, of about 600 bytes each. */
#define MAX_ANSWERS 16384

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
static uint64 marks_seen = 0; /* qml_role_mark_changes() when it was read */

/* False if there is no capability of this name. */
static bool
parse_capability(const char *name, QmlCapability *capability)
{
	for (int i = 0; i < QML_CAPABILITIES; i++)
	{
		if (strcmp(name, qml_capability_names[i]) == 0)
		{
			*capability = (QmlCapability) i;
			return true;
		}
	}
	return false;
}

/*
 * NULL for a row that grants nothing: it is not about a capability (see grant.c), or about
 * one that there is not, which somebody wrote by hand.
 */
static Grant *
read_grant(HeapTuple tuple, TupleDesc desc)
{
	Grant *grant;
	char *name;
	QmlCapability capability;
	bool isnull;
	Datum queue;

	name = TextDatumGetCString(heap_getattr(tuple, ACL_CAPABILITY, desc, &isnull));
	if (!parse_capability(name, &capability))
		return NULL;
	grant = palloc(sizeof(Grant));
	grant->grantee = DatumGetObjectId(heap_getattr(tuple, ACL_GRANTEE, desc, &isnull));
	grant->capability = capability;
	queue = heap_getattr(tuple, ACL_QUEUE, desc, &isnull);
	grant->queue = isnull ? NULL : TextDatumGetCString(queue);
	return grant;
}

static void
start_answers(void)
{
	HASHCTL control = {.keysize = sizeof(AnswerKey),
					   .entrysize = sizeof(Answer),
					   .hcxt = rights_context};

	answers = hash_create("qml rights", 64, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* QmlCache.start. */
static void
start_rights(void)
{
	if (rights_context)
		MemoryContextReset(rights_context);
	else
		rights_context = AllocSetContextCreate(TopMemoryContext, "qml rights",
											   ALLOCSET_SMALL_SIZES);
	grants = NIL;
	start_answers();
}

/* QmlCache.add. */
static void
add_grant(HeapTuple tuple, TupleDesc desc)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(rights_context);
	Grant *grant = read_grant(tuple, desc);

	if (grant && qml_role_mark_has(QML_MARK_CAPABILITY, grant->grantee))
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
	const QmlCatalog *cat = qml_catalog();

	if (marks_seen != qml_role_mark_changes())
		qml_cache_forget(&rights_cache);
	marks_seen = qml_role_mark_changes();
	qml_cache_refresh(&rights_cache, cat->acl);
}

/* Whether the current user is a superuser, or has the privileges of the extension's owner. */
bool
qml_acl_is_owner(void)
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
	if (qml_acl_is_owner())
		return true;
	/* What is granted on all queues does not hold for qml's own. */
	if (queue && qml_args_is_reserved_queue(queue))
		return false;
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
		/* A caller may name any number of queues, also such as there are not. */
		if (hash_get_num_entries(answers) >= MAX_ANSWERS)
		{
			hash_destroy(answers);
			start_answers();
		}
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

/* Whether the current user sees that there is the queue: with any capability on it. */
bool
qml_acl_see_queue(const char *name)
{
	if (qml_args_is_reserved_queue(name))
		return qml_acl_allow(QML_CAN_ADMIN, name);
	return qml_acl_allow_any(QML_CAN_MONITOR) || qml_acl_allow(QML_CAN_ENQUEUE, name) ||
		   qml_acl_allow(QML_CAN_WORK, name);
}

/*
 * The names of the queues that the capability was granted on one by one, to the current user or
 * to roles whose privileges it has; a queue need not exist, and may be named more than once.
 */
List *
qml_acl_queues(QmlCapability capability)
{
	List *names = NIL;
	ListCell *lc;

	refresh_rights();
	foreach(lc, grants)
	{
		const Grant *grant = lfirst(lc);

		if ((grant->capability == capability || grant->capability == QML_CAN_ADMIN) &&
			grant->queue && !qml_args_is_reserved_queue(grant->queue) &&
			has_privs_of_role(GetUserId(), grant->grantee))
			names = lappend(names, pstrdup(grant->queue));
	}
	return names;
}

/* The name of a function of qml, with its schema if the search_path does not lead to it. */
const char *
qml_acl_qualify(const char *name)
{
	Oid schema = qml_catalog()->function_schema;
	FuncCandidateList candidate = FuncnameGetCandidates(list_make1(makeString(pstrdup(name))), -1,
														NIL, false, false, false, true);

	for (; candidate; candidate = candidate->next)
	{
		if (get_func_namespace(candidate->oid) == schema)
			return name;
	}
	return psprintf("%s.%s", quote_identifier(get_namespace_name(schema)), name);
}

/*
 * The statement that gives the current user the capability, for a hint; queue: the argument as
 * it is to be shown, NULL: none, for all queues.
 */
static char *
describe_grant(QmlCapability capability, const char *queue)
{
	/* The role is a regrole: its name is quoted as an identifier, and then as a string. */
	const char *role = quote_identifier(GetUserNameFromId(GetUserId(), false));

	return psprintf("SELECT %s(%s, '%s'%s%s);", qml_acl_qualify("qml_grant"),
					quote_literal_cstr(role), qml_capability_names[capability], queue ? ", " : "",
					queue ? queue : "");
}

/*
 * Raises the error that the current user lacks a set of capabilities, of which one would do, on
 * the queue; NULL: on any.  advised: the one to ask for.  Nothing is asked or remembered: whoever
 * has no right can come here with any number of names.
 */
void
qml_acl_refuse_advising(int capabilities, QmlCapability advised, const char *queue)
{
	bool one = capabilities == 1 << advised;
	char *grant = describe_grant(advised, queue ? quote_literal_cstr(queue) : "<queue>");
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < QML_CAPABILITIES; i++)
	{
		if (capabilities & (1 << i))
			appendStringInfo(&names, "%s\"%s\"", names.len ? ", " : "", qml_capability_names[i]);
	}
	if (queue)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for queue \"%s\"", queue),
				 one ? errdetail("The capability %s on the queue is required.", names.data) :
					   errdetail("One of the capabilities %s on the queue is required.", names.data),
				 errhint("The owner of the extension can grant it: %s", grant)));
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for extension \"qml\""),
			 one ? errdetail("The capability %s on at least one queue is required.", names.data) :
				   errdetail("One of the capabilities %s on at least one queue is required.",
							 names.data),
			 errhint("The owner of the extension can grant it: %s", grant)));
}

/*
 * The same, with the least of them to ask for: the first.  monitor shows the outlines of the jobs
 * of all queues, so it comes last.
 */
void
qml_acl_refuse(int capabilities, const char *queue)
{
	qml_acl_refuse_advising(capabilities, (QmlCapability) pg_rightmost_one_pos32(capabilities),
							queue);
}

/* Raises an error unless the current user may do this to the queue; NULL: to all queues. */
void
qml_acl_require(QmlCapability capability, const char *queue)
{
	/* A right that was revoked meanwhile is gone, also within a transaction. */
	AcceptInvalidationMessages();
	if (qml_acl_allow(capability, queue))
		return;
	/* qml's own queues are for its owner. */
	if (queue && qml_args_is_reserved_queue(queue))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for queue \"%s\"", queue),
				 errdetail("The queue is one of qml's own.")));
	if (queue)
		qml_acl_refuse(1 << capability, queue);
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for extension \"qml\""),
			 errdetail("The capability \"%s\" on all queues is required.",
					   qml_capability_names[capability]),
			 errhint("The owner of the extension can grant it: %s",
					 describe_grant(capability, NULL))));
}

/* Raises an error unless the current user may do this to some queue. */
void
qml_acl_require_any(QmlCapability capability)
{
	qml_acl_require_one(1 << capability, NULL);
}

/* Whether the current user has one of a set of capabilities on the queue; NULL: on some queue. */
bool
qml_acl_allow_one(int capabilities, const char *queue)
{
	for (int i = 0; i < QML_CAPABILITIES; i++)
	{
		if ((capabilities & (1 << i)) == 0)
			continue;
		if (queue ? qml_acl_allow((QmlCapability) i, queue) : qml_acl_allow_any((QmlCapability) i))
			return true;
	}
	return false;
}

/*
 * Raises an error unless the current user has one of a set of capabilities on the queue; NULL:
 * on some queue.
 */
void
qml_acl_require_one(int capabilities, const char *queue)
{
	AcceptInvalidationMessages();
	if (!qml_acl_allow_one(capabilities, queue))
		qml_acl_refuse(capabilities, queue);
}

/* Raises an error unless the current user is the owner. */
void
qml_acl_require_owner(const char *action)
{
	if (!qml_acl_is_owner())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to %s", action),
				 errdetail("Only the owner of extension \"qml\" may do this.")));
}

/*
 * Whether a role has the capability on the queue; NULL: on all queues.  It need not be the
 * current user, and may have been dropped.
 */
bool
qml_acl_role_may(Oid role, QmlCapability capability, const char *queue)
{
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(role)))
		return false;
	if (superuser_arg(role) || has_privs_of_role(role, qml_catalog()->owner))
		return true;
	refresh_rights();
	return has_grant(role, capability, queue, false);
}

/* The same for enqueueing. */
bool
qml_acl_role_may_enqueue(Oid role, const char *queue)
{
	return qml_acl_role_may(role, QML_CAN_ENQUEUE, queue);
}

/*
 * Whether the current user created the job, and may enqueue to its queue.  A job of qml's
 * own queue is that of a hook: its role has it as long as it may register hooks.
 */
bool
qml_acl_own_job(const char *queue, Oid created_by)
{
	if (qml_args_is_reserved_queue(queue))
		return has_privs_of_role(GetUserId(), created_by) && qml_acl_allow(QML_CAN_ADMIN, NULL);
	return has_privs_of_role(GetUserId(), created_by) && qml_acl_allow(QML_CAN_ENQUEUE, queue);
}

/*
 * What the current user sees of a job in which nothing is hidden (see model/redact.c).  Workers and administrators of its queue see
 * all of it, and so does the role that created it while it may enqueue to the queue.  A
 * role with the capability monitor sees all jobs of the queues that it holds it for, and
 * an outline of the others, but nothing of qml's own queue.
 */
QmlAccess
qml_acl_access(const char *queue, Oid created_by)
{
	if (qml_acl_allow(QML_CAN_WORK, queue) || qml_acl_allow(QML_CAN_MONITOR, queue) ||
		qml_acl_own_job(queue, created_by))
		return QML_ACCESS_FULL;
	if (qml_args_is_reserved_queue(queue))
		return QML_ACCESS_NONE;
	return qml_acl_allow_any(QML_CAN_MONITOR) ? QML_ACCESS_OUTLINE : QML_ACCESS_NONE;
}
