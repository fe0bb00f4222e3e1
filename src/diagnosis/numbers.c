/*
 * numbers.c
 *		Check of the process that counts all jobs (maintenance/counting.c).
 *
 * As long as a database has no numbers, qml_counts() and the like read rows, which is slow with
 * many jobs.  That is so for a while after each start, and no failure.  It is one when the process
 * cannot be started, ends each time without a result, or takes very long.  Numbers that are there
 * stay right if they are not compared; but then a defect is not found.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"

#include "common/fault.h"
#include "common/guc.h"
#include "diagnosis/numbers.h"
#include "diagnosis/processes.h"
#include "ipc/counters.h"
#include "ipc/slots.h"
#include "maintenance/triggers.h"

/* Counts in a row that came to nothing.  One or two happen, as when a table is altered. */
#define MANY_TRIES 3

/* How long a count may take, in milliseconds: the first one, and one that compares. */
#define LONG_FIRST	 QML_FAULT_LIMIT("counting.long_ms", 10 * 60 * 1000)
#define LONG_COMPARE QML_FAULT_LIMIT("counting.long_ms", 3 * 60 * 60 * 1000)

static const char *
describe_outcome(const QmlCounterTimes *times)
{
	switch (times->outcome)
	{
		case QML_COUNT_NO_PROCESS:
			return "the server has no background process to spare";
		case QML_COUNT_NO_ROOM:
			return "shared memory has no room for so many queues and times of expiry";
		case QML_COUNT_FAILED:
			return "the last count failed with an error";
		case QML_COUNT_DISTURBED:
			return "the last count was given up, as somebody locked or altered a table of jobs, or "
				   "wrote jobs by SQL";
		default:
			return "the process that counts was ended, or could not connect";
	}
}

static char *
describe_remedy(const QmlCounterTimes *times)
{
	switch (times->outcome)
	{
		case QML_COUNT_NO_PROCESS:
			return psprintf("Raise max_worker_processes, now %d, and restart the server; or "
							"decrease qml.max_workers.",
							max_worker_processes);
		case QML_COUNT_NO_ROOM:
			return pstrdup("Let finished jobs expire earlier (succeeded_ttl, failed_ttl).");
		case QML_COUNT_DISTURBED:
			return pstrdup("SELECT * FROM pg_locks WHERE mode = 'AccessExclusiveLock';");
		default:
			return pstrdup("See the log of the server.");
	}
}

/* Whether it is the last word of a count that has ended that none can be made. */
static bool
is_failing(const QmlCounterTimes *times)
{
	int ended = times->tries - (times->begun_at != 0 ? 1 : 0);

	return times->outcome == QML_COUNT_NO_PROCESS || times->outcome == QML_COUNT_NO_ROOM ||
		   ended >= MANY_TRIES;
}

/* Of a database where processes work and SQL is told of: what its times say. */
static void
check_times(QmlFinding *finding, const QmlCounterTimes *times, bool valid)
{
	int64 most = valid ? LONG_COMPARE : LONG_FIRST;
	const char *what = valid ? "the numbers of jobs are not compared with the rows" :
							   "jobs are not counted, and qml_counts() reads rows";

	if (times->begun_at != 0 && GetCurrentTimestamp() - times->begun_at > most * 1000)
		qml_finding_fail(finding,
						 psprintf("SELECT * FROM pg_stat_activity WHERE pid = %d;", times->pid),
						 "a count of all jobs has been going on for %s (pid %d)%s",
						 qml_finding_duration(GetCurrentTimestamp() - times->begun_at), times->pid,
						 valid ? "" : ", and qml_counts() reads rows until that is over");
	else if (is_failing(times))
		qml_finding_fail(finding, describe_remedy(times), "%s, since %s: %s", what,
						 qml_finding_time(times->trying_since), describe_outcome(times));
	else if (valid)
		qml_finding_pass(finding, "all jobs were counted at %s",
						 qml_finding_time(times->counted_at));
	else
		qml_finding_pass(finding, "%s, and qml_counts() reads rows until that is over",
						 times->begun_at != 0 ? "all jobs are being counted" :
												"all jobs are about to be counted");
}

void
qml_numbers_check(QmlFinding *finding)
{
	QmlCounterTimes times;

	if (qml_shmem == NULL)
		qml_finding_pass(finding, "qml is not preloaded, and qml_counts() reads rows");
	else if (RecoveryInProgress())
		qml_finding_pass(finding, "jobs are counted on the primary");
	else if (!qml_processes_may_work() || !qml_scheduler_enabled ||
			 pg_atomic_read_u32(&qml_shmem->launcher) == 0)
		qml_finding_follow(finding, "nobody counts the jobs, and qml_counts() may read rows");
	else if (!qml_triggers_tell_of_jobs())
		qml_finding_follow(finding, "qml is not told of jobs that SQL writes, and qml_counts() "
									"reads rows");
	else
	{
		qml_counters_get_times(&times);
		check_times(finding, &times, qml_counters_are_valid());
	}
}
