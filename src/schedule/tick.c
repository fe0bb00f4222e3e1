/*
 * tick.c
 *		Recurring jobs: firing those that are due.
 *
 * A schedule's next_run_at only moves forward.  Whoever moves it, by an update
 * that does not wait, has the ticks it passes: advance, record of the occurrence
 * and job are one transaction, so that any number of callers make one job a tick,
 * through crashes and clock jumps.  The record (schedule, instant) is unique, and
 * keeps a tick from firing again even if somebody sets next_run_at back; it is
 * kept for a day.
 *
 * A tick that is a little late is fired nevertheless: by as much as the time to
 * the tick after it, but at least 5 and at most 70 seconds (the grace).  When the
 * first one is later than that, they were missed, and the schedule's policy says
 * what becomes of all that are due: one job (fire_once), none (skip), or one each,
 * up to 1,000 (fire_all).
 *
 * A schedule that cannot fire (its owner may not enqueue, its zone is gone, its
 * expression was edited by hand) says so in its column error and stops nobody.
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
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "common/fault.h"
#include "common/json.h"
#include "common/log.h"
#include "common/row_pass.h"
#include "common/spi.h"
#include "common/table.h"
#include "common/uuid.h"
#include "compat.h"
#include "core/cron.h"
#include "errcodes.h"
#include "ipc/wakeup.h"
#include "jobs/enqueue.h"
#include "model/acl.h"
#include "model/catalog.h"
#include "schedule/tick.h"
#include "schedule/timezone.h"

/* Of a busy machine; and a minute, for those who poll by pg_cron, and some more. */
#define MIN_GRACE (INT64CONST(5) * USECS_PER_SEC)
#define MAX_GRACE (INT64CONST(70) * USECS_PER_SEC)

/* Most jobs that a schedule makes at once, and about as many that one call makes. */
#define MAX_TICKS 1000
#define MAX_JOBS  10000

/* Ticks that one statement forgets. */
#define MAX_FORGET "10000"

typedef enum Misfire
{
	FIRE_ONCE = 0,
	SKIP,
	FIRE_ALL
} Misfire;

static const char *const misfire_names[] = {"fire_once", "skip", "fire_all"};

/* A row of qml.recurring_data. */
typedef struct Schedule
{
	QmlRecurring recurring;
	Oid created_by;
	TimestampTz next_run_at;
	TimestampTz last_run_at;
} Schedule;

/* What is to be done with it. */
typedef struct Firing
{
	TimestampTz *ticks; /* to fire */
	int count;
	TimestampTz next; /* QML_NO_TIME: never again */
	pg_uuid_t last_job;
	int sqlerrcode; /* of the problem */
	char *problem;	/* NULL: none */
} Firing;

/* The tables that firing writes. */
typedef struct Tables
{
	QmlTable recurring;
	QmlTable occurrence;
	Relation occurrence_pkey;
} Tables;

typedef struct Poll
{
	int max;
	TimestampTz now;
	QmlRowPass rows;
	Tables tables;
	Snapshot snapshot;
	int fired; /* ticks of the schedule that was fired last */
	QmlTicks done;
} Poll;

static int
find_misfire(const char *name)
{
	for (int i = 0; i < (int) lengthof(misfire_names); i++)
	{
		if (strcmp(misfire_names[i], name) == 0)
			return i;
	}
	return -1;
}

bool
qml_tick_is_misfire(const char *name)
{
	return find_misfire(name) >= 0;
}

static Datum
get(TupleTableSlot *slot, int column)
{
	return slot->tts_isnull[column - 1] ? (Datum) 0 : slot->tts_values[column - 1];
}

static char *
get_string(TupleTableSlot *slot, int column)
{
	return TextDatumGetCString(get(slot, column));
}

static TimestampTz
get_time(TupleTableSlot *slot, int column)
{
	return slot->tts_isnull[column - 1] ? QML_NO_TIME : DatumGetTimestampTz(get(slot, column));
}

static void
read_schedule(TupleTableSlot *slot, Schedule *schedule)
{
	QmlRecurring *recurring = &schedule->recurring;

	slot_getallattrs(slot);
	recurring->id = get_string(slot, RECURRING_ID);
	recurring->cron = get_string(slot, RECURRING_CRON);
	recurring->method = get_string(slot, RECURRING_METHOD);
	recurring->queue = get_string(slot, RECURRING_QUEUE);
	recurring->timezone = get_string(slot, RECURRING_TIMEZONE);
	recurring->misfire = get_string(slot, RECURRING_MISFIRE);
	recurring->payload = get(slot, RECURRING_PAYLOAD);
	recurring->metadata = get(slot, RECURRING_METADATA);
	recurring->priority = DatumGetInt32(get(slot, RECURRING_PRIORITY));
	recurring->max_retries = slot->tts_isnull[RECURRING_MAX_RETRIES - 1] ?
								 -1 :
								 DatumGetInt32(get(slot, RECURRING_MAX_RETRIES));
	recurring->timeout_ms = slot->tts_isnull[RECURRING_TIMEOUT_MS - 1] ?
								-1 :
								DatumGetInt32(get(slot, RECURRING_TIMEOUT_MS));
	schedule->created_by = DatumGetObjectId(get(slot, RECURRING_CREATED_BY));
	schedule->next_run_at = get_time(slot, RECURRING_NEXT_RUN_AT);
	schedule->last_run_at = get_time(slot, RECURRING_LAST_RUN_AT);
}

static void
set_problem(Firing *plan, int sqlerrcode, char *problem)
{
	plan->count = 0;
	plan->sqlerrcode = sqlerrcode;
	plan->problem = problem;
}

/* Expression and zone; false, with the problem in plan, when they are not good. */
static bool
read_rule(const QmlRecurring *recurring, QmlCron *cron, QmlZone *zone, Firing *plan)
{
	QmlCronError error;

	plan->next = QML_NO_TIME;
	if (!qml_cron_parse(recurring->cron, cron, &error))
	{
		set_problem(plan, ERRCODE_QML_INVALID_CRON, "the cron expression is not valid");
		return false;
	}
	if (!qml_timezone_find(recurring->timezone, zone))
	{
		set_problem(plan, ERRCODE_INVALID_PARAMETER_VALUE,
					psprintf("the time zone \"%s\" is not known", recurring->timezone));
		return false;
	}
	return true;
}

/* The ticks that are due, each by itself, and the next one that is not. */
static void
take_all(const Schedule *schedule, const QmlCron *cron, const QmlZone *zone, TimestampTz now,
		 Firing *plan)
{
	TimestampTz tick = schedule->next_run_at;

	plan->ticks = palloc(sizeof(TimestampTz) * MAX_TICKS);
	while (tick != QML_NO_TIME && tick <= now && plan->count < MAX_TICKS)
	{
		plan->ticks[plan->count++] = tick;
		tick = qml_timezone_next(cron, zone, tick);
	}
	plan->next = tick == QML_NO_TIME || tick > now ? tick : qml_timezone_next(cron, zone, now);
}

/* Whether the schedule's next tick is too late to be fired as if it were not. */
static bool
is_missed(const Schedule *schedule, const QmlCron *cron, const QmlZone *zone, TimestampTz now)
{
	TimestampTz tick = schedule->next_run_at;
	TimestampTz following;

	/* A time that was set by hand may be any. */
	if (tick < now - MAX_GRACE)
		return true;
	if (tick >= now - MIN_GRACE)
		return false;
	following = qml_timezone_next(cron, zone, tick);
	return following != QML_NO_TIME && now > following;
}

static void
make_plan(const Schedule *schedule, TimestampTz now, Firing *plan)
{
	const QmlRecurring *recurring = &schedule->recurring;
	int misfire = find_misfire(recurring->misfire);
	QmlCron cron;
	QmlZone zone;

	memset(plan, 0, sizeof(*plan));
	if (!read_rule(recurring, &cron, &zone, plan))
		return;
	if (!is_missed(schedule, &cron, &zone, now) ||
		(misfire == FIRE_ALL && !TIMESTAMP_NOT_FINITE(schedule->next_run_at)))
		take_all(schedule, &cron, &zone, now, plan);
	else
	{
		plan->next = qml_timezone_next(&cron, &zone, now);
		if (misfire != SKIP)
		{
			plan->ticks = palloc(sizeof(TimestampTz));
			plan->ticks[plan->count++] = schedule->next_run_at;
		}
	}
	if (!qml_acl_role_may_enqueue(schedule->created_by, recurring->queue))
		set_problem(plan, ERRCODE_INSUFFICIENT_PRIVILEGE,
					psprintf("its owner may not enqueue to queue \"%s\"", recurring->queue));
}

static void
set(TupleTableSlot *row, int column, Datum value, bool isnull)
{
	row->tts_values[column - 1] = value;
	row->tts_isnull[column - 1] = isnull;
}

/* Puts the schedule that was read last into the row to be written, with its next tick. */
static void
copy_row(QmlTable *recurring, TimestampTz next)
{
	TupleTableSlot *row = recurring->row;

	ExecClearTuple(row);
	memcpy(row->tts_values, recurring->slot->tts_values, sizeof(Datum) * RECURRING_NATTS);
	memcpy(row->tts_isnull, recurring->slot->tts_isnull, sizeof(bool) * RECURRING_NATTS);
	set(row, RECURRING_NEXT_RUN_AT, TimestampTzGetDatum(next), next == QML_NO_TIME);
	ExecStoreVirtualTuple(row);
}

/* Moves the schedule in recurring.slot on; false if somebody else is faster. */
static bool
advance(Tables *tables, Snapshot snapshot, const Firing *plan)
{
	TupleTableSlot *slot = tables->recurring.slot;
	TupleTableSlot *row = tables->recurring.row;

	copy_row(&tables->recurring, plan->next);
	if (plan->count > 0)
	{
		set(row, RECURRING_LAST_RUN_AT, TimestampTzGetDatum(plan->ticks[plan->count - 1]), false);
		set(row, RECURRING_LAST_JOB, UUIDPGetDatum(&plan->last_job), false);
	}
	set(row, RECURRING_ERROR, plan->problem ? CStringGetTextDatum(plan->problem) : (Datum) 0,
		plan->problem == NULL);
	if (qml_table_update(&tables->recurring, &slot->tts_tid, row, snapshot, false) != TM_Ok)
		return false;
	if (plan->next != QML_NO_TIME)
		qml_wakeup_at(QML_WAKE_RECURRING, plan->next);
	return true;
}

/* Whether the tick was fired before. */
static bool
is_recorded(Tables *tables, const char *id, TimestampTz tick)
{
	Snapshot snapshot = qml_table_latest_snapshot();
	IndexScanDesc scan = qml_index_beginscan(tables->occurrence.rel, tables->occurrence_pkey,
											 snapshot, 2);
	ScanKeyData keys[2];
	bool found;

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_TIMESTAMPTZ_EQ, TimestampTzGetDatum(tick));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_TEXTEQ, CStringGetTextDatum(id));
	/* The order of the index is that of the database's collation, not of C. */
	keys[1].sk_collation = tables->occurrence_pkey->rd_indcollation[1];
	index_rescan(scan, keys, 2, NULL, 0);
	found = index_getnext_slot(scan, ForwardScanDirection, tables->occurrence.slot);
	index_endscan(scan);
	UnregisterSnapshot(snapshot);
	return found;
}

static void
record(Tables *tables, const char *id, TimestampTz tick, const pg_uuid_t *job)
{
	TupleTableSlot *row = tables->occurrence.row;

	ExecClearTuple(row);
	set(row, OCCURRENCE_AT, TimestampTzGetDatum(tick), false);
	set(row, OCCURRENCE_RECURRING, CStringGetTextDatum(id), false);
	set(row, OCCURRENCE_JOB, UUIDPGetDatum(job), false);
	ExecStoreVirtualTuple(row);
	qml_table_insert(&tables->occurrence, row);
}

static void
push_string(JsonbParseState **state, const char *key, const char *string)
{
	qml_json_push_text(state, key, CStringGetTextDatum(string));
}

/*
 * The metadata of a job: those of the schedule, and a member "recurring" that
 * tells its id and the instant of the tick.
 */
static Datum
tick_metadata(const QmlRecurring *recurring, TimestampTz tick)
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
	push_string(&state, "id", recurring->id);
	if (tick != QML_NO_TIME)
	{
		char buffer[MAXDATELEN + 1];
		int utc = 0;

		push_string(&state, "tick",
					JsonEncodeDateTime(buffer, TimestampTzGetDatum(tick), TIMESTAMPTZOID, &utc));
	}
	(void) pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
}

/*
 * Enqueues the job of a tick, QML_NO_TIME for one off the schedule.  created_by:
 * who was found to be allowed to, or InvalidOid for the current user.
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
		.metadata = tick_metadata(recurring, tick),
		.created_by = created_by,
	};

	qml_enqueue_one(&request, recurring->payload, job, false);
}

static void
warn_of_problem(const Schedule *schedule, const Firing *plan)
{
	if (qml_log_is_due(QML_LOG_RECURRING))
		ereport(WARNING,
				(errcode(plan->sqlerrcode),
				 errmsg("recurring job \"%s\" cannot fire", schedule->recurring.id),
				 errdetail("SQLSTATE %s: %s.", unpack_sql_state(plan->sqlerrcode),
						   plan->problem)));
}

/* Takes ticks out of the plan that were fired before, and gives the others jobs. */
static pg_uuid_t *
choose_jobs(Tables *tables, const char *id, Firing *plan)
{
	pg_uuid_t *jobs = palloc(sizeof(pg_uuid_t) * Max(plan->count, 1));
	int count = 0;

	for (int i = 0; i < plan->count; i++)
	{
		if (is_recorded(tables, id, plan->ticks[i]))
			continue;
		qml_uuid_generate(&jobs[count]);
		plan->ticks[count++] = plan->ticks[i];
	}
	plan->count = count;
	if (count > 0)
		plan->last_job = jobs[count - 1];
	return jobs;
}

/*
 * Fires the schedule in recurring.slot.  False, with nothing done, if somebody else is
 * doing so.
 */
static bool
fire_schedule(Poll *poll, Tables *tables, Snapshot snapshot)
{
	Schedule schedule;
	Firing plan;
	pg_uuid_t *jobs;

	read_schedule(tables->recurring.slot, &schedule);
	make_plan(&schedule, poll->now, &plan);
	jobs = choose_jobs(tables, schedule.recurring.id, &plan);
	/* Nothing here waits for others: later, if the queue is being made or dropped. */
	if (plan.count > 0 && qml_enqueue_lock_queue(schedule.recurring.queue, false) == NULL)
		return false;
	QML_FAULT("recurring.before_advance");
	if (!advance(tables, snapshot, &plan))
		return false;
	if (plan.problem)
		warn_of_problem(&schedule, &plan);
	for (int i = 0; i < plan.count; i++)
	{
		record(tables, schedule.recurring.id, plan.ticks[i], &jobs[i]);
		qml_tick_enqueue(&schedule.recurring, plan.ticks[i], schedule.created_by, &jobs[i]);
		QML_FAULT("recurring.after_insert");
	}
	poll->fired = plan.count;
	return true;
}

static void
open_tables(Tables *tables)
{
	qml_table_open(&tables->recurring, qml_catalog()->recurring, RowExclusiveLock);
	qml_table_open(&tables->occurrence, qml_catalog()->occurrence, RowExclusiveLock);
	tables->occurrence_pkey = index_open(qml_catalog()->occurrence_pkey, RowExclusiveLock);
}

static void
close_tables(Tables *tables)
{
	index_close(tables->occurrence_pkey, NoLock);
	qml_table_close(&tables->occurrence);
	qml_table_close(&tables->recurring);
}

static bool
fire_in_pass(void *arg)
{
	Poll *poll = arg;

	return fire_schedule(poll, &poll->tables, poll->snapshot);
}

static bool
fire_alone(void *arg, ItemPointer tid)
{
	Snapshot snapshot = qml_table_snapshot();
	Tables tables;
	bool fired;

	open_tables(&tables);
	fired = table_tuple_fetch_row_version(tables.recurring.rel, tid, snapshot,
										  tables.recurring.slot) &&
			fire_schedule(arg, &tables, snapshot);
	close_tables(&tables);
	UnregisterSnapshot(snapshot);
	return fired;
}

static void
warn_of_failure(void *arg, TupleTableSlot *slot, const QmlFailure *failure)
{
	bool isnull;

	if (qml_log_is_due(QML_LOG_RECURRING))
		ereport(WARNING,
				(errcode(failure->sqlerrcode),
				 errmsg("recurring job \"%s\" cannot fire and is passed over",
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

/* Whether a schedule's next tick is another one by the zone data of today. */
static bool
is_outdated(const Schedule *schedule, TimestampTz now, TimestampTz *next)
{
	Firing plan;
	QmlCron cron;
	QmlZone zone;

	if (schedule->next_run_at == QML_NO_TIME || schedule->next_run_at <= now ||
		!read_rule(&schedule->recurring, &cron, &zone, &plan))
		return false;
	/* Still a tick: the clock may have been set back since it was computed. */
	if (qml_timezone_next(&cron, &zone, schedule->next_run_at - 1) == schedule->next_run_at)
		return false;
	*next = qml_timezone_next(&cron, &zone, Max(now, schedule->last_run_at));
	return *next != schedule->next_run_at;
}

/*
 * Computes next_run_at anew where it is in the future: governments change their
 * minds, and zone data come with the system's updates.  Returns how many changed.
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
		if (qml_table_update(&table, &table.slot->tts_tid, table.row, snapshot, false) == TM_Ok)
			count++;
	}
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	qml_table_close(&table);
	return count;
}

/* Lets the record of ticks go that are a day old. */
void
qml_tick_forget(void)
{
	Oid type = TIMESTAMPTZOID;
	Datum before = TimestampTzGetDatum(GetCurrentTimestamp() - USECS_PER_DAY);
	QmlSpi spi;

	qml_spi_begin(&spi, qml_catalog()->owner);
	(void) qml_spi_execute("DELETE FROM qml.occurrence_data o WHERE (o.occurrence, o.recurring) IN "
						   "(SELECT p.occurrence, p.recurring FROM qml.occurrence_data p "
						   "WHERE p.occurrence < $1 LIMIT " MAX_FORGET " FOR UPDATE SKIP LOCKED)",
						   1, &type, &before, NULL, SPI_OK_DELETE);
	qml_spi_end(&spi);
}
