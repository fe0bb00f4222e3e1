/*
 * schema_hint.c
 *		What a role without any capability is told when it names a view.
 *
 * The schema qml has the tables, and is closed to such a role (doc/internals/rights.md says
 * why).  So the server refuses it before any code of qml runs: "permission denied for schema
 * qml", which leads people to GRANT USAGE.  A hook that sees each error on its way out adds the
 * hint that functions give.
 *
 * The hook is called in the middle of an error, so it reads no catalog and changes nothing but
 * the hint, if there is none.  The library must be loaded in the session: by preloading, or by
 * an earlier call.  The server calls the hook for what goes to its log, which errors do unless
 * log_min_messages says otherwise.
 */
#include "postgres.h"

#include "utils/elog.h"
#include "utils/memutils.h"

#include "qml.h"
#include "sql/schema_hint.h"

/* The message of the server (aclchk.c), before it is translated. */
#define MESSAGE_ID "permission denied for schema %s"

static emit_log_hook_type previous_hook = NULL;

/* Whether the server has refused the schema qml. */
static bool
is_refusal(const ErrorData *edata)
{
	char message[256];

	if (edata->sqlerrcode != ERRCODE_INSUFFICIENT_PRIVILEGE || edata->hint != NULL ||
		edata->message == NULL || edata->message_id == NULL ||
		strcmp(edata->message_id, MESSAGE_ID) != 0)
		return false;
	snprintf(message, sizeof(message), _(MESSAGE_ID), QML_SCHEMA);
	return strcmp(edata->message, message) == 0;
}

static void
add_hint(ErrorData *edata)
{
	if (is_refusal(edata))
		edata->hint = MemoryContextStrdup(
			ErrorContext,
			"The owner of extension \"qml\" can grant a capability, which opens its views: "
			"SELECT qml_grant(<role>, 'monitor'). Do not GRANT anything on the schema.");
	if (previous_hook)
		previous_hook(edata);
}

/* Called when the library is loaded. */
void
qml_schema_hint_init(void)
{
	previous_hook = emit_log_hook;
	emit_log_hook = add_hint;
}
