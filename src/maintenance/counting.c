/*
 * counting.c
 *		Counting all jobs, for the numbers in shared memory.
 *
 * The numbers begin with a count of all rows, and are compared with another one now and then
 * (ipc/counters.c, with the proof).  They must be the same.  If not, that is told in the log as a
 * defect, and the new ones are right.
 *
 * A crash, or an error, leaves the numbers that are in use as they are.
 */
#include "postgres.h"

#include "utils/snapmgr.h"

#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "core/state.h"
#include "ipc/prepared.h"
#include "jobs/counts.h"
#include "maintenance/counting.h"
#include "model/catalog.h"
#include "model/queue.h"

/* How often the numbers are compared, and how soon they are made, in milliseconds. */
#define COMPARE_INTERVAL QML_FAULT_LIMIT("counting.compare_ms", 60 * 60 * 1000)
#define MAKE_INTERVAL	 1000

/*
 * A count that takes longer is given up, in milliseconds: the scheduler does nothing else
 * meanwhile.  How often it is asked whether others need the database alone.
 */
#define MOST_TIME	 QML_FAULT_LIMIT("counting.most_ms", 10000)
#define ASK_INTERVAL 500

/*
 * Between two counts, a pause of so many times what one took.  The shortest one; it is doubled with
 * each one in a row that came to nothing, some times.  Where none is of any use, and where jobs are
 * too many to be counted: in milliseconds.
 */
#define SHARE		50
#define MIN_PAUSE	QML_FAULT_LIMIT("counting.pause_ms", 1000)
#define MAX_DOUBLED 6
#define LONG_PAUSE	60000
#define MANY_PAUSE	QML_FAULT_LIMIT("counting.many_ms", 60 * 60 * 1000)

/* How often it is told that there are too many, in milliseconds. */
#define TELL_INTERVAL (60 * 60 * 1000)

/* Numbers that were wrong. */
static void
report_defect(const QmlCounterDefect *defect)
{
	const QmlQueue *queue;

	if (defect->found == 0)
		return;
	queue = qml_queue_by_id(defect->queue);
	ereport(LOG,
			(errmsg_plural("%d number of jobs was wrong, and was corrected",
						   "%d numbers of jobs were wrong, and were corrected", defect->found,
						   defect->found),
			 errdetail("Queue \"%s\" was said to have %lld jobs in state %s, and has %lld.",
					   queue ? queue->name : "?", (long long) defect->counted,
					   qml_state_label(defect->state), (long long) defect->real),
			 errhint("That is so for rows that replication has written, those of the history that "
					 "were changed by hand, and those that were changed while triggers were "
					 "disabled.  If there are none, it is a defect of qml.  Please report it.")));
}

/* What became of a count. */
typedef enum Outcome
{
	DONE,
	FAILED,	 /* something came between */
	USELESS, /* and the next one would be, too */
	TOO_LONG,
	NO_ROOM
} Outcome;

/* The count that is being made. */
static bool (*is_wanted)(void); /* whether somebody needs the database alone */
static int64 begun;
static int64 asked;

/* Whether it has to stop. */
static bool
must_stop(void)
{
	int64 now = qml_clock_monotonic_ms();

	if (now - begun > MOST_TIME)
		return true;
	if (now - asked < ASK_INTERVAL)
		return false;
	asked = now;
	return is_wanted();
}

static Outcome
count_all(void)
{
	QmlCounterSource source;
	QmlCounterDefect defect;
	Snapshot snapshot;
	bool has_room;
	bool done;

	if (!qml_counts_source(&source))
		return USELESS;
	for (int i = 0; i < QML_COUNTER_TABLES; i++)
		qml_prepared_find_old(source.live[i]);
	if (!qml_counters_begin(&source, &snapshot))
		return FAILED;
	done = qml_counts_rows(snapshot, must_stop, qml_counters_put, &has_room) &&
		   qml_counters_wait(qml_prepared_settle);
	UnregisterSnapshot(snapshot);
	if (!done)
		qml_counters_cancel();
	else
		done = qml_counters_finish(&defect);
	if (!has_room)
		return NO_ROOM;
	if (!done)
		return qml_clock_monotonic_ms() - begun > MOST_TIME ? TOO_LONG : FAILED;
	ereport(DEBUG1, (errmsg_internal("all jobs were counted")));
	report_defect(&defect);
	return DONE;
}

/* Whoever wonders why the functions have become slow must find the reason. */
static void
tell_too_many(Outcome outcome)
{
	ereport(DEBUG1, (errmsg_internal("there are too many jobs to count them")));
	if (!qml_log_is_due_after(QML_LOG_COUNT, TELL_INTERVAL))
		return;
	ereport(LOG,
			(outcome == TOO_LONG ?
				 errmsg("all jobs could not be counted within %d ms", MOST_TIME) :
				 errmsg("there is no room in shared memory for the numbers of all jobs"),
			 qml_counters_are_valid() ?
				 errdetail("The numbers that qml_counts() shows were not compared with the rows.") :
				 errdetail("The functions qml_counts(), qml_queue_counts() and qml_queue_depth() "
						   "read the rows of the jobs."),
			 errhint("Let finished jobs expire earlier (succeeded_ttl, failed_ttl).  It is tried "
					 "again in an hour.")));
}

static int64
pause_after(Outcome outcome, int failures)
{
	switch (outcome)
	{
		case USELESS:
			return LONG_PAUSE;
		case TOO_LONG:
		case NO_ROOM:
			tell_too_many(outcome);
			return MANY_PAUSE;
		default:
			return (int64) MIN_PAUSE << Min(failures, MAX_DOUBLED);
	}
}

/*
 * Counts all rows, in the caller's transaction; stops when somebody needs the database alone, as
 * the function says.  Returns the milliseconds until the next count.
 */
int64
qml_counting_run(bool (*needs_database)(void))
{
	static int failures = 0;
	Outcome outcome;
	int64 pause;

	(void) qml_catalog_to_work();
	is_wanted = needs_database;
	begun = asked = qml_clock_monotonic_ms();
	outcome = count_all();
	failures = outcome == FAILED ? failures + 1 : 0;
	pause = pause_after(outcome, failures);
	return Max(pause, (qml_clock_monotonic_ms() - begun) * SHARE);
}

/* Milliseconds between two counts. */
int64
qml_counting_interval(void)
{
	return qml_counters_are_valid() ? COMPARE_INTERVAL : MAKE_INTERVAL;
}
