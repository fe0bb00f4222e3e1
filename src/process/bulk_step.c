/*
 * bulk_step.c
 *		In the scheduler: bulk operations, beside all else.
 *
 * A run is one chunk, which is made so large that it takes some milliseconds: so the other steps, all
 * of which come before the next chunk, are late by that at most.
 *
 * While the server has nothing else to do, one chunk follows the other.  The busier it is, the
 * longer the pauses are, until the operation has a small share of the time only.  How busy it is
 * is looked at before and after each chunk, and averaged over the latest ones, so that a query of
 * a moment does not slow it down for long, and a load that waits between its transactions counts.
 */
#include "postgres.h"

#include "common/clock.h"
#include "maintenance/bulk_run.h"
#include "process/bulk_step.h"
#include "process/load.h"
#include "userfn/hook.h"

/* Milliseconds that a chunk is to take, alone and beside a load. */
#define TIME_ALONE	40
#define TIME_BESIDE 10

/* Milliseconds after which it looks again where it could not go on. */
#define RETRY_INTERVAL 1000

/* How many jobs it has, and looks at: to begin with, at least, and at most. */
#define FIRST_JOBS	 200
#define LEAST_JOBS	 100
#define MOST_JOBS	 5000
#define FIRST_LOOKED 2000
#define LEAST_LOOKED 1000
#define MOST_LOOKED	 50000

/* The least share of the time that it gets, and by how much a load takes it away. */
#define LEAST_SHARE 0.05
#define WEIGHT		4

/* What the latest sample counts. */
#define SMOOTHING 0.2

static double load = 0;
static int jobs = FIRST_JOBS;
static int looked = FIRST_LOOKED;

static void
note_load(void)
{
	load += (qml_load_sample() - load) * SMOOTHING;
}

/* The part of the time that it may take. */
static double
find_share(void)
{
	return Max(1 - load * WEIGHT, LEAST_SHARE);
}

/*
 * A size for the next chunk, from what the last one took; it changes little at a time, and grows
 * only if the last chunk was as large.
 */
static int
adapt(int size, int64 used, double took, double wanted, int least, int most)
{
	double factor = Min(Max(wanted / Max(took, 0.1), 0.5), used < size ? 1 : 1.25);

	return (int) Min(Max(size * factor, least), most);
}

/*
 * Does a chunk.  Returns when there is more to do; QML_NO_TIME: nothing is under way.  *pause: how
 * long not to come again, milliseconds.
 */
TimestampTz
qml_bulk_step_run(int64 *pause)
{
	instr_time start;
	QmlBulkRun run;
	double took;
	double share;
	double wanted;

	note_load();
	INSTR_TIME_SET_CURRENT(start);
	qml_bulk_run(qml_hook_batch_size(jobs), looked, &run);
	took = qml_clock_ms_since(start);
	note_load();
	if (!run.any)
	{
		/* Others have the row of one that could go on. */
		*pause = RETRY_INTERVAL;
		return run.next;
	}
	share = find_share();
	wanted = share < 1 ? TIME_BESIDE : TIME_ALONE;
	jobs = adapt(jobs, run.met, took, wanted, LEAST_JOBS, MOST_JOBS);
	looked = adapt(looked, run.looked, took, wanted, LEAST_LOOKED, MOST_LOOKED);
	*pause = (int64) (took * (1 - share) / share);
	return run.next;
}
