/*
 * promote.c
 *		Promotion: jobs whose time has come become ready.
 *
 * Scheduled jobs and those that await a retry are in qml.live with a run_at, and so
 * in the index live_due.  Promotion enqueues what is due, the longest due first, in
 * the caller's transaction.  See maintenance/job_pass.c for what happens to rows
 * that somebody else is changing and to broken ones.
 */
#include "postgres.h"

#include "common/fault.h"
#include "common/table.h"
#include "jobs/transition.h"
#include "maintenance/job_pass.h"
#include "maintenance/promote.h"
#include "model/catalog.h"

static void
enqueue_due_job(QmlJobPass *pass, QmlJob *job)
{
	/* A time that was set by hand may be -infinity, which is QML_NO_TIME. */
	Assert(job->run_at <= pass->now);
	qml_transition_set(job, QML_ENQUEUED, pass->now);
}

/*
 * Enqueues up to max jobs that are due; returns how many.  *as_of becomes the time by
 * which they were due.
 */
int
qml_promote_jobs(int max, TimestampTz *as_of)
{
	QmlJobPass pass = {.change = enqueue_due_job, .max = max};

	(void) qml_catalog_to_work();
	qml_job_pass_over_due(&pass);
	QML_FAULT_AT_COMMIT("promote.before_commit");
	*as_of = pass.now;
	return pass.count;
}

/* When the first job is due after a time; QML_NO_TIME: none is scheduled. */
TimestampTz
qml_promote_next_due(TimestampTz after)
{
	TimestampTz first = QML_NO_TIME;

	for (int i = 0; i < qml_stores_in_use(); i++)
	{
		const QmlStore *store = qml_store(i);
		TimestampTz due = qml_table_first_after(store->live, store->live_due, after);

		if (due != QML_NO_TIME && (first == QML_NO_TIME || due < first))
			first = due;
	}
	return first;
}
