/*
 * overlap.c
 *		Whether a schedule fires while jobs of it are unfinished.
 *
 * The policy of a schedule is one of
 *
 *	allow		it fires whatever becomes of its jobs
 *	skip		it does not fire while a job of it is unfinished
 *	queue_one	it does not fire while a job of it waits, nor while two are unfinished: so at
 *				most one waits beside one that runs
 *
 * A schedule with one of the last two has the ids of its jobs in the column open_jobs, which
 * is NULL otherwise.  They are looked up by primary key when it is due; those that are no
 * longer in qml.live are forgotten.  So a job counts as long as it is unfinished for
 * everybody: finished, deleted or failed for good it does not, whether the history keeps it
 * or not; one that is finished by a transaction that is still open, or prepared, does; so
 * does one that waits to be retried.  One that is retried by hand counts if no tick was due
 * since it was finished.  A copy of the database has copies of the jobs, with the same ids.
 *
 * Two callers cannot both find room: the one that advances the row of the schedule does
 * (schedule/tick.c), and writes the ids with it.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"

#include "jobs/lookup.h"
#include "schedule/overlap.h"

#define SKIP	  "skip"
#define QUEUE_ONE "queue_one"

/* Of a schedule that is run by hand very often: the latest ones. */
#define MAX_OPEN 100

/* Whether there is an overlap policy of this name. */
bool
qml_overlap_is_policy(const char *name)
{
	return strcmp(name, QML_OVERLAP_ALLOW) == 0 || qml_overlap_is_watched(name);
}

/*
 * Whether a schedule with this policy has to know its unfinished jobs.  A policy that is not
 * known (edited by hand) means allow.
 */
bool
qml_overlap_is_watched(const char *policy)
{
	return strcmp(policy, SKIP) == 0 || strcmp(policy, QUEUE_ONE) == 0;
}

/* The ids in an array, which may be 0 or edited by hand; how many. */
static int
read_ids(Datum array, Datum **ids)
{
	ArrayType *values;
	Datum *elements;
	bool *nulls;
	int count;
	int known = 0;

	*ids = NULL;
	if (array == (Datum) 0)
		return 0;
	values = DatumGetArrayTypeP(array);
	deconstruct_array(values, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR, &elements, &nulls, &count);
	*ids = elements;
	for (int i = 0; i < count; i++)
	{
		if (!nulls[i])
			elements[known++] = elements[i];
	}
	return known;
}

static Datum
make_array(Datum *ids, int count)
{
	return PointerGetDatum(construct_array(ids, count, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR));
}

/*
 * Whether a schedule with this policy may enqueue one job.  *still_open: those of open_jobs
 * that are unfinished, an array, for qml_overlap_add().
 */
bool
qml_overlap_has_room(const char *policy, Datum open_jobs, Datum *still_open)
{
	Datum *ids;
	int count = read_ids(open_jobs, &ids);
	int open = 0;
	int waiting = 0;

	Assert(qml_overlap_is_watched(policy));
	for (int i = 0; i < count; i++)
	{
		QmlState state;

		if (!qml_lookup_unfinished(DatumGetUUIDP(ids[i]), &state))
			continue;
		ids[open++] = ids[i];
		if (state != QML_PROCESSING)
			waiting++;
	}
	*still_open = make_array(ids, open);
	return open == 0 || (strcmp(policy, QUEUE_ONE) == 0 && waiting == 0 && open < 2);
}

/* Adds a job to those that may be unfinished; drops the oldest when there are very many. */
Datum
qml_overlap_add(Datum open_jobs, const pg_uuid_t *job)
{
	Datum *ids;
	int count = read_ids(open_jobs, &ids);
	int drop = Max(count + 1 - MAX_OPEN, 0);
	Datum *all = palloc(sizeof(Datum) * (count + 1 - drop));

	if (count > drop)
		memcpy(all, ids + drop, sizeof(Datum) * (count - drop));
	all[count - drop] = UUIDPGetDatum(job);
	return make_array(all, count + 1 - drop);
}
