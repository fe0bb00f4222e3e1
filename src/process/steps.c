/*
 * steps.c
 *		What a scheduler does, step by step.
 *
 * The table at the end says when each step is due; the loop (scheduler.c) runs it, in a
 * transaction of its own.  A step does a bounded piece of work, and says when it is to be run
 * next.  What a step goes on with in the next turn of its database is in qml_turn; what it would
 * lose otherwise, it gives back (qml_steps_give_back).
 */
#include "postgres.h"

#include "commands/dbcommands.h"
#include "miscadmin.h"

#include "common/clock.h"
#include "common/fault.h"
#include "common/guc.h"
#include "common/log.h"
#include "diagnosis/alert_pass.h"
#include "ipc/lease_table.h"
#include "ipc/session_claim.h"
#include "ipc/slots.h"
#include "ipc/wakeup.h"
#include "jobs/ack.h"
#include "maintenance/counting.h"
#include "maintenance/list_check.h"
#include "maintenance/promote.h"
#include "maintenance/reclaim.h"
#include "maintenance/server.h"
#include "maintenance/stats_keep.h"
#include "process/bulk_step.h"
#include "process/count_process.h"
#include "process/notify.h"
#include "process/slot.h"
#include "process/steps.h"
#include "schedule/tick.h"
#include "userfn/hook.h"
#include "userfn/hook_failure.h"

/* Milliseconds. */
#define NOTIFY_INTERVAL	  100
#define PROGRESS_INTERVAL 100
#define LOOK_INTERVAL	  100
#define HISTORY_INTERVAL  100
#define SERVER_POLL		  10000
#define REFRESH_INTERVAL  (24 * 3600 * 1000)
#define COUNT_INTERVAL	  QML_FAULT_LIMIT("counting.pause_ms", 1000)
#define TELL_INTERVAL	  (60 * 60 * 1000)

/* Rows of one transaction; fewer if hooks take long. */
#define PROMOTE_BATCH 1000
#define RECLAIM_BATCH 1000
#define TICK_BATCH	  256

QmlTurn qml_turn;

/*
 * Milliseconds from now to the next multiple of an interval after `last`: what is
 * done at intervals is done together, in one wake-up.
 */
int64
qml_steps_next_multiple(int64 last, int64 interval, int64 now)
{
	return last == QML_STEP_NEVER ? 0 : (last / interval + 1) * interval - now;
}

/* Hooks that have ended a process because they could not be canceled. */
static TimestampTz
disable_stuck_hooks(QmlStep *step)
{
	qml_hook_failure_disable_stuck();
	return QML_NO_TIME;
}

/* Jobs whose time has come become ready. */
static TimestampTz
promote_jobs(QmlStep *step)
{
	int batch = qml_hook_batch_size(PROMOTE_BATCH);
	TimestampTz next;

	/* After a full batch there may be more, in the next round. */
	if (qml_promote_jobs(batch, &next) < batch)
		next = qml_promote_next_due(next);
	return next;
}

/* The earlier of two times, either of which may be missing. */
TimestampTz
qml_steps_earlier(TimestampTz a, TimestampTz b)
{
	return a == QML_NO_TIME || (b != QML_NO_TIME && b < a) ? b : a;
}

/* When all jobs are to be read, because not all of the claims that run are known. */
static TimestampTz reading_due = QML_NO_TIME;

/*
 * Jobs whose lease is over, and all others that are lost, among the claims that are known.  The
 * jobs of dead servers are looked for when one has died, and now and then, as their rows may have
 * been locked.
 */
static TimestampTz
reclaim_jobs(QmlStep *step)
{
	int64 begun = qml_clock_monotonic_ms();
	bool of_servers = qml_turn.servers_died ||
					  qml_steps_next_multiple(step->looked, QML_STEP_POLL, begun) <= 0;
	TimestampTz next;

	if (!qml_lease_table_is_known())
	{
		reading_due = GetCurrentTimestamp();
		/* For jobs of dead servers; and what was begun when all were known has no haste. */
		qml_turn.read_now = qml_turn.read_now || qml_turn.servers_died ||
							qml_reading_is_slow(&qml_turn.reading);
	}
	(void) qml_reclaim_over(qml_hook_batch_size(RECLAIM_BATCH), of_servers, &next);
	/* There may be more; those of servers come last. */
	if (next != QML_NO_TIME && next <= GetCurrentTimestamp())
		return next;
	if (of_servers)
		step->looked = begun;
	qml_turn.servers_died = false;
	step->not_before = begun +
					   Max(LOOK_INTERVAL, (qml_clock_monotonic_ms() - begun) * QML_WALK_SHARE);
	return next;
}

/*
 * Reads all jobs for those that are lost, a piece of them.  What was begun slowly, because all
 * claims were known, begins anew if they are not any more.
 */
static TimestampTz
read_jobs(QmlStep *step)
{
	int64 begun = qml_clock_monotonic_ms();
	bool is_known = qml_lease_table_is_known();
	int64 pause;

	if (!step->unfinished || step->failures > 0 ||
		(qml_reading_is_slow(&qml_turn.reading) && !is_known))
	{
		reading_due = QML_NO_TIME;
		qml_turn.read_now = false;
		step->unfinished = false;
		if (!qml_reading_begin(&qml_turn.reading))
			return QML_NO_TIME;
	}
	step->unfinished = !qml_reading_go_on(&qml_turn.reading, qml_hook_batch_size(RECLAIM_BATCH),
										  &pause);
	step->not_before = begun + pause;
	/* The claims that it has entered: nobody else may tell when they end. */
	if (qml_turn.reading.next != QML_NO_TIME)
		qml_wakeup_at(QML_WAKE_LEASE, qml_turn.reading.next);
	if (!step->unfinished && qml_lease_table_is_known())
	{
		reading_due = QML_NO_TIME;
		/* A server may have died behind it. */
		qml_turn.servers_died = true;
	}
	/* Some claims find no room: the end of a lease is in the row alone. */
	return qml_lease_table_is_known() ? QML_NO_TIME : qml_turn.reading.next;
}

/* Taken from the slot, and not looked at yet. */
static pg_uuid_t lost[QML_MAX_LOST];
static int nlost = 0;

/* The jobs that ended sessions have left in the slot; reclaim_jobs() finds any others. */
static TimestampTz
reclaim_session_jobs(QmlStep *step)
{
	static bool any = false;
	int batch;

	/* First what is left from before: a part, or all of it after an error. */
	if (nlost == 0)
		nlost = qml_session_claim_take_lost(qml_scheduler.slot, lost, &any);
	if (any)
		qml_wakeup_at(QML_WAKE_LEASE, GetCurrentTimestamp());
	batch = qml_hook_batch_size(nlost);
	/* Some are locked by somebody who may roll back: so look again. */
	if (batch > 0 && qml_reclaim_of_sessions(lost, batch) > 0)
		qml_wakeup_at(QML_WAKE_LEASE, GetCurrentTimestamp() + USECS_PER_SEC);
	nlost -= batch;
	memmove(lost, lost + batch, sizeof(pg_uuid_t) * nlost);
	return nlost > 0 ? GetCurrentTimestamp() : QML_NO_TIME;
}

/* What a scheduler that leaves has taken and not looked at goes back. */
void
qml_steps_give_back(void)
{
	qml_session_claim_give_back_lost(lost, nlost);
}

/* Writes the progress that running jobs have reported into their rows. */
static TimestampTz
write_progress(QmlStep *step)
{
	QmlProgress *progress = palloc(sizeof(QmlProgress));

	for (int i = 0; i < qml_shmem->nslots; i++)
	{
		QmlSlot *worker = &qml_shmem->slots[i];
		QmlAck ack = {.document = PointerGetDatum(progress->document)};

		if (!qml_slots_take_progress(worker, progress))
			continue;
		ack.attempt = progress->attempt;
		qml_ack_write_progress(&progress->job, &ack);
	}
	step->not_before = qml_clock_monotonic_ms() + PROGRESS_INTERVAL;
	return QML_NO_TIME;
}

/* At intervals, however many jobs there are. */
static TimestampTz
notify_listeners(QmlStep *step)
{
	qml_notify_send(qml_scheduler.slot,
					step->failures > 0 || (qml_scheduler.begins && step->looked == QML_STEP_NEVER));
	step->looked = qml_scheduler.round_began;
	step->not_before = qml_clock_monotonic_ms() + NOTIFY_INTERVAL;
	return QML_NO_TIME;
}

/*
 * Searching all ready jobs costs much: only at intervals, the longer the more it costs,
 * and when more workers are allowed.
 */
static TimestampTz
request_workers(QmlStep *step)
{
	bool look = step->looked == QML_STEP_NEVER || qml_workers > qml_turn.workers ||
				(qml_steps_next_multiple(step->looked, QML_STEP_POLL, qml_scheduler.round_began) <=
					 0 &&
				 qml_scheduler.round_began - step->looked >=
					 qml_turn.demand.worked * QML_WALK_SHARE);
	int64 wait = PG_INT64_MAX;

	if (qml_workers > 0)
	{
		wait = qml_worker_demand_serve(&qml_turn.demand, qml_scheduler.slot, look);
		if (look)
			step->looked = qml_scheduler.round_began;
	}
	qml_turn.workers = qml_workers;
	step->unfinished = wait == 0;
	return wait == 0 || wait == PG_INT64_MAX ? QML_NO_TIME : GetCurrentTimestamp() + wait * 1000;
}

/*
 * Servers outside that have sent no heartbeat are given up.  Their jobs are looked for then, and
 * also when somebody else has given one up.
 */
static TimestampTz
reap_servers(QmlStep *step)
{
	TimestampTz next;

	/* If it is due, a server has been silent for long, or somebody has given one up. */
	if (qml_server_give_up_silent(&next) > 0 ||
		(step->due != QML_NO_TIME && step->due <= GetCurrentTimestamp()))
		qml_turn.servers_died = true;
	/* The rows of some may be locked just now. */
	step->not_before = qml_clock_monotonic_ms() + QML_STEP_PROBE;
	return next;
}

/* Recurring jobs whose time has come. */
static TimestampTz
fire_recurring(QmlStep *step)
{
	QmlTicks ticks;

	qml_tick_poll(qml_hook_batch_size(TICK_BATCH), &ticks);
	return ticks.more ? ticks.as_of : qml_tick_next(ticks.as_of);
}

/* Partitions of the history that are needed next, and jobs that have finished without one. */
static TimestampTz
prepare_history(QmlStep *step)
{
	bool failed;

	step->unfinished = qml_cleanup_prepare(&qml_turn.cleanup, &failed);
	/* What keeps a partition from being made may do so for long. */
	if (!step->unfinished)
		step->not_before = qml_clock_monotonic_ms() + (failed ? QML_STEP_POLL : HISTORY_INTERVAL);
	return QML_NO_TIME;
}

/* One partition in a round, so that a large one holds up the other steps only once. */
static TimestampTz
remove_expired(QmlStep *step)
{
	bool waiting;

	step->unfinished = qml_cleanup_step(&qml_turn.cleanup, &waiting);
	if (waiting)
		step->not_before = qml_clock_monotonic_ms() + QML_STEP_PROBE;
	return QML_NO_TIME;
}

/* Zone data may have changed since next_run_at was computed. */
static TimestampTz
refresh_schedules(QmlStep *step)
{
	step->unfinished = !qml_tick_refresh(&qml_turn.refresh);
	return QML_NO_TIME;
}

/* Finds ready jobs that are missing in the lists of their queues; there should be none. */
static TimestampTz
check_lists(QmlStep *step)
{
	static QmlListCheck check;

	step->unfinished = !qml_list_check_step(&check);
	if (step->unfinished)
		step->not_before = qml_clock_monotonic_ms() + QML_STEP_PROBE;
	return QML_NO_TIME;
}

/* Whoever wonders why the functions are slow must find the reason. */
static void
tell_no_process(void)
{
	if (qml_log_is_due_after(QML_LOG_COUNT, TELL_INTERVAL))
		ereport(LOG,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no background process could be started to count the jobs in database "
						"\"%s\"",
						get_database_name(MyDatabaseId)),
				 errhint("Increase max_worker_processes, or decrease qml.max_workers.  It is tried "
						 "again and again.")));
}

/*
 * Has all jobs counted by another process, for the numbers in shared memory.  It is never due by
 * itself: where databases take turns, none gets one because of this.
 */
static TimestampTz
count_jobs(QmlStep *step)
{
	bool runs = qml_count_process_runs();
	bool is_due = qml_counting_is_due();
	int64 pause = is_due && !runs ? qml_counting_pause() : 0;

	if (is_due && !runs && pause == 0 && !qml_count_process_start())
		tell_no_process();
	step->not_before = qml_clock_monotonic_ms() + Max(pause, COUNT_INTERVAL);
	return QML_NO_TIME;
}

/* What was counted for statistics. */
static TimestampTz
store_stats(QmlStep *step)
{
	bool again;
	TimestampTz next = qml_stats_keep_run(&again);

	if (again)
		step->not_before = qml_clock_monotonic_ms() + QML_STEP_PROBE;
	return next;
}

/* A chunk of a bulk operation. */
static TimestampTz
do_bulk(QmlStep *step)
{
	int64 pause;
	TimestampTz next = qml_bulk_step_run(&pause);

	step->not_before = qml_clock_monotonic_ms() + pause;
	return next;
}

/* Alerts begin and end. */
static TimestampTz
watch_alerts(QmlStep *step)
{
	bool checks = qml_steps_next_multiple(step->looked,
										  QML_FAULT_LIMIT("alerts.check_ms", QML_STEP_POLL),
										  qml_scheduler.round_began) <= 0;

	if (qml_alert_interval == 0)
		return QML_NO_TIME;
	if (!qml_alert_pass_run(&qml_turn.alerts, checks))
		step->not_before = qml_clock_monotonic_ms() + QML_STEP_PROBE;
	else if (checks)
		step->looked = qml_scheduler.round_began;
	return QML_NO_TIME;
}

/* Intervals that are neither fixed nor a setting. */

/* At once when qml.workers has changed: what was asked for before may be lost. */
static int64
worker_interval(void)
{
	return qml_workers != qml_turn.workers ? 1 : QML_STEP_POLL;
}

/* Once a minute unless all claims are known. */
static int64
reading_interval(void)
{
	return qml_reading_interval(QML_STEP_POLL);
}

static int64
server_interval(void)
{
	return Min(SERVER_POLL, qml_dead_server_timeout * 500);
}

/* Without alerts it is seen now and then whether there are to be some. */
static int64
alert_interval(void)
{
	return qml_alert_interval == 0 ? QML_STEP_POLL : (int64) qml_alert_interval * 1000;
}

static int64
cleanup_interval(void)
{
	return (int64) qml_cleanup_interval * 1000;
}

QmlStep qml_steps[] = {
	/* First, because any other step could call such a hook again. */
	{.activity = "disabling hooks",
	 .name = "qml scheduler: disabling hooks",
	 .enabled = &qml_enabled,
	 .wake = QML_WAKE_HOOK,
	 .every = QML_STEP_POLL,
	 .run = disable_stuck_hooks},
	{.activity = "promoting due jobs",
	 .name = "qml scheduler: promotion",
	 .enabled = &qml_scheduler_enabled,
	 .wake = QML_WAKE_DUE,
	 .setting = &qml_scheduler_poll_interval,
	 .run = promote_jobs},
	{.activity = "firing recurring jobs",
	 .name = "qml scheduler: firing recurring jobs",
	 .enabled = &qml_recurring_enabled,
	 .wake = QML_WAKE_RECURRING,
	 .setting = &qml_recurring_poll_interval,
	 .run = fire_recurring},
	{.activity = "reclaiming lost jobs",
	 .name = "qml scheduler: reclaiming lost jobs",
	 .enabled = &qml_scheduler_enabled,
	 .wake = QML_WAKE_LEASE,
	 .every = QML_STEP_POLL,
	 .urgent = &qml_turn.servers_died,
	 .run = reclaim_jobs},
	/* After it, as that asks for it. */
	{.activity = "reading all jobs",
	 .name = "qml scheduler: reading all jobs",
	 .enabled = &qml_scheduler_enabled,
	 .wake = -1,
	 .asked = &reading_due,
	 .interval = reading_interval,
	 .urgent = &qml_turn.read_now,
	 .is_done = qml_lease_table_is_known,
	 .run = read_jobs},
	{.activity = "reclaiming jobs of ended sessions",
	 .name = "qml scheduler: reclaiming jobs of ended sessions",
	 .enabled = &qml_scheduler_enabled,
	 .wake = QML_WAKE_SESSION,
	 .every = QML_STEP_POLL,
	 .run = reclaim_session_jobs},
	{.activity = "writing progress",
	 .name = "qml scheduler: writing progress",
	 .enabled = &qml_enabled,
	 .wake = QML_WAKE_PROGRESS,
	 .every = QML_STEP_POLL,
	 .owed = true,
	 .run = write_progress},
	{.activity = "asking for workers",
	 .name = "qml scheduler: asking for workers",
	 .enabled = &qml_enabled,
	 .wake = QML_WAKE_WORK,
	 .interval = worker_interval,
	 .run = request_workers},
	{.activity = "notifying listeners",
	 .name = "qml scheduler: notifying listeners",
	 .enabled = &qml_enabled,
	 .wake = QML_WAKE_NOTIFY,
	 .every = QML_STEP_POLL,
	 .owed = true,
	 .run = notify_listeners},
	{.activity = "looking for dead servers",
	 .name = "qml scheduler: looking for dead servers",
	 .enabled = &qml_scheduler_enabled,
	 .wake = QML_WAKE_SERVER,
	 .interval = server_interval,
	 .run = reap_servers},
	{.activity = "preparing the history",
	 .name = "qml scheduler: preparing the history",
	 .enabled = &qml_scheduler_enabled,
	 .wake = QML_WAKE_HISTORY,
	 .every = QML_STEP_POLL,
	 .run = prepare_history},
	{.activity = "cleaning up",
	 .name = "qml scheduler: cleanup",
	 .enabled = &qml_cleanup_enabled,
	 .wake = -1,
	 .interval = cleanup_interval,
	 .run = remove_expired},
	{.activity = "checking the lists of ready jobs",
	 .name = "qml scheduler: checking the lists of ready jobs",
	 .enabled = &qml_scheduler_enabled,
	 .wake = -1,
	 .every = QML_STEP_POLL,
	 .run = check_lists},
	{.activity = "counting jobs",
	 .name = "qml scheduler: counting jobs",
	 .enabled = &qml_scheduler_enabled,
	 .wake = -1,
	 .interval = qml_counting_interval,
	 .run = count_jobs},
	{.activity = "storing statistics",
	 .name = "qml scheduler: storing statistics",
	 .enabled = &qml_enabled,
	 .wake = QML_WAKE_STATS,
	 .every = QML_STEP_POLL,
	 .run = store_stats},
	{.activity = "doing a bulk operation",
	 .name = "qml scheduler: bulk operation",
	 .enabled = &qml_scheduler_enabled,
	 .wake = QML_WAKE_BULK,
	 .every = QML_STEP_POLL,
	 .run = do_bulk},
	{.activity = "looking for alerts",
	 .name = "qml scheduler: alerts",
	 .enabled = &qml_enabled,
	 .wake = -1,
	 .interval = alert_interval,
	 .run = watch_alerts},
	{.activity = "recomputing schedules",
	 .name = "qml scheduler: recomputing schedules",
	 .enabled = &qml_recurring_enabled,
	 .wake = -1,
	 .every = REFRESH_INTERVAL,
	 .run = refresh_schedules},
};

const int qml_steps_count = lengthof(qml_steps);

StaticAssertDecl(lengthof(qml_steps) <= QML_MAX_STEPS, "each step has a kind of log messages");
