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
 * Which ticks fire when some are late is decided in schedule/misfire.c, and which are
 * skipped because a job is unfinished, in schedule/overlap.c.  All of them are recorded,
 * also those that make no job.
 *
 * A schedule that cannot fire (its owner may not enqueue, its zone is gone, its
 * expression was edited by hand) says so in its column error and stops no other.
 *
 * Nothing here waits for others.  A schedule that is being changed or fired is left
 * alone, and so is one whose queue is being made or dropped, or whose part of the ledger
 * somebody has locked: it is still due at the next call.  As none of them is waited for,
 * their order does not matter.
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
#include "jobs/watching.h"
#include "model/acl.h"
#include "model/catalog.h"
#include "model/redact.h"
#include "model/role_mark.h"
#include "schedule/misfire.h"
#include "schedule/occurrence.h"
#include "schedule/overlap.h"
#include "schedule/tick.h"

/* A call records about this many ticks at most. */
#define MAX_TICKS 10000

/* A row of qml.recurring_data. */
typedef struct Schedule
{
	QmlRecurring recurring;
	Oid created_by;
	TimestampTz next_run_at;
	TimestampTz last_run_at;
	TimestampTz fired_through;
	TimestampTz anchor;
	Datum open_jobs; /* uuid[]; 0: null */
} Schedule;

/* What becomes of a schedule that is due. */
typedef struct Firing
{
	QmlTimes times;
	QmlDueTicks due;
	int jobs;				   /* ticks that fire */
	const QmlTick *last_job;   /* the last of them; NULL: none */
	TimestampTz fired_through; /* of the schedule afterwards */
	Datum open_jobs;		   /* of the schedule afterwards; 0: null */
	int sqlerrcode;			   /* of the problem */
	char *problem;			   /* why it cannot fire; NULL: it can */
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
	int fired;	  /* jobs of the schedule that was fired last */
	int recorded; /* and its ticks */
	int ticks;	  /* recorded by this call */
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

/* Payload, metadata, type and open jobs point into the slot. */
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
	recurring->overlap = get_text(slot, RECURRING_OVERLAP);
	recurring->payload = get_value(slot, RECURRING_PAYLOAD);
	recurring->metadata = get_value(slot, RECURRING_METADATA);
	recurring->job_type = get_value(slot, RECURRING_JOB_TYPE);
	recurring->priority = DatumGetInt32(get_value(slot, RECURRING_PRIORITY));
	recurring->max_retries = get_int_or_default(slot, RECURRING_MAX_RETRIES);
	recurring->timeout_ms = get_int_or_default(slot, RECURRING_TIMEOUT_MS);
	schedule->created_by = DatumGetObjectId(get_value(slot, RECURRING_CREATED_BY));
	schedule->next_run_at = get_time(slot, RECURRING_NEXT_RUN_AT);
	schedule->last_run_at = get_time(slot, RECURRING_LAST_RUN_AT);
	schedule->fired_through = get_time(slot, RECURRING_FIRED_THROUGH);
	schedule->anchor = get_time(slot, RECURRING_ANCHOR);
	schedule->open_jobs = get_value(slot, RECURRING_OPEN_JOBS);
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
	int natts = row->tts_tupleDescriptor->natts;

	Assert(recurring->slot->tts_nvalid == natts);
	ExecClearTuple(row);
	/* All of them, also those that the library does not know. */
	memcpy(row->tts_values, recurring->slot->tts_values, sizeof(Datum) * natts);
	memcpy(row->tts_isnull, recurring->slot->tts_isnull, sizeof(bool) * natts);
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
		/* Somebody has edited the row. */
		if (!JB_ROOT_IS_OBJECT(DatumGetJsonbP(recurring->metadata)))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("metadata of recurring job \"%s\" is not a JSON object", recurring->id),
					 errhint("Define the recurring job anew, with qml_schedule_recurring().")));
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
		.job_type = recurring->job_type,
		.created_by = created_by,
	};

	qml_enqueue_one(&request, recurring->payload, job, false);
}

/* ----- firing ----- */

static void
set_problem(Firing *firing, int sqlerrcode, char *problem)
{
	firing->sqlerrcode = sqlerrcode;
	firing->problem = problem;
}

/* Expression and zone; false, with the problem in firing, when one of them is not valid. */
static bool
parse_times(const Schedule *schedule, Firing *firing)
{
	const QmlRecurring *recurring = &schedule->recurring;
	QmlCronError error;

	if (!qml_times_parse(recurring->cron, &firing->times, &error))
	{
		set_problem(firing, ERRCODE_QML_INVALID_CRON, "the cron expression is not valid");
		return false;
	}
	firing->times.anchor = schedule->anchor;
	if (!qml_timezone_find(recurring->timezone, &firing->times.zone))
	{
		set_problem(firing, ERRCODE_INVALID_PARAMETER_VALUE,
					psprintf("the time zone \"%s\" is not known", recurring->timezone));
		return false;
	}
	return true;
}

/* Whether the schedule may make jobs; the problem is in firing if not. */
static bool
may_fire(const Schedule *schedule, Firing *firing)
{
	char *reason = qml_role_mark_problem(QML_MARK_REGISTRATION, schedule->created_by, "its owner");

	if (reason)
		set_problem(firing, ERRCODE_INSUFFICIENT_PRIVILEGE, reason);
	else if (!qml_acl_role_may_enqueue(schedule->created_by, schedule->recurring.queue))
		set_problem(firing, ERRCODE_INSUFFICIENT_PRIVILEGE,
					psprintf("its owner may not enqueue to queue \"%s\"",
							 schedule->recurring.queue));
	return firing->problem == NULL;
}

/*
 * Whether the schedule may have fired at its next ticks already.  It fires in the order of
 * time, so only one that was set back can have, or a new one with the name of an older one
 * that fired at later times: fired_through is the last of them.
 */
static bool
may_have_fired(const Schedule *schedule)
{
	return schedule->last_run_at == QML_NO_TIME || schedule->next_run_at <= schedule->last_run_at ||
		   (schedule->fired_through != QML_NO_TIME &&
			schedule->next_run_at <= schedule->fired_through);
}

/*
 * Decides what becomes of a schedule that is due.  With a bad zone or expression it has no
 * next tick, and next_run_at becomes NULL; with a lost right it goes on from tick to tick
 * without jobs.
 */
static void
plan_firing(const Schedule *schedule, TimestampTz now, QmlOccurrences *occurrences, Firing *firing)
{
	const QmlRecurring *recurring = &schedule->recurring;
	QmlDueTicks *due = &firing->due;
	bool watched = qml_overlap_is_watched(recurring->overlap);
	bool look = may_have_fired(schedule);
	bool allowed;
	bool room = true;
	int count = 0;

	memset(firing, 0, sizeof(*firing));
	due->next = QML_NO_TIME;
	firing->fired_through = look ? qml_occurrence_last_fired(occurrences, recurring->id,
															 schedule->next_run_at) :
								   QML_NO_TIME;
	firing->open_jobs = schedule->open_jobs;
	if (!parse_times(schedule, firing))
		return;
	qml_misfire_choose(recurring->misfire, &firing->times, schedule->next_run_at, now, due);
	allowed = may_fire(schedule, firing);
	if (watched && allowed)
		room = qml_overlap_has_room(recurring->overlap, schedule->open_jobs, &firing->open_jobs);

	for (int i = 0; i < due->count; i++)
	{
		QmlTick *tick = &due->ticks[count];

		*tick = due->ticks[i];
		if (qml_misfire_fires(tick))
		{
			if (look && qml_occurrence_has_fired(occurrences, recurring->id, tick->at))
				continue;
			if (!allowed)
				tick->outcome = QML_TICK_ERROR;
			else if (!room)
				tick->outcome = QML_TICK_SKIPPED;
			else
			{
				qml_uuid_generate(&tick->job);
				firing->last_job = tick;
				firing->jobs++;
				room = !watched;
				if (watched)
					firing->open_jobs = qml_overlap_add(firing->open_jobs, &tick->job);
			}
		}
		count++;
	}
	due->count = count;
}

/* Moves the schedule in recurring.slot on; false if somebody else was faster. */
static bool
advance_schedule(QmlTable *recurring, const Schedule *schedule, Snapshot snapshot,
				 const Firing *firing)
{
	const QmlDueTicks *due = &firing->due;
	TupleTableSlot *row = recurring->row;
	TimestampTz last_run_at = get_time(recurring->slot, RECURRING_LAST_RUN_AT);
	bool passed;

	copy_row(recurring, due->next);
	/* One that was set back may fire an earlier tick. */
	if (firing->last_job && firing->last_job->at > last_run_at)
	{
		set_value(row, RECURRING_LAST_RUN_AT, TimestampTzGetDatum(firing->last_job->at), false);
		set_value(row, RECURRING_LAST_JOB, UUIDPGetDatum(&firing->last_job->job), false);
	}
	/* While a tick that has fired is ahead, the ledger is looked at. */
	passed = due->next == QML_NO_TIME || firing->fired_through < due->next;
	set_value(row, RECURRING_FIRED_THROUGH, TimestampTzGetDatum(firing->fired_through), passed);
	set_value(row, RECURRING_OPEN_JOBS, firing->open_jobs, firing->open_jobs == (Datum) 0);
	set_value(row, RECURRING_ERROR,
			  firing->problem ? CStringGetTextDatum(firing->problem) : (Datum) 0,
			  firing->problem == NULL);
	if (qml_table_update(recurring, &recurring->slot->tts_tid, row, snapshot, false) != TM_Ok)
		return false;
	qml_watching_note_queue(schedule->recurring.queue);
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
	/* Nothing here waits for others: later, if somebody has locked the ledger. */
	if (may_have_fired(&schedule) && !qml_occurrence_try_read(&tables->occurrences))
		return false;
	plan_firing(&schedule, poll->now, &tables->occurrences, &firing);
	if (due->count > 0 && !qml_occurrence_try_write(&tables->occurrences, &firing.times))
		return false;
	/* And if the queue is being made or dropped. */
	if (firing.jobs > 0 && qml_enqueue_try_lock_queue(schedule.recurring.queue) == NULL)
		return false;
	QML_FAULT("recurring.before_advance");
	if (!advance_schedule(&tables->recurring, &schedule, snapshot, &firing))
		return false;
	if (firing.problem && qml_log_is_due(QML_LOG_RECURRING))
		ereport(WARNING,
				(errcode(firing.sqlerrcode),
				 errmsg("recurring job \"%s\" cannot fire", schedule.recurring.id),
				 errdetail("SQLSTATE %s: %s.", unpack_sql_state(firing.sqlerrcode),
						   firing.problem)));
	for (int i = 0; i < due->count; i++)
	{
		const QmlTick *tick = &due->ticks[i];

		qml_occurrence_record(&tables->occurrences, schedule.recurring.id, &firing.times, tick);
		if (!qml_misfire_fires(tick))
			continue;
		qml_tick_enqueue(&schedule.recurring, tick->at, schedule.created_by, &tick->job);
		QML_FAULT("recurring.after_insert");
	}
	poll->fired = firing.jobs;
	poll->recorded = due->count;
	return true;
}

static void
open_tables(TickTables *tables, TimestampTz now)
{
	qml_table_open(&tables->recurring, qml_catalog()->recurring, RowExclusiveLock);
	qml_occurrence_open(&tables->occurrences, now);
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
	Poll *poll = arg;
	Snapshot snapshot = qml_table_snapshot();
	TickTables tables;
	bool fired;

	open_tables(&tables, poll->now);
	fired = table_tuple_fetch_row_version(tables.recurring.rel, tid, snapshot,
										  tables.recurring.slot) &&
			fire_schedule(poll, &tables, snapshot);
	close_tables(&tables);
	UnregisterSnapshot(snapshot);
	return fired;
}

/* QmlRowPass: failed. */
static void
warn_of_failure(void *arg, TupleTableSlot *slot, const QmlFailure *failure)
{
	bool isnull;
	char *queue = TextDatumGetCString(slot_getattr(slot, RECURRING_QUEUE, &isnull));
	bool hidden = qml_redact_has(qml_queue_by_name(queue),
								 slot_getattr(slot, RECURRING_METHOD, &isnull));

	/* The error may quote the payload. */
	if (qml_log_is_due(QML_LOG_RECURRING))
		ereport(WARNING,
				(errcode(failure->sqlerrcode),
				 errmsg("recurring job \"%s\" cannot fire and is skipped",
						TextDatumGetCString(slot_getattr(slot, RECURRING_ID, &isnull))),
				 errdetail("SQLSTATE %s: %s.", unpack_sql_state(failure->sqlerrcode),
						   hidden ? QML_REDACTED : failure->message)));
}

/* Whether this transaction has done enough. */
static bool
is_full(const Poll *poll)
{
	return poll->done.schedules >= poll->max || poll->ticks >= MAX_TICKS;
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
	poll->ticks = 0;
	open_tables(&poll->tables, poll->now);
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
		poll->ticks += poll->recorded;
	}
	index_endscan(scan);
	index_close(due, NoLock);
	UnregisterSnapshot(poll->snapshot);
	close_tables(&poll->tables);
}

/* Fires up to max schedules that are due, and no more once MAX_TICKS ticks are recorded. */
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

	if (schedule->next_run_at == QML_NO_TIME || schedule->next_run_at <= now ||
		!parse_times(schedule, &firing))
		return false;
	/* Still a tick: the clock may have been set back since it was computed. */
	if (qml_times_next(&firing.times, schedule->next_run_at - 1) == schedule->next_run_at)
		return false;
	*next = qml_times_next(&firing.times, Max(now, schedule->last_run_at));
	Assert(*next == QML_NO_TIME || (*next > now && *next > schedule->last_run_at));
	return *next != schedule->next_run_at;
}

/*
 * Computes next_run_at anew where it is in the future: the rules of a zone may have
 * changed with an update of the system.  It is never set to a time that has passed or
 * that the schedule has fired at.  Looks at a piece of the walk over all schedules; one
 * that moves behind it was computed with today's rules.  Returns whether the walk is over.
 */
bool
qml_tick_refresh(QmlWalk *walk)
{
	TimestampTz now = GetCurrentTimestamp();
	Snapshot snapshot = qml_table_snapshot();
	QmlTable table;
	QmlWalkPiece piece;
	bool over;

	(void) qml_catalog_to_work();
	qml_table_open(&table, qml_catalog()->recurring, RowExclusiveLock);
	qml_walk_open(&piece, walk, &table, snapshot);
	while (qml_walk_next_row(&piece))
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
		qml_watching_note_queue(schedule.recurring.queue);
		if (next != QML_NO_TIME)
			qml_wakeup_at(QML_WAKE_RECURRING, next);
	}
	over = qml_walk_close(&piece);
	UnregisterSnapshot(snapshot);
	qml_table_close(&table);
	return over;
}
