/*
 * pass_failures.c
 *		Jobs that a pass over rows left out because they could not be processed.
 *
 * They are counted, and the first one is kept for the warning that the pass ends with.
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/uuid.h"

#include "jobs/pass_failures.h"
#include "model/columns.h"
#include "model/job.h"
#include "model/redact.h"

StaticAssertDecl((int) LIVE_METHOD == (int) HISTORY_METHOD,
				 "both tables have the method under the same number");

/* Notes the job in the slot, a row of qml.live or of finished jobs. */
void
qml_pass_failures_note(QmlPassFailures *failures, TupleTableSlot *slot, const QmlFailure *failure)
{
	MemoryContext oldcontext;
	bool isnull;
	int queue;

	if (failures->count++ > 0)
		return;
	queue = DatumGetInt32(slot_getattr(slot, LIVE_QUEUE_ID, &isnull));
	failures->hidden = qml_redact_has(qml_queue_by_id(queue),
									  slot_getattr(slot, LIVE_METHOD, &isnull));
	oldcontext = MemoryContextSwitchTo(failures->context);
	failures->first.sqlerrcode = failure->sqlerrcode;
	failures->first.message = pstrdup(failure->message);
	failures->first_id = qml_job_id_string(DatumGetUUIDP(slot_getattr(slot, LIVE_ID, &isnull)));
	MemoryContextSwitchTo(oldcontext);
}

/*
 * The first one, as the detail of the warning, after other words.  An error may quote the
 * job: who called reads it only with the right to all jobs, and the server's log does not have it if
 * something is hidden in the job.
 */
int
qml_pass_failures_detail(const QmlPassFailures *failures, const char *before)
{
	const char *sqlstate = unpack_sql_state(failures->first.sqlerrcode);

	if (qml_redact_allow_contents())
		errdetail("%sJob %s: %s (SQLSTATE %s).", before, failures->first_id,
				  failures->first.message, sqlstate);
	return errdetail_log("%sJob %s: %s (SQLSTATE %s).", before, failures->first_id,
						 failures->hidden ? QML_REDACTED : failures->first.message, sqlstate);
}
