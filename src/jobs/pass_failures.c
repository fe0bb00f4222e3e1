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
#include "model/acl.h"
#include "model/columns.h"
#include "model/job.h"

/* Notes the job in the slot, a row of qml.live or of finished jobs. */
void
qml_pass_failures_note(QmlPassFailures *failures, TupleTableSlot *slot, const QmlFailure *failure)
{
	MemoryContext oldcontext;
	bool isnull;

	if (failures->count++ > 0)
		return;
	oldcontext = MemoryContextSwitchTo(failures->context);
	failures->first.sqlerrcode = failure->sqlerrcode;
	failures->first.message = pstrdup(failure->message);
	failures->first_id = qml_job_id_string(DatumGetUUIDP(slot_getattr(slot, LIVE_ID, &isnull)));
	MemoryContextSwitchTo(oldcontext);
}

/*
 * The first one, as the detail of the warning, after other words.  An error may quote the
 * job: who called reads it only with the right to all jobs.
 */
int
qml_pass_failures_detail(const QmlPassFailures *failures, const char *before)
{
	const char *detail = psprintf("%sJob %s: %s (SQLSTATE %s).", before, failures->first_id,
								  failures->first.message,
								  unpack_sql_state(failures->first.sqlerrcode));

	return qml_acl_allow_contents() ? errdetail("%s", detail) : errdetail_log("%s", detail);
}
