/*
 * lobject.c
 *		Large objects by descriptor, which functions of users must not share.
 *
 * A descriptor belongs to the transaction, reads and writes with the rights of the
 * role that opened it, whoever uses it, and is found by its number alone: 0, 1, 2.
 * So hooks and middleware, which run in the transactions of others, cannot use any.
 * What opens and closes a large object in one call, such as lo_get(), needs none.
 *
 * A function is looked at when an expression that calls it is made ready.
 */
#include "postgres.h"

#include "catalog/objectaccess.h"
#include "catalog/pg_proc.h"
#include "utils/fmgroids.h"
#include "utils/plancache.h"

#include "userfn/lobject.h"

static object_access_hook_type previous_access = NULL;
static bool forbidden = false;
static bool was_ready = false; /* an expression may be that was made ready while it was not */

static bool
takes_descriptor(Oid function)
{
	switch (function)
	{
		case F_LO_OPEN:
		case F_LO_CLOSE:
		case F_LOREAD:
		case F_LOWRITE:
		case F_LO_LSEEK:
		case F_LO_LSEEK64:
		case F_LO_TELL:
		case F_LO_TELL64:
		case F_LO_TRUNCATE:
		case F_LO_TRUNCATE64:
			return true;
		default:
			return false;
	}
}

static void
look_at_access(ObjectAccessType access, Oid classid, Oid objectid, int subid, void *arg)
{
	if (previous_access)
		previous_access(access, classid, objectid, subid, arg);
	if (access != OAT_FUNCTION_EXECUTE || classid != ProcedureRelationId ||
		!takes_descriptor(objectid))
		return;
	if (!forbidden)
		was_ready = true;
	else
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("a hook or middleware cannot use descriptors of large objects"),
				 errdetail("Others in the transaction could use them, too."),
				 errhint("Use lo_get() and lo_put().")));
}

/* From now on, or no longer; returns what it was. */
bool
qml_lobject_forbid(bool forbid)
{
	bool was = forbidden;

	forbidden = forbid;
	/* PL/pgSQL keeps those to the end of the transaction, as long as their plans hold. */
	if (forbid && was_ready)
	{
		was_ready = false;
		ResetPlanCache();
	}
	return was;
}

void
qml_lobject_init(void)
{
	previous_access = object_access_hook;
	object_access_hook = look_at_access;
}
