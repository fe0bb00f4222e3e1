/*
 * counting.c
 *		Counting all jobs, for the numbers in shared memory.
 *
 * The numbers begin with a count of all rows, and are compared with another one now and then
 * (ipc/counters.c, with the proof).  They must be the same.  If not, that is told in the log as a
 * defect, and the new ones are right.
 *
 * A count needs one snapshot, and so one transaction, which takes the longer the more jobs there
 * are.  So a process of its own counts (process/count_process.c), and slowly: it works for a
 * slice of time, and then sleeps, so that it takes a share of a core and of the disk only.  Twice a
 * second it looks whether somebody waits for the table that it reads, and gives the count up then:
 * all who come later to that table would wait, too.
 *
 * A scheduler asks when the next count is due.  The answer depends on what lies in shared memory
 * alone, since neither process may be there for long.  The numbers of a database in which nobody
 * has written a row cannot have become wrong, and are not compared: so a database at rest is left
 * alone, however many jobs it has.  Whether that is so, the server's own statistics say, which
 * count what replication writes, too.  They do not count all: who has track_counts off, or a
 * TRUNCATE that is replicated.  So each database is compared once a day at least.
 *
 * A count is entered as one that came to nothing when its process is started, and as what it was
 * when it is over.  So a process that is killed, or never comes, needs nobody who tells.
 *
 * A crash, or an error, leaves the numbers that are in use as they are.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "common/clock.h"
#include "common/fault.h"
#include "common/wait_event.h"
#include "compat.h"
#include "core/state.h"
#include "ipc/prepared.h"
#include "jobs/counts.h"
#include "maintenance/counting.h"
#include "model/catalog.h"
#include "model/queue.h"

/*
 * How often the numbers are compared; if nothing was written; how often it is looked whether that
 * is due; and how soon they are made, in milliseconds.
 */
#define COMPARE_INTERVAL QML_FAULT_LIMIT("counting.compare_ms", 60 * 60 * 1000)
#define REST_INTERVAL	 QML_FAULT_LIMIT("counting.rest_ms", 24 * 60 * 60 * 1000)
#define LOOK_INTERVAL	 60000
#define MAKE_INTERVAL	 1000

/*
 * Milliseconds of work between two sleeps, and the percentage of the time that is work: functions
 * are slow until the first count is over, and nobody waits for the others.  For tests: how long it
 * sleeps each time that it could, and at least.
 */
#define SLICE		  10
#define FIRST_SHARE	  50
#define COMPARE_SHARE 25
#define LONG_SLEEP	  QML_FAULT_LIMIT("counting.sleep_ms", 0)

/* How often it is asked whether others need the table or the database alone, in milliseconds. */
#define ASK_INTERVAL 500

/*
 * Between two counts, a pause of so many times what one took, an hour at most.  The shortest one;
 * it is doubled with each one in a row that came to nothing, some times.  Where none is of any use,
 * and where jobs are too many to be counted: in milliseconds.
 */
#define PAUSE_SHARE 4
#define MIN_PAUSE	QML_FAULT_LIMIT("counting.pause_ms", 1000)
#define MAX_DOUBLED 6
#define LONG_PAUSE	60000
#define SLOT_PAUSE	10000 /* where the server has no process to spare */
#define MANY_PAUSE	QML_FAULT_LIMIT("counting.many_ms", 60 * 60 * 1000)
#define MOST_PAUSE	(60 * 60 * 1000)

/* ----- when to count ----- */

/* Rows that were written in this database; 0: that is not known. */
static uint64
rows_written(void)
{
	PgStat_StatDBEntry *stats;

	if (!pgstat_track_counts)
		return 0;
	stats = pgstat_fetch_stat_dbentry(MyDatabaseId);
	return stats ? qml_database_written(stats) : 0;
}

/* Whether jobs are to be counted. */
bool
qml_counting_is_due(void)
{
	QmlCounterTimes times;
	int64 age;

	qml_counters_keep();
	if (!qml_counters_are_valid())
		return true;
	qml_counters_get_times(&times);
	age = qml_clock_monotonic_ms() - times.made_ms;
	if (age < COMPARE_INTERVAL)
		return false;
	return times.written == 0 || age >= REST_INTERVAL || times.written != rows_written();
}

/*
 * Milliseconds for which no count can begin, in the caller's transaction: another one is being
 * made, in this server; the last one is not long ago; or it would be of no use.
 */
int64
qml_counting_pause(void)
{
	QmlCounterTimes times;
	QmlCounterSource source;
	int64 left;

	if (qml_counters_are_made())
		return MAKE_INTERVAL;
	qml_counters_get_times(&times);
	left = times.not_before_ms - qml_clock_monotonic_ms();
	if (left > 0)
		return left;
	return qml_counters_have_room() && qml_counts_source(&source) ? 0 : LONG_PAUSE;
}

/* How often to ask for both, in milliseconds. */
int64
qml_counting_interval(void)
{
	return qml_counters_are_valid() ? Min(COMPARE_INTERVAL, LOOK_INTERVAL) : MAKE_INTERVAL;
}

/* The pause after so many counts in a row that came to nothing. */
static int64
pause_after(int tries)
{
	return (int64) MIN_PAUSE << Min(Max(tries - 1, 0), MAX_DOUBLED);
}

/* A process that counts was started, which may never come. */
void
qml_counting_note_start(void)
{
	QmlCounterTimes times;

	qml_counters_get_times(&times);
	if (times.outcome == QML_COUNTED)
		times.trying_since = GetCurrentTimestamp();
	times.tries++;
	times.outcome = QML_COUNT_ENDED;
	times.not_before_ms = qml_clock_monotonic_ms() + pause_after(times.tries);
	qml_counters_set_times(&times);
}

/* The process could not be started after all: the server has none to spare. */
void
qml_counting_note_no_process(void)
{
	QmlCounterTimes times;

	qml_counters_get_times(&times);
	times.tries--;
	times.outcome = QML_COUNT_NO_PROCESS;
	times.not_before_ms = qml_clock_monotonic_ms() + SLOT_PAUSE;
	qml_counters_set_times(&times);
}

/* ----- a count ----- */

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

/* The count that is being made. */
static void (*leave_if_asked)(void);
static int share;
static int64 slice_begun;
static int64 asked;

/* Sleeps between two slices; can be canceled. */
static void
sleep_between(int64 milliseconds)
{
	static uint32 wait_event = 0;

	if (wait_event == 0)
		wait_event = qml_wait_event("QmlCount");
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, (long) milliseconds,
					 wait_event);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/*
 * Whether somebody waits for a table that this process reads.  LockHasWaiters() must not be asked
 * about a lock that may be on the fast path, and newer servers grant this process any lock that it
 * could try before those who wait.  All locks are looked through only where there are some on the
 * table that are not on the fast path.
 */
static bool
is_wanted(Relation rel)
{
	bool wanted = false;
	LockData *locks;
	LOCKTAG tag;

	SET_LOCKTAG_RELATION(tag, rel->rd_lockInfo.lockRelId.dbId, rel->rd_lockInfo.lockRelId.relId);
	if (LockWaiterCount(&tag) == 0)
		return false;
	locks = GetLockStatusData();
	for (int i = 0; i < locks->nelements; i++)
		wanted = wanted || (locks->locks[i].waitLockMode == AccessExclusiveLock &&
							memcmp(&locks->locks[i].locktag, &tag, sizeof(tag)) == 0);
	pfree(locks->locks);
	pfree(locks);
	return wanted;
}

/*
 * Between two rows: sleeps when the slice is over.  Returns whether the count must stop, since
 * somebody waits for the table.
 */
static bool
must_stop(Relation rel)
{
	int64 worked = qml_clock_monotonic_ms() - slice_begun;

	if (worked < SLICE && LONG_SLEEP == 0)
		return false;
	sleep_between(Max(worked * (100 - share) / share, LONG_SLEEP));
	slice_begun = qml_clock_monotonic_ms();
	if (slice_begun - asked < ASK_INTERVAL)
		return false;
	asked = slice_begun;
	leave_if_asked();
	return is_wanted(rel);
}

static QmlCounterOutcome
count_all(void)
{
	QmlCounterSource source;
	QmlCounterDefect defect;
	Snapshot snapshot;
	bool has_room;
	bool done;

	if (!qml_counts_source(&source))
		return QML_COUNT_DISTURBED;
	for (int i = 0; i < QML_COUNTER_TABLES; i++)
		qml_prepared_find_old(source.live[i]);
	if (!qml_counters_begin(&source, &snapshot))
		return QML_COUNT_DISTURBED;
	done = qml_counts_rows(snapshot, must_stop, qml_counters_put, &has_room);
	/* Rows that are deleted or updated cannot be removed as long as there is a snapshot. */
	UnregisterSnapshot(snapshot);
	done = done && qml_counters_wait(qml_prepared_settle);
	if (!done)
		qml_counters_cancel();
	else
		done = qml_counters_finish(&defect);
	if (!has_room)
		return QML_COUNT_NO_ROOM;
	if (!done)
		return QML_COUNT_DISTURBED;
	ereport(DEBUG1, (errmsg_internal("all jobs were counted")));
	report_defect(&defect);
	return QML_COUNTED;
}

/* Whoever wonders why the functions have become slow must find the reason. */
static void
tell_too_many(void)
{
	ereport(DEBUG1, (errmsg_internal("there are too many jobs to count them")));
	ereport(LOG,
			(errmsg("there is no room in shared memory for the numbers of all jobs"),
			 qml_counters_are_valid() ?
				 errdetail("The numbers that qml_counts() shows were not compared with the rows.") :
				 errdetail("The functions qml_counts(), qml_queue_counts() and qml_queue_depth() "
						   "read the rows of the jobs."),
			 errhint("Let finished jobs expire earlier (succeeded_ttl, failed_ttl).  It is tried "
					 "again in an hour.")));
}

/* Notes what became of a count that began at a time, and when the next one may begin. */
static void
note_end(QmlCounterOutcome outcome, int64 begun, uint64 written)
{
	int64 now = qml_clock_monotonic_ms();
	int64 pause = MIN_PAUSE;
	QmlCounterTimes times;

	qml_counters_get_times(&times);
	times.outcome = outcome;
	if (outcome == QML_COUNTED)
	{
		times.made_ms = now;
		times.counted_at = GetCurrentTimestamp();
		times.written = written;
		times.tries = 0;
	}
	else
		pause = outcome == QML_COUNT_NO_ROOM ? MANY_PAUSE : pause_after(times.tries);
	times.not_before_ms = now + Max(pause, Min((now - begun) * PAUSE_SHARE, MOST_PAUSE));
	qml_counters_set_times(&times);
}

/* A count has failed with an error, which has undone it. */
void
qml_counting_note_error(void)
{
	note_end(QML_COUNT_FAILED, qml_clock_monotonic_ms(), 0);
}

/*
 * Counts all rows, in the caller's transaction, which has no time limit.  leave: called now and
 * then, ends the process if it is in the way of others.
 */
void
qml_counting_run(void (*leave)(void))
{
	int64 begun = qml_clock_monotonic_ms();
	uint64 written = rows_written(); /* what is written from here on, the snapshot may not see */
	QmlCounterOutcome outcome;

	(void) qml_catalog_to_work();
	leave_if_asked = leave;
	share = qml_counters_are_valid() ? COMPARE_SHARE : FIRST_SHARE;
	slice_begun = asked = begun;
	QML_FAULT("counting.run");
	outcome = count_all();
	if (outcome == QML_COUNT_NO_ROOM)
		tell_too_many();
	note_end(outcome, begun, written);
}
