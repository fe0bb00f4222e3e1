/*
 * tick.c
 *		Recurring jobs: firing schedules that are due.
 *
 * A schedule's next_run_at only moves forward.  A caller that advances it, by an update
 * that does not wait, has the ticks that it passes.  Advancing the schedule, recording
 * the ticks (schedule/occurrence.c) and enqueueing their jobs are one transaction, so
 * that any number of callers make one job for each tick, through crashes and jumps of the
 * clock.  A crash before the commit leaves the schedule where it was.
 *
 * Which ticks fire when some are late is decided in schedule/misfire.c.
 *
 * A schedule that cannot fire (its owner may not enqueue, its zone is gone, its
 * expression was edited by hand) says so in its column error and stops no other.
 *
 * Nothing here waits for others.  A schedule that is being changed or fired is left
 * alone, and so is one whose queue is being made or dropped: it is still due at the next
 * call.  As neither the row nor the queue is waited for, their order does not matter.
 */
#include "postgres.h"

#include "access/genam.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgroids.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/snapmgr.h"

#include "common/fault.h"
#include "common/json.h"
#include "common/log.h"
#include "common/row_pass.h"
#include "common/table.h"
#include "common/uuid.h"
#include "compat.h"
#include "errcodes.h"
#include "ipc/wakeup.h"
#include "jobs/enqueue.h"
#include "model/acl.h"
#include "model/catalog.h"
#include "schedule/misfire.h"
#include "schedule/occurrence.h"
#include "schedule/tick.h"

/* A call makes about this many jobs at most. */
#define MAX_JOBS 10000

/* A row of qml.recurring_data. */
typedef struct Schedule
{
	QmlRecurring recurring;
	Oid created_by;
	TimestampTz next_run_at;
	TimestampTz last_run_at;
} Schedule;

/* What becomes of a schedule that is due. */
typedef struct Firing
{
	QmlDueTicks due;
	pg_uuid_t *jobs; /* one for each tick */
	int sqlerrcode;	 /* of the problem */
	char *problem;	 /* why it cannot fire; NULL: it can */
} Firing;

/* The tables that firing writes, besides qml.live. */
typedef struct TickTables
{
	QmlTable recurring;
	QmlOccurrences occurrences;
} TickTables;

/* One call of qml_tick_poll. */
typedef struct Poll
{
	int max;
	TimestampTz now;
	QmlRowPass rows;
	TickTables tables;
	Snapshot snapshot;
	int fired; /* ticks of the schedule that was fired last */
	QmlTicks done;
} Poll;

/* ----- a schedule and its row ----- */

static Datum
get_value(TupleTableSlot *slot, int column)
{
	return slot->tts_isnull[column - 1] ? (Datum) 0 : slot->tts_values[column - 1];
}

static char *
get_text(TupleTableSlot *slot, int column)
{
	return TextDatumGetCString(get_value(slot, column));
}

static int
get_int_or_default(TupleTableSlot *slot, int column)
{
	return slot->tts_isnull[column - 1] ? -1 : DatumGetInt32(slot->tts_values[column - 1]);
}

static TimestampTz
get_time(TupleTableSlot *slot, int column)
{
	return slot->tts_isnull[column - 1] ? QML_NO_TIME :
										  DatumGetTimestampTz(slot->tts_values[column - 1]);
}

/* Payload and metadata point into the slot. */
static void
read_schedule(TupleTableSlot *slot, Schedule *schedule)
{
	QmlRecurring *recurring = &schedule->recurring;

	slot_getallattrs(slot);
	recurring->id = get_text(slot, RECURRING_ID);
	recurring->cron = get_text(slot, RECURRING_CRON);
	recurring->method = get_text(slot, RECURRING_METHOD);
	recurring->queue = get_text(slot, RECURRING_QUEUE);
	recurring->timezone = get_text(slot, RECURRING_TIMEZONE);
	recurring->misfire = get_text(slot, RECURRING_MISFIRE);
	recurring->payload = get_value(slot, RECURRING_PAYLOAD);
	recurring->metadata = get_value(slot, RECURRING_METADATA);
	recurring->priority = DatumGetInt32(get_value(slot, RECURRING_PRIORITY));
	recurring->max_retries = get_int_or_default(slot, RECURRING_MAX_RETRIES);
	recurring->timeout_ms = get_int_or_default(slot, RECURRING_TIMEOUT_MS);
	schedule->created_by = DatumGetObjectId(get_value(slot, RECURRING_CREATED_BY));
	schedule->next_run_at = get_time(slot, RECURRING_NEXT_RUN_AT);
	schedule->last_run_at = get_time(slot, RECURRING_LAST_RUN_AT);
}

static void
set_value(TupleTableSlot *row, int column, Datum value, bool isnull)
{
	row->tts_values[column - 1] = value;
	row->tts_isnull[column - 1] = isnull;
}

/* Copies the schedule that was read last into the row to be written, with its next tick. */
static void
copy_row(QmlTable *recurring, TimestampTz next)
{
	TupleTableSlot *row = recurring->row;

	ExecClearTuple(row);
	memcpy(row->tts_values, recurring->slot->tts_values, sizeof(Datum) * RECURRING_NATTS);
	memcpy(row->tts_isnull, recurring->slot->tts_isnull, sizeof(bool) * RECURRING_NATTS);
	set_value(row, RECURRING_NEXT_RUN_AT, TimestampTzGetDatum(next), next == QML_NO_TIME);
	ExecStoreVirtualTuple(row);
}

/* ----- enqueueing the job of a tick ----- */

/*
 * The metadata of a job: those of the schedule, and a member "recurring" that
 * has its id and the instant of the tick.
 */
static Datum
make_metadata(const QmlRecurring *recurring, TimestampTz tick)
{
	JsonbParseState *state = NULL;
	JsonbIteratorToken token;
	JsonbIterator *it;
	JsonbValue value;

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	if (recurring->metadata != (Datum) 0)
	{
		it = JsonbIteratorInit(&DatumGetJsonbP(recurring->metadata)->root);
		(void) JsonbIteratorNext(&it, &value, true);
		while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_END_OBJECT)
			(void) pushJsonbValue(&state, token, &value);
	}
	qml_json_push_key(&state, "recurring");
	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	qml_json_push_text(&state, "id", CStringGetTextDatum(recurring->id));
	if (tick != QML_NO_TIME)
	{
		char buffer[MAXDATELEN + 1];
		int utc = 0;

		JsonEncodeDateTime(buffer, TimestampTzGetDatum(tick), TIMESTAMPTZOID, &utc);
		qml_json_push_text(&state, "tick", CStringGetTextDatum(buffer));
	}
	(void) pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
}

/*
 * Enqueues the job of a tick, QML_NO_TIME for one off the schedule.  created_by: the
 * schedule's owner, who was found to have the right; InvalidOid: the current user.
 */
void
qml_tick_enqueue(const QmlRecurring *recurring, TimestampTz tick, Oid created_by,
				 const pg_uuid_t *job)
{
	QmlEnqueue request = {
		.method = CStringGetTextDatum(recurring->method),
		.queue = recurring->queue,
		.priority = recurring->priority,
		.run_at = QML_NO_TIME,
		.max_retries = recurring->max_retries,
		.timeout_ms = recurring->timeout_ms,
		.metadata = make_metadata(recurring, tick),
		.created_by = created_by,
	};

	qml_enqueue_one(&request, recurring->payload, job, false);
}

/* ----- firing ----- */

/*
 * The schedule passes its ticks without jobs.  With a bad zone or expression it has no next
 * tick, and next_run_at becomes NULL; with a lost right it goes on from tick to tick.
 */
static void
set_problem(Firing *firing, int sqlerrcode, char *problem)
{
	firing->due.count = 0;
	firing->sqlerrcode = sqlerrcode;
	firing->problem = problem;
}

/* Expression and zone; false, with the problem in firing, when one of them is not valid. */
static bool
parse_times(const QmlRecurring *recurring, QmlCron *cron, QmlZone *zone, Firing *firing)
{
	QmlCronError error;

	if (!qml_cron_parse(recurring->cron, cron, &error))
	{
		set_problem(firing, ERRCODE_QML_INVALID_CRON, "the cron expression is not valid");
		return false;
	}
	if (!qml_timezone_find(recurring->timezone, zone))
	{
		set_problem(firing, ERRCODE_INVALID_PARAMETER_VALUE,
					psprintf("the time zone \"%s\" is not known", recurring->timezone));
		return false;
	}
	return true;
}

/* Decides what becomes of a schedule that is due. */
static void
plan_firing(const Schedule *schedule, TimestampTz now, QmlOccurrences *occurrences, Firing *firing)
{
	const QmlRecurring *recurring = &schedule->recurring;
	QmlDueTicks *due = &firing->due;
	QmlCron cron;
	QmlZone zone;
	int count = 0;

	memset(firing, 0, sizeof(*firing));
	due->next = QML_NO_TIME;
	if (!parse_times(recurring, &cron, &zone, firing))
		return;
	qml_misfire_choose(recurring->misfire, &cron, &zone, schedule->next_run_at, now, due);
	if (!qml_acl_role_may_enqueue(schedule->created_by, recurring->queue))
		set_problem(firing, ERRCODE_INSUFFICIENT_PRIVILEGE,
					psprintf("its owner may not enqueue to queue \"%s\"", recurring->queue));

	/* Ticks that have fired before are dropped; the others get jobs. */
	firing->jobs = palloc(sizeof(pg_uuid_t) * Max(due->count, 1));
	for (int i = 0; i < due->count; i++)
	{
		if (qml_occurrence_find(occurrences, recurring->id, due->ticks[i]))
			continue;
		qml_uuid_generate(&firing->jobs[count]);
		due->ticks[count++] = due->ticks[i];
	}
	due->count = count;
}

/* Moves the schedule in recurring.slot on; false if somebody else was faster. */
static bool
advance_schedule(QmlTable *recurring, Snapshot snapshot, const Firing *firing)
{
	const QmlDueTicks *due = &firing->due;
	TupleTableSlot *row = recurring->row;

	copy_row(recurring, due->next);
	if (due->count > 0)
	{
		set_value(row, RECURRING_LAST_RUN_AT, TimestampTzGetDatum(due->ticks[due->count - 1]),
				  false);
		set_value(row, RECURRING_LAST_JOB, UUIDPGetDatum(&firing->jobs[due->count - 1]), false);
	}
	set_value(row, RECURRING_ERROR,
			  firing->problem ? CStringGetTextDatum(firing->problem) : (Datum) 0,
			  firing->problem == NULL);
	if (qml_table_update(recurring, &recurring->slot->tts_tid, row, snapshot, false) != TM_Ok)
		return false;
	if (due->next != QML_NO_TIME)
		qml_wakeup_at(QML_WAKE_RECURRING, due->next);
	return true;
}

/*
 * Fires the schedule in recurring.slot.  False, with nothing done, if somebody else is
 * changing or firing it.
 */
static bool
fire_schedule(Poll *poll, TickTables *tables, Snapshot snapshot)
{
	Schedule schedule;
	Firing firing;
	const QmlDueTicks *due = &firing.due;

	read_schedule(tables->recurring.slot, &schedule);
	plan_firing(&schedule, poll->now, &tables->occurrences, &firing);
	/* Nothing here waits for others: later, if the queue is being made or dropped. */
	if (due->count > 0 && qml_enqueue_lock_queue(schedule.recurring.queue, false) == NULL)
		return false;
	QML_FAULT("recurring.before_advance");
	if (!advance_schedule(&tables->recurring, snapshot, &firing))
		return false;
	if (firing.problem && qml_log_is_due(QML_LOG_RECURRING))
		ereport(WARNING,
				(errcode(firing.sqlerrcode),
				 errmsg("recurring job \"%s\" cannot fire", schedule.recurring.id),
				 errdetail("SQLSTATE %s: %s.", unpack_sql_state(firing.sqlerrcode),
						   firing.problem)));
	for (int i = 0; i < due->count; i++)
	{
		qml_occurrence_record(&tables->occurrences, schedule.recurring.id, due->ticks[i],
							  &firing.jobs[i]);
		qml_tick_enqueue(&schedule.recurring, due->ticks[i], schedule.created_by, &firing.jobs[i]);
		QML_FAULT("recurring.after_insert");
	}
	poll->fired = due->count;
	return true;
}

static void
open_tables(TickTables *tables)
{
	qml_table_open(&tables->recurring, qml_catalog()->recurring, RowExclusiveLock);
	qml_occurrence_open(&tables->occurrences);
}

static void
close_tables(TickTables *tables)
{
	qml_occurrence_close(&tables->occurrences);
	qml_table_close(&tables->recurring);
}

/* QmlRowPass: change. */
static bool
fire_in_pass(void *arg)
{
	Poll *poll = arg;

	return fire_schedule(poll, &poll->tables, poll->snapshot);
}

/* QmlRowPass: change_alone. */
static bool
fire_alone(void *arg, ItemPointer tid)
{
	Snapshot snapshot = qml_table_snapshot();
	TickTables tables;
	bool fired;

	open_tables(&tables);
	fired = table_tuple_fetch_row_version(tables.recurring.rel, tid, snapshot,
										  tables.recurring.slot) &&
			fire_schedule(arg, &tables, snapshot);
	close_tables(&tables);
	UnregisterSnapshot(snapshot);
	return fired;
}

/* QmlRowPass: failed. */
static void
warn_of_failure(void *arg, TupleTableSlot *slot, const QmlFailure *failure)
{
	bool isnull;

	if (qml_log_is_due(QML_LOG_RECURRING))
		ereport(WARNING,
				(errcode(failure->sqlerrcode),
				 errmsg("recurring job \"%s\" cannot fire and is skipped",
						TextDatumGetCString(slot_getattr(slot, RECURRING_ID, &isnull))),
				 errdetail("SQLSTATE %s: %s.", unpack_sql_state(failure->sqlerrcode),
						   failure->message)));
}

/* Whether this transaction has done enough. */
static bool
is_full(const Poll *poll)
{
	return poll->done.schedules >= poll->max || poll->done.jobs >= MAX_JOBS;
}

/* Goes through the schedules that are due, the longest due first. */
static void
walk_due(void *arg)
{
	Poll *poll = arg;
	Relation due;
	IndexScanDesc scan;
	ScanKeyData key;

	memset(&poll->done, 0, sizeof(poll->done));
	open_tables(&poll->tables);
	poll->snapshot = qml_table_snapshot();
	due = index_open(qml_catalog()->recurring_due, RowExclusiveLock);
	scan = qml_index_beginscan(poll->tables.recurring.rel, due, poll->snapshot, 1);
	ScanKeyInit(&key, 1, BTLessEqualStrategyNumber, F_TIMESTAMPTZ_LE,
				TimestampTzGetDatum(poll->now));
	index_rescan(scan, &key, 1, NULL, 0);
	while (!is_full(poll) &&
		   index_getnext_slot(scan, ForwardScanDirection, poll->tables.recurring.slot))
	{
		if (!qml_row_pass_visit(&poll->rows, poll->tables.recurring.slot))
			continue;
		poll->done.schedules++;
		poll->done.jobs += poll->fired;
	}
	index_endscan(scan);
	index_close(due, NoLock);
	UnregisterSnapshot(poll->snapshot);
	close_tables(&poll->tables);
}

/* Fires up to max schedules that are due, and no more once they made MAX_JOBS jobs. */
void
qml_tick_poll(int max, QmlTicks *ticks)
{
	Poll poll = {.max = max,
				 .now = GetCurrentTimestamp(),
				 .rows = {.walk = walk_due,
						  .change = fire_in_pass,
						  .change_alone = fire_alone,
						  .failed = warn_of_failure,
						  .arg = &poll}};

	(void) qml_catalog_to_work();
	qml_row_pass_run(&poll.rows);
	QML_FAULT_AT_COMMIT("recurring.before_commit");
	poll.done.more = is_full(&poll);
	poll.done.as_of = poll.now;
	*ticks = poll.done;
}

/* When the first schedule is due after a time; QML_NO_TIME: none is. */
TimestampTz
qml_tick_next(TimestampTz after)
{
	return qml_table_first_after(qml_catalog()->recurring, qml_catalog()->recurring_due, after);
}

/* ----- after a change of the zone data ----- */

/* Whether today's zone data give the schedule another next tick. */
static bool
is_outdated(const Schedule *schedule, TimestampTz now, TimestampTz *next)
{
	Firing firing;
	QmlCron cron;
	QmlZone zone;

	if (schedule->next_run_at == QML_NO_TIME || schedule->next_run_at <= now ||
		!parse_times(&schedule->recurring, &cron, &zone, &firing))
		return false;
	/* Still a tick: the clock may have been set back since it was computed. */
	if (qml_timezone_next(&cron, &zone, schedule->next_run_at - 1) == schedule->next_run_at)
		return false;
	*next = qml_timezone_next(&cron, &zone, Max(now, schedule->last_run_at));
	Assert(*next == QML_NO_TIME || (*next > now && *next > schedule->last_run_at));
	return *next != schedule->next_run_at;
}

/*
 * Computes next_run_at anew where it is in the future: the rules of a zone may have
 * changed with an update of the system.  It is never set to a time that has passed or
 * that the schedule has fired at.  Returns how many changed.
 */
int
qml_tick_refresh(void)
{
	TimestampTz now = GetCurrentTimestamp();
	Snapshot snapshot = qml_table_snapshot();
	QmlTable table;
	TableScanDesc scan;
	int count = 0;

	(void) qml_catalog_to_work();
	qml_table_open(&table, qml_catalog()->recurring, RowExclusiveLock);
	scan = table_beginscan(table.rel, snapshot, 0, NULL);
	while (table_scan_getnextslot(scan, ForwardScanDirection, table.slot))
	{
		Schedule schedule;
		TimestampTz next;

		CHECK_FOR_INTERRUPTS();
		read_schedule(table.slot, &schedule);
		if (!is_outdated(&schedule, now, &next))
			continue;
		copy_row(&table, next);
		if (qml_table_update(&table, &table.slot->tts_tid, table.row, snapshot, false) != TM_Ok)
			continue;
		if (next != QML_NO_TIME)
			qml_wakeup_at(QML_WAKE_RECURRING, next);
		count++;
	}
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	qml_table_close(&table);
	return count;
}
