/*
 * recurring.c
 *		Recurring jobs: defining, changing, pausing and removing schedules.
 *
 * Rows of qml.recurring_data are written here by SQL, and by schedule/tick.c when they
 * fire.  A call that changes one locks it first, FOR UPDATE, and then judges what is
 * there and whether the current user may change it; callers that fire leave the row alone
 * meanwhile.  The queue is locked after the row, or before a new one is inserted.
 *
 * Defining a schedule again unchanged only reads: no lock and no
 * transaction id, so that applications may do it at each start.
 *
 * All of it is the caller's transaction; a crash before its commit leaves the schedule as
 * it was.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/inval.h"

#include "common/spi.h"
#include "common/uuid.h"
#include "compat.h"
#include "errcodes.h"
#include "ipc/wakeup.h"
#include "jobs/enqueue.h"
#include "model/acl.h"
#include "model/catalog.h"
#include "schedule/recurring.h"
#include "userfn/handler.h"

/* A schedule as it is stored, and how it compares with what is asked for. */
typedef struct StoredSchedule
{
	QmlRecurring recurring;
	Oid created_by;
	bool enabled;
	bool broken; /* has an error */
	TimestampTz next_run_at;
	TimestampTz last_run_at;
	bool same_times; /* cron and time zone are those asked for */
	bool same;		 /* everything is */
} StoredSchedule;

/* Parses an expression, or raises QM004. */
void
qml_recurring_parse(const char *expression, QmlCron *cron)
{
	QmlCronError error;
	char *shown;

	if (qml_cron_parse(expression, cron, &error))
		return;
	shown = pnstrdup(expression, pg_mbcliplen(expression, strlen(expression), QML_CRON_MAX_LENGTH));
	/* It may have been cut within a character. */
	error.text[pg_mbcliplen(error.text, strlen(error.text), strlen(error.text))] = '\0';
	if (error.field)
		ereport(ERROR,
				(errcode(ERRCODE_QML_INVALID_CRON),
				 errmsg("invalid cron expression \"%s\"", shown),
				 errdetail("\"%s\" is not valid in the field %s: %s.", error.text, error.field,
						   error.allowed)));
	ereport(ERROR,
			(errcode(ERRCODE_QML_INVALID_CRON),
			 errmsg("invalid cron expression \"%s\"", shown),
			 errhint("A cron expression: %s.", error.allowed)));
}

/* Finds a time zone, or raises 22023. */
void
qml_recurring_zone(const char *name, QmlZone *zone)
{
	if (!qml_timezone_find(name, zone))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("time zone \"%s\" is not known", name),
				 errdetail("Abbreviations, rules and offsets are not accepted."),
				 errhint("Use a full name such as Europe/Berlin or UTC; the view "
						 "pg_timezone_names lists them.")));
}

/* The first tick after a time; QM004 when there is none. */
static TimestampTz
first_tick(const char *expression, const char *timezone, TimestampTz after)
{
	QmlCron cron;
	QmlZone zone;
	TimestampTz next;

	qml_recurring_parse(expression, &cron);
	qml_recurring_zone(timezone, &zone);
	next = qml_timezone_next(&cron, &zone, after);
	if (next == QML_NO_TIME)
		ereport(ERROR,
				(errcode(ERRCODE_QML_INVALID_CRON),
				 errmsg("cron expression \"%s\" never fires", expression),
				 errdetail("There is no such day, or its years are over.")));
	return next;
}

/* The parameters of all statements: the definition, and what more a statement needs. */
enum
{
	ARG_ID = 0,
	ARG_CRON,
	ARG_TIMEZONE,
	ARG_METHOD,
	ARG_PAYLOAD,
	ARG_QUEUE,
	ARG_PRIORITY,
	ARG_MAX_RETRIES,
	ARG_TIMEOUT_MS,
	ARG_MISFIRE,
	ARG_METADATA,
	ARG_USER,
	ARG_NEXT,
	ARG_REASON,
	ARGS
};

static const Oid arg_types[ARGS] = {TEXTOID,  TEXTOID, TEXTOID,		   TEXTOID, JSONBOID,
									TEXTOID,  INT4OID, INT4OID,		   INT4OID, TEXTOID,
									JSONBOID, OIDOID,  TIMESTAMPTZOID, TEXTOID};

typedef struct StatementArgs
{
	Datum values[ARGS];
	bool nulls[ARGS];
} StatementArgs;

/* The parameters that a definition gives; ARG_NEXT is set by set_next_run(). */
static void
fill_args(const QmlRecurring *recurring, StatementArgs *args)
{
	memset(args, 0, sizeof(*args));
	args->values[ARG_ID] = CStringGetTextDatum(recurring->id);
	args->values[ARG_CRON] = CStringGetTextDatum(recurring->cron);
	args->values[ARG_TIMEZONE] = CStringGetTextDatum(recurring->timezone);
	args->values[ARG_METHOD] = CStringGetTextDatum(recurring->method);
	args->values[ARG_PAYLOAD] = recurring->payload;
	args->values[ARG_QUEUE] = CStringGetTextDatum(recurring->queue);
	args->values[ARG_PRIORITY] = Int32GetDatum(recurring->priority);
	args->values[ARG_MAX_RETRIES] = Int32GetDatum(recurring->max_retries);
	args->nulls[ARG_MAX_RETRIES] = recurring->max_retries < 0;
	args->values[ARG_TIMEOUT_MS] = Int32GetDatum(recurring->timeout_ms);
	args->nulls[ARG_TIMEOUT_MS] = recurring->timeout_ms < 0;
	args->values[ARG_MISFIRE] = CStringGetTextDatum(recurring->misfire);
	args->values[ARG_METADATA] = recurring->metadata;
	args->nulls[ARG_METADATA] = recurring->metadata == (Datum) 0;
	args->values[ARG_USER] = ObjectIdGetDatum(GetUserId());
	args->nulls[ARG_NEXT] = true;
	args->nulls[ARG_REASON] = true;
}

/* Runs a statement that changes rows; returns how many. */
static uint64
change_rows(const char *sql, const StatementArgs *args, int expected)
{
	QmlSpi spi;
	uint64 rows;

	qml_spi_begin(&spi, qml_catalog()->owner);
	rows = qml_spi_execute_latest(sql, ARGS, arg_types, args->values, args->nulls, expected);
	qml_spi_end(&spi);
	return rows;
}

/* Columns of the row that SPI returned; copies are made in the current context. */
static Datum
get_value(int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column, isnull);
}

static char *
get_text(int column)
{
	bool isnull;

	return TextDatumGetCString(get_value(column, &isnull));
}

static Datum
get_document(int column)
{
	bool isnull;
	Datum value = get_value(column, &isnull);

	return isnull ? (Datum) 0 : PointerGetDatum(PG_DETOAST_DATUM_COPY(value));
}

static int
get_int(int column)
{
	bool isnull;
	Datum value = get_value(column, &isnull);

	return isnull ? -1 : DatumGetInt32(value);
}

static bool
get_flag(int column)
{
	bool isnull;
	Datum value = get_value(column, &isnull);

	return !isnull && DatumGetBool(value);
}

static TimestampTz
get_time(int column)
{
	bool isnull;
	Datum value = get_value(column, &isnull);

	return isnull ? QML_NO_TIME : DatumGetTimestampTz(value);
}

/* Reads the columns of FIND_SCHEDULE. */
static void
read_stored(StoredSchedule *stored)
{
	bool isnull;

	stored->recurring.id = get_text(1);
	stored->recurring.cron = get_text(2);
	stored->recurring.timezone = get_text(3);
	stored->recurring.method = get_text(4);
	stored->recurring.payload = get_document(5);
	stored->recurring.queue = get_text(6);
	stored->recurring.priority = get_int(7);
	stored->recurring.max_retries = get_int(8);
	stored->recurring.timeout_ms = get_int(9);
	stored->recurring.misfire = get_text(10);
	stored->recurring.metadata = get_document(11);
	stored->created_by = DatumGetObjectId(get_value(12, &isnull));
	stored->enabled = get_flag(13);
	stored->broken = get_flag(14);
	stored->next_run_at = get_time(15);
	stored->last_run_at = get_time(16);
	stored->same_times = get_flag(17);
	stored->same = get_flag(18);
}

#define FIND_SCHEDULE                                                                            \
	"SELECT r.id, r.cron, r.timezone, r.method, r.payload, r.queue, r.priority, r.max_retries, " \
	"r.timeout_ms, r.misfire, r.metadata, r.created_by::oid, r.enabled, "                        \
	"r.error IS NOT NULL, r.next_run_at, r.last_run_at, "                                        \
	"r.cron = $2 AND r.timezone = $3, "                                                          \
	"(r.cron, r.timezone, r.method, r.payload, r.queue, r.priority, r.misfire) = "               \
	"($2, $3, $4, $5, $6, $7, $10) AND r.max_retries IS NOT DISTINCT FROM $8 "                   \
	"AND r.timeout_ms IS NOT DISTINCT FROM $9 AND r.metadata IS NOT DISTINCT FROM $11 "          \
	"FROM qml.recurring_data r WHERE r.id = $1"

/* Finds a schedule, and locks it if it is to be changed. */
static bool
find_schedule(const StatementArgs *args, bool lock, StoredSchedule *stored)
{
	MemoryContext context = CurrentMemoryContext;
	MemoryContext spi_context;
	QmlSpi spi;
	bool found;

	qml_spi_begin(&spi, qml_catalog()->owner);
	found = qml_spi_execute_latest(lock ? FIND_SCHEDULE " FOR UPDATE" : FIND_SCHEDULE, ARGS,
								   arg_types, args->values, args->nulls, SPI_OK_SELECT) > 0;
	spi_context = MemoryContextSwitchTo(context);
	if (found)
		read_stored(stored);
	MemoryContextSwitchTo(spi_context);
	qml_spi_end(&spi);
	return found;
}

/* The same by id alone. */
static bool
find_by_id(const char *id, bool lock, StoredSchedule *stored, StatementArgs *args)
{
	memset(args, 0, sizeof(*args));
	for (int i = 0; i < ARGS; i++)
		args->nulls[i] = i != ARG_ID;
	args->values[ARG_ID] = CStringGetTextDatum(id);
	return find_schedule(args, lock, stored);
}

/* The owner of a schedule and administrators of its queue may control it. */
static void
check_control(const StoredSchedule *stored)
{
	if (!qml_acl_own_job(stored->recurring.queue, stored->created_by))
		qml_acl_require(QML_CAN_ADMIN, stored->recurring.queue);
}

/* False when somebody else has just made one of this id. */
static bool
insert_schedule(const StatementArgs *args)
{
	return change_rows(
			   "INSERT INTO qml.recurring_data (id, created_at, updated_at, created_by, enabled, "
			   "next_run_at, priority, max_retries, timeout_ms, misfire, cron, timezone, queue, "
			   "method, metadata, payload) "
			   "SELECT $1, t.now, t.now, $12, true, $13, $7, $8, $9, $10, $2, $3, $6, $4, $11, $5 "
			   "FROM (SELECT pg_catalog.clock_timestamp() AS now OFFSET 0) t "
			   "ON CONFLICT (id) DO NOTHING",
			   args, SPI_OK_INSERT) > 0;
}

/* Changes the schedule, which is locked; an error that it had is over. */
static void
update_schedule(const StatementArgs *args)
{
	(void) change_rows("UPDATE qml.recurring_data SET updated_at = pg_catalog.clock_timestamp(), "
					   "created_by = $12, next_run_at = $13, priority = $7, max_retries = $8, "
					   "timeout_ms = $9, misfire = $10, cron = $2, timezone = $3, queue = $6, "
					   "method = $4, metadata = $11, error = NULL, payload = $5 WHERE id = $1",
					   args, SPI_OK_UPDATE);
}

/* The next tick of a schedule whose times are new: never again one that it has fired. */
static TimestampTz
choose_next_tick(const QmlRecurring *recurring, TimestampTz last_run_at)
{
	return first_tick(recurring->cron, recurring->timezone,
					  Max(GetCurrentTimestamp(), last_run_at));
}

/* Sets ARG_NEXT, of which the scheduler is told at commit. */
static void
set_next_run(StatementArgs *args, TimestampTz next)
{
	args->values[ARG_NEXT] = TimestampTzGetDatum(next);
	args->nulls[ARG_NEXT] = next == QML_NO_TIME;
	if (next != QML_NO_TIME)
		qml_wakeup_at(QML_WAKE_RECURRING, next);
}

/*
 * Makes a schedule, or changes the one of that id to what is asked for.  Returns when it
 * fires next; QML_NO_TIME when one that was there has fired for the last time.
 */
TimestampTz
qml_recurring_put(const QmlRecurring *wanted)
{
	QmlRecurring settled = *wanted;
	const QmlRecurring *recurring = &settled;
	const QmlHandler *handler;
	QmlCron cron;
	QmlZone zone;
	StoredSchedule stored;
	StatementArgs args;
	TimestampTz next;

	qml_recurring_parse(recurring->cron, &cron);
	qml_recurring_zone(recurring->timezone, &zone);
	AcceptInvalidationMessages();
	handler = qml_handler_find(recurring->method);
	if (handler && handler->options.queue && strcmp(recurring->queue, QML_DEFAULT_QUEUE) == 0)
		settled.queue = handler->options.queue;
	qml_acl_require(QML_CAN_ENQUEUE, recurring->queue);
	if (handler)
		qml_handler_check(handler, recurring->payload);
	fill_args(recurring, &args);
	/* Others may make or remove it between the look and the change: then look again. */
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (!find_schedule(&args, false, &stored))
		{
			next = choose_next_tick(recurring, QML_NO_TIME);
			(void) qml_enqueue_lock_queue(recurring->queue, true);
			set_next_run(&args, next);
			if (insert_schedule(&args))
				return next;
		}
		else if (stored.same && !stored.broken)
			return stored.next_run_at;
		else if (find_schedule(&args, true, &stored))
		{
			check_control(&stored);
			next = stored.same_times && !stored.broken ?
					   stored.next_run_at :
					   choose_next_tick(recurring, stored.last_run_at);
			(void) qml_enqueue_lock_queue(recurring->queue, true);
			set_next_run(&args, next);
			update_schedule(&args);
			return next;
		}
	}
}

pg_noreturn static void
raise_missing(const char *id)
{
	ereport(ERROR,
			(errcode(ERRCODE_QML_JOB_NOT_FOUND),
			 errmsg("recurring job \"%s\" does not exist", id)));
}

/* Returns false when there is none of that id and missing_ok; raises QM001 without it. */
bool
qml_recurring_remove(const char *id, bool missing_ok)
{
	StoredSchedule stored;
	StatementArgs args;

	if (!find_by_id(id, true, &stored, &args))
	{
		if (!missing_ok)
			raise_missing(id);
		return false;
	}
	check_control(&stored);
	return change_rows("DELETE FROM qml.recurring_data WHERE id = $1", &args, SPI_OK_DELETE) > 0;
}

/*
 * Stops a schedule from firing; false when there is none of that id.  A paused one gets
 * another reason, if there is one; reason: a text, or 0 for none.
 */
bool
qml_recurring_pause(const char *id, Datum reason)
{
	StoredSchedule stored;
	StatementArgs args;

	if (!find_by_id(id, true, &stored, &args))
		return false;
	check_control(&stored);
	if (!stored.enabled && reason == (Datum) 0)
		return true;
	args.values[ARG_REASON] = reason;
	args.nulls[ARG_REASON] = reason == (Datum) 0;
	return change_rows("UPDATE qml.recurring_data SET enabled = false, pause_reason = $14, "
					   "updated_at = pg_catalog.clock_timestamp() WHERE id = $1",
					   &args, SPI_OK_UPDATE) > 0;
}

/*
 * Lets a schedule fire again; false when there is none of that id.  Ticks that passed
 * while it was paused were not missed.
 */
bool
qml_recurring_resume(const char *id)
{
	StoredSchedule stored;
	StatementArgs args;

	if (!find_by_id(id, true, &stored, &args))
		return false;
	check_control(&stored);
	if (stored.enabled)
		return true;
	set_next_run(&args, choose_next_tick(&stored.recurring, stored.last_run_at));
	return change_rows("UPDATE qml.recurring_data SET enabled = true, pause_reason = NULL, "
					   "next_run_at = $13, error = NULL, updated_at = pg_catalog.clock_timestamp() "
					   "WHERE id = $1",
					   &args, SPI_OK_UPDATE) > 0;
}

/* Enqueues the job of a schedule now, off the schedule, as the current user. */
void
qml_recurring_run(const char *id, pg_uuid_t *job)
{
	StoredSchedule stored;
	StatementArgs args;

	if (!find_by_id(id, false, &stored, &args))
		raise_missing(id);
	check_control(&stored);
	qml_uuid_generate(job);
	qml_tick_enqueue(&stored.recurring, QML_NO_TIME, InvalidOid, job);
}
