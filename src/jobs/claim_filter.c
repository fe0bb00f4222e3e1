/*
 * claim_filter.c
 *		Which ready jobs a worker outside the database gets.
 *
 * A worker that names methods gets jobs of these.  Others get jobs of the methods that have
 * no handler: what is registered in the database is run there, by the role that was chosen
 * for it, and no program that fetches from the same queue takes it by accident.  That is so
 * whether the handler can run now or not; to leave it to chance which of the two does a job
 * would be worse than to let it wait.  Where nothing in the database runs handlers, a fetch
 * that passes over such jobs says so, once in a session.
 *
 * Where there is no handler, and no method is named, there is no filter.
 */
#include "postgres.h"

#include "common/guc.h"
#include "ipc/shmem.h"
#include "jobs/claim_filter.h"
#include "model/job.h"
#include "userfn/handler.h"

/* The filter of a claim that names these methods, or NULL. */
void
qml_claim_filter_init(QmlClaimFilter *filter, const QmlMethodSet *methods)
{
	filter->methods = methods;
	filter->left_to_handler = false;
	/* The lowest bit tells the two kinds apart, and is never the only one. */
	if (methods)
		filter->key = methods->hash | 1;
	else if (qml_handler_exist())
		filter->key = (qml_handler_generation() + 1) << 1;
	else
		filter->key = 0;
	if (filter->key != 0 && methods == NULL)
		qml_handler_know_hashes(InvalidOid);
}

/*
 * Whether a job passes whose method has this hash; for a filter that has a key.  It reads
 * nothing, so locks may be held.
 */
bool
qml_claim_filter_passes_hash(uint64 method, void *arg)
{
	QmlClaimFilter *filter = arg;

	Assert(filter->key != 0);
	if (filter->methods)
		return qml_method_set_has_hash(filter->methods, method);
	if (!qml_handler_has_hash(method))
		return true;
	filter->left_to_handler = true;
	return false;
}

/* The same for the job in a slot with a row of qml.live. */
bool
qml_claim_filter_passes(QmlClaimFilter *filter, TupleTableSlot *slot)
{
	Datum method = qml_job_live_method(slot);

	Assert(filter->key != 0);
	if (filter->methods)
		return qml_method_set_has(filter->methods, method);
	if (qml_handler_of(method) == NULL)
		return true;
	filter->left_to_handler = true;
	return false;
}

/* Why nothing in the database runs handlers; NULL: something may. */
static const char *
explain_idle(void)
{
	if (qml_shmem == NULL)
		return "qml is not in shared_preload_libraries.";
	if (!qml_enabled)
		return "\"qml.enabled\" is off.";
	if (qml_workers == 0)
		return "\"qml.workers\" is 0.";
	return NULL;
}

/* The claim has ended: tells the caller of jobs that were left to what does not run. */
void
qml_claim_filter_tell(const QmlClaimFilter *filter)
{
	static bool told = false;
	const char *reason;

	if (!filter->left_to_handler || told)
		return;
	reason = explain_idle();
	if (reason == NULL)
		return;
	told = true;
	ereport(NOTICE,
			(errmsg("ready jobs were left to the handlers of their methods, but nothing runs "
					"handlers in this database"),
			 errdetail("%s", reason),
			 errhint("Name the methods in \"methods\" to fetch their jobs, or unregister the "
					 "handlers.")));
}
