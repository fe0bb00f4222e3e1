/*
 * recurring.c
 *		Recurring jobs: defining, changing, pausing and removing schedules.
 *
 * Rows of qml.recurring_data are written here by SQL, and by schedule/tick.c when they
 * fire.  A call that changes one locks it first, FOR UPDATE, and then judges what is
 * there and whether the current user may change it; callers that fire leave the row alone
 * meanwhile.  The queue is locked after the row, or before a new one is inserted; then come
 * the locks of model/grant.c, as the role that a schedule names is marked.
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

#include "common/json.h"
#include "common/spi.h"
#include "common/suggest.h"
#include "common/uuid.h"
#include "compat.h"
#include "core/interval.h"
#include "errcodes.h"
#include "ipc/wakeup.h"
#include "jobs/enqueue.h"
#include "jobs/watching.h"
#include "model/acl.h"
#include "model/audit.h"
#include "model/catalog.h"
#include "model/grant.h"
#include "model/job.h"
#include "model/role_mark.h"
#include "schedule/overlap.h"
#include "schedule/recurring.h"
#include "schedule/takeover.h"
#include "userfn/handler.h"

/* How often a definition is tried that others make or remove at the same time. */
#define MAX_TRIES 100

/* A schedule as it is stored, and how it compares with what is asked for. */
typedef struct StoredSchedule
{
	QmlRecurring recurring;
	Oid created_by;
	bool enabled;
	bool broken; /* has an error, or its owner lost it */
	TimestampTz next_run_at;
	TimestampTz last_run_at;
	TimestampTz anchor;
	Datum open_jobs; /* uuid[]; 0: null */
	Datum imported;	 /* jsonb; 0: null */
	bool same_times; /* cron and time zone are those asked for */
	bool same;		 /* everything is */
} StoredSchedule;

/* A clause as a sentence. */
static char *
make_sentence(const char *clause)
{
	char *sentence = psprintf("%s.", clause);

	sentence[0] = pg_toupper((unsigned char) sentence[0]);
	return sentence;
}

/* Where the part that is wrong begins, in characters, from 1 on. */
static int
position_of(const char *expression, const QmlCronError *error)
{
	return pg_mbstrlen_with_len(expression, error->position) + 1;
}

/* Which part is wrong, and why; NULL: that is what is allowed. */
static char *
describe_error(const char *expression, QmlCronError *error)
{
	/* They may have been cut within a character. */
	error->text[pg_mbcliplen(error->text, strlen(error->text), strlen(error->text))] = '\0';
	error->reason[pg_mbcliplen(error->reason, strlen(error->reason), strlen(error->reason))] = '\0';
	if (error->text[0] == '\0')
		return error->reason[0] == '\0' ? NULL : make_sentence(error->reason);
	return psprintf("\"%s\" at character %d is not valid%s%s%s%s.", error->text,
					position_of(expression, error), error->field ? " in the field " : "",
					error->field ? error->field : "", error->reason[0] == '\0' ? "" : ": ",
					error->reason);
}

/* Parses a cron expression or an interval, or raises QM004. */
void
qml_recurring_parse(const char *expression, QmlTimes *times)
{
	QmlCronError error;
	char *shown;
	char *detail;

	if (qml_times_parse(expression, times, &error))
		return;
	shown = pnstrdup(expression, pg_mbcliplen(expression, strlen(expression), QML_CRON_MAX_LENGTH));
	detail = describe_error(expression, &error);
	ereport(ERROR,
			(errcode(ERRCODE_QML_INVALID_CRON),
			 qml_interval_is_meant(expression) ? errmsg("invalid interval \"%s\"", shown) :
												 errmsg("invalid cron expression \"%s\"", shown),
			 detail ? errdetail("%s", detail) : 0,
			 error.field ? errhint("%s", make_sentence(error.allowed)) :
						   errhint("%s: %s.",
								   qml_interval_is_meant(expression) ? "An interval" :
																	   "A cron expression",
								   error.allowed)));
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
				 errhint("%sUse a full name such as Europe/Berlin or UTC; the view "
						 "pg_timezone_names lists them.",
						 qml_timezone_guess(name))));
}

/* The first tick after a time; QM004 when there is none. */
static TimestampTz
first_tick(const QmlRecurring *recurring, TimestampTz anchor, TimestampTz after)
{
	QmlTimes times;
	TimestampTz next;

	qml_recurring_parse(recurring->cron, &times);
	qml_recurring_zone(recurring->timezone, &times.zone);
	times.anchor = anchor;
	next = qml_times_next(&times, after);
	if (next == QML_NO_TIME)
		ereport(ERROR,
				(errcode(ERRCODE_QML_INVALID_CRON),
				 errmsg("cron expression \"%s\" never fires", recurring->cron),
				 errdetail("There is no such day, or its years are over."),
				 errhint("qml_cron_next() shows when an expression fires.")));
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
	ARG_OVERLAP,
	ARG_JOB_TYPE,
	ARG_ANCHOR,
	ARG_OPEN_JOBS,
	ARG_IMPORTED,
	ARGS
};

static const Oid arg_types[ARGS] = {TEXTOID,  TEXTOID,		  TEXTOID,		  TEXTOID, JSONBOID,
									TEXTOID,  INT4OID,		  INT4OID,		  INT4OID, TEXTOID,
									JSONBOID, OIDOID,		  TIMESTAMPTZOID, TEXTOID, TEXTOID,
									TEXTOID,  TIMESTAMPTZOID, UUIDARRAYOID,	  JSONBOID};

typedef struct StatementArgs
{
	Datum values[ARGS];
	bool nulls[ARGS];
} StatementArgs;

/* The parameters that a definition gives; the times are set by set_next_run(). */
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
	args->values[ARG_OVERLAP] = CStringGetTextDatum(recurring->overlap);
	args->values[ARG_JOB_TYPE] = recurring->job_type;
	args->nulls[ARG_JOB_TYPE] = recurring->job_type == (Datum) 0;
	args->nulls[ARG_ANCHOR] = true;
	args->nulls[ARG_OPEN_JOBS] = true;
	args->nulls[ARG_IMPORTED] = true;
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

/* Columns of the rows that SPI returned; copies are made in the current context. */
static char *
get_text_of(uint64 row, int column)
{
	return TextDatumGetCString(qml_spi_value(SPI_tuptable, row, column, TEXTOID, NULL));
}

static char *
get_text(int column)
{
	return get_text_of(0, column);
}

/* Of a type of varying length; 0: null. */
static Datum
get_value(int column, Oid type)
{
	bool isnull;
	Datum value = qml_spi_value(SPI_tuptable, 0, column, type, &isnull);

	return isnull ? (Datum) 0 : PointerGetDatum(PG_DETOAST_DATUM_COPY(value));
}

static int
get_int(int column)
{
	bool isnull;
	Datum value = qml_spi_value(SPI_tuptable, 0, column, INT4OID, &isnull);

	return isnull ? -1 : DatumGetInt32(value);
}

static bool
get_flag(int column)
{
	bool isnull;
	Datum value = qml_spi_value(SPI_tuptable, 0, column, BOOLOID, &isnull);

	return !isnull && DatumGetBool(value);
}

static TimestampTz
get_time(int column)
{
	bool isnull;
	Datum value = qml_spi_value(SPI_tuptable, 0, column, TIMESTAMPTZOID, &isnull);

	return isnull ? QML_NO_TIME : DatumGetTimestampTz(value);
}

/* Reads the columns of FIND_SCHEDULE. */
static void
read_stored(StoredSchedule *stored)
{
	stored->recurring.id = get_text(1);
	stored->recurring.cron = get_text(2);
	stored->recurring.timezone = get_text(3);
	stored->recurring.method = get_text(4);
	stored->recurring.payload = get_value(5, JSONBOID);
	stored->recurring.queue = get_text(6);
	stored->recurring.priority = get_int(7);
	stored->recurring.max_retries = get_int(8);
	stored->recurring.timeout_ms = get_int(9);
	stored->recurring.misfire = get_text(10);
	stored->recurring.metadata = get_value(11, JSONBOID);
	stored->created_by = DatumGetObjectId(qml_spi_value(SPI_tuptable, 0, 12, OIDOID, NULL));
	stored->enabled = get_flag(13);
	stored->broken = get_flag(14) || !qml_role_mark_has(QML_MARK_REGISTRATION, stored->created_by);
	stored->next_run_at = get_time(15);
	stored->last_run_at = get_time(16);
	stored->same_times = get_flag(17);
	stored->same = get_flag(18);
	stored->recurring.overlap = get_text(19);
	stored->recurring.job_type = get_value(20, TEXTOID);
	stored->anchor = get_time(21);
	stored->open_jobs = get_value(22, UUIDARRAYOID);
	stored->imported = get_value(23, JSONBOID);
}

#define FIND_SCHEDULE                                                                            \
	"SELECT r.id, r.cron, r.timezone, r.method, r.payload, r.queue, r.priority, r.max_retries, " \
	"r.timeout_ms, r.misfire, r.metadata, r.created_by::oid, r.enabled, "                        \
	"r.error IS NOT NULL, r.next_run_at, r.last_run_at, "                                        \
	"r.cron = $2 AND r.timezone = $3, "                                                          \
	"(r.cron, r.timezone, r.method, r.payload, r.queue, r.priority, r.misfire, r.overlap) = "    \
	"($2, $3, $4, $5, $6, $7, $10, $15) AND r.max_retries IS NOT DISTINCT FROM $8 "              \
	"AND r.timeout_ms IS NOT DISTINCT FROM $9 AND r.metadata IS NOT DISTINCT FROM $11 "          \
	"AND r.job_type IS NOT DISTINCT FROM $16, r.overlap, r.job_type, r.anchor, r.open_jobs, "    \
	"r.imported "                                                                                \
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
	if (qml_acl_own_job(stored->recurring.queue, stored->created_by))
		return;
	/* Who defines a schedule learns that its id is taken, but not for which queue. */
	if (!qml_acl_see_queue(stored->recurring.queue))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for recurring job \"%s\"", stored->recurring.id),
				 errdetail("The id is taken by a schedule of a queue on which you have no "
						   "capability."),
				 errhint("Choose another id.")));
	qml_acl_require(QML_CAN_ADMIN, stored->recurring.queue);
}

/* False when somebody else has just made one of this id. */
static bool
insert_schedule(const StatementArgs *args)
{
	return change_rows(
			   "INSERT INTO qml.recurring_data (id, created_at, updated_at, created_by, enabled, "
			   "next_run_at, anchor, priority, max_retries, timeout_ms, misfire, overlap, cron, "
			   "timezone, queue, method, job_type, metadata, payload) "
			   "SELECT $1, t.now, t.now, $12, true, $13, $17, $7, $8, $9, $10, $15, $2, $3, $6, $4, "
			   "$16, $11, $5 "
			   "FROM (SELECT pg_catalog.clock_timestamp() AS now OFFSET 0) t "
			   "ON CONFLICT (id) DO NOTHING",
			   args, SPI_OK_INSERT) > 0;
}

/*
 * Changes the schedule, which is locked; an error that it had is over.  One that has to know
 * its unfinished jobs from now on begins with the latest.
 */
static void
update_schedule(const StatementArgs *args)
{
	(void) change_rows(
		"UPDATE qml.recurring_data SET updated_at = pg_catalog.clock_timestamp(), "
		"created_by = $12, next_run_at = $13, priority = $7, max_retries = $8, "
		"timeout_ms = $9, misfire = $10, cron = $2, timezone = $3, queue = $6, "
		"method = $4, metadata = $11, error = NULL, payload = $5, anchor = $17, "
		"overlap = $15, job_type = $16, open_jobs = CASE WHEN $15 <> '" QML_OVERLAP_ALLOW
		"' THEN COALESCE(open_jobs, ARRAY[last_job]) END "
		"WHERE id = $1",
		args, SPI_OK_UPDATE);
}

/* Sets the next tick, of which the scheduler is told at commit, and the anchor. */
static void
set_next_run(StatementArgs *args, TimestampTz next, TimestampTz anchor)
{
	args->values[ARG_NEXT] = TimestampTzGetDatum(next);
	args->nulls[ARG_NEXT] = next == QML_NO_TIME;
	args->values[ARG_ANCHOR] = TimestampTzGetDatum(anchor);
	args->nulls[ARG_ANCHOR] = anchor == QML_NO_TIME;
	if (next != QML_NO_TIME)
		qml_wakeup_at(QML_WAKE_RECURRING, next);
}

/*
 * The next tick of a schedule whose times are new, or begin anew: never again one that it
 * has fired.
 */
static TimestampTz
set_new_times(StatementArgs *args, const QmlRecurring *recurring, TimestampTz anchor,
			  TimestampTz last_run_at)
{
	TimestampTz next = first_tick(recurring, anchor, Max(GetCurrentTimestamp(), last_run_at));

	set_next_run(args, next, anchor);
	return next;
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
	QmlTimes times;
	StoredSchedule stored;
	StatementArgs args;
	TimestampTz next;

	qml_recurring_parse(recurring->cron, &times);
	qml_recurring_zone(recurring->timezone, &times.zone);
	AcceptInvalidationMessages();
	handler = qml_handler_find(recurring->method);
	if (handler && handler->options.queue && strcmp(recurring->queue, QML_DEFAULT_QUEUE) == 0)
		settled.queue = handler->options.queue;
	qml_acl_require(QML_CAN_ENQUEUE, recurring->queue);
	if (handler)
		qml_handler_check(handler, recurring->payload);
	fill_args(recurring, &args);
	/* Others may make or remove it between the look and the change: then look again. */
	for (int tries = 0;; tries++)
	{
		CHECK_FOR_INTERRUPTS();
		/* Nobody is so quick.  A row that cannot be made or seen would keep this busy for ever. */
		if (tries >= MAX_TRIES)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("recurring job \"%s\" can be neither found nor made", recurring->id),
					 errhint("Look for triggers, rules and row-level security on table "
							 "\"%s.recurring_data\".",
							 QML_SCHEMA)));
		if (!find_schedule(&args, false, &stored))
		{
			next = set_new_times(&args, recurring, qml_times_anchor(recurring->cron), QML_NO_TIME);
			(void) qml_enqueue_lock_queue(recurring->queue, true);
			qml_grant_mark_role(GetUserId());
			if (insert_schedule(&args))
			{
				qml_audit_change("qml_schedule_recurring", QML_AUDIT_SCHEDULE, recurring->id,
								 recurring->queue, (Datum) 0);
				qml_watching_note_queue(recurring->queue);
				return next;
			}
		}
		else if (stored.same && !stored.broken)
			return stored.next_run_at;
		else if (find_schedule(&args, true, &stored))
		{
			Datum before;

			check_control(&stored);
			before = qml_audit_look(QML_AUDIT_SCHEDULE, recurring->id);
			if (stored.same_times && !stored.broken)
				set_next_run(&args, next = stored.next_run_at, stored.anchor);
			else
			{
				/* An interval that could not fire goes on in its rhythm. */
				TimestampTz anchor = stored.same_times ? stored.anchor : QML_NO_TIME;

				if (anchor == QML_NO_TIME)
					anchor = qml_times_anchor(recurring->cron);
				next = set_new_times(&args, recurring, anchor, stored.last_run_at);
			}
			(void) qml_enqueue_lock_queue(recurring->queue, true);
			qml_grant_mark_role(GetUserId());
			update_schedule(&args);
			qml_audit_change("qml_schedule_recurring", QML_AUDIT_SCHEDULE, recurring->id,
							 recurring->queue, before);
			qml_watching_note_queue(stored.recurring.queue);
			qml_watching_note_queue(recurring->queue);
			if (stored.created_by != GetUserId())
				qml_grant_unmark_role(stored.created_by);
			return next;
		}
	}
}

/* What an unknown id may have been meant to be, of the schedules that the user sees. */
static const char *
guess_schedule(const char *id)
{
	MemoryContext context = CurrentMemoryContext;
	MemoryContext spi_context;
	QmlSuggestion suggestion;
	QmlRecurring *known;
	Oid *owners;
	uint64 rows;
	QmlSpi spi;

	qml_spi_begin(&spi, qml_catalog()->owner);
	rows = qml_spi_execute("SELECT r.id, r.queue, r.created_by::oid FROM qml.recurring_data r "
						   "ORDER BY r.id",
						   0, NULL, NULL, NULL, SPI_OK_SELECT);
	spi_context = MemoryContextSwitchTo(context);
	known = palloc_extended(sizeof(QmlRecurring) * (rows + 1), MCXT_ALLOC_HUGE);
	owners = palloc_extended(sizeof(Oid) * (rows + 1), MCXT_ALLOC_HUGE);
	for (uint64 i = 0; i < rows; i++)
	{
		known[i].id = get_text_of(i, 1);
		known[i].queue = get_text_of(i, 2);
		owners[i] = DatumGetObjectId(qml_spi_value(SPI_tuptable, i, 3, OIDOID, NULL));
	}
	MemoryContextSwitchTo(spi_context);
	qml_spi_end(&spi);

	/* As the caller again, whose rights count. */
	qml_suggest_begin(&suggestion, id);
	for (uint64 i = 0; i < rows; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (qml_acl_access(known[i].queue, owners[i]) != QML_ACCESS_NONE)
			qml_suggest_consider(&suggestion, known[i].id);
	}
	return qml_suggest_question(&suggestion);
}

pg_noreturn static void
raise_missing(const char *id)
{
	ereport(ERROR,
			(errcode(ERRCODE_QML_JOB_NOT_FOUND),
			 errmsg("recurring job \"%s\" does not exist", id),
			 errhint("%sThe view qml.recurring lists those that there are.", guess_schedule(id))));
}

/*
 * Finds a schedule to control it, and locks it if it is to be changed; false when there is none
 * and missing_ok, else QM001.  Whoever sees nothing of its queue is not told that it is there,
 * and does not get to lock it.
 */
static bool
find_or_raise(const char *id, bool missing_ok, bool lock, StoredSchedule *stored,
			  StatementArgs *args)
{
	bool found = find_by_id(id, false, stored, args) &&
				 qml_acl_see_queue(stored->recurring.queue) &&
				 (!lock || find_by_id(id, true, stored, args));

	if (!found && !missing_ok)
		raise_missing(id);
	if (found)
		check_control(stored);
	return found;
}

/*
 * Finds a schedule, whoever sees it; false when there is none of that id.  imported: a jsonb,
 * or 0 for one that was not made by qml_recurring_import().
 */
bool
qml_recurring_find(const char *id, QmlRecurring *recurring, Oid *created_by, Datum *imported)
{
	StoredSchedule stored;
	StatementArgs args;

	if (!find_by_id(id, false, &stored, &args))
		return false;
	*recurring = stored.recurring;
	*created_by = stored.created_by;
	*imported = stored.imported;
	return true;
}

/*
 * Makes a schedule that is paused for a reason, a text, and keeps of which job of pg_cron it is
 * made, a jsonb (schedule/takeover.c).
 */
void
qml_recurring_import(const QmlRecurring *recurring, Datum imported, Datum reason)
{
	StatementArgs args;
	Datum before;

	(void) qml_recurring_put(recurring);
	before = qml_audit_look(QML_AUDIT_SCHEDULE, recurring->id);
	fill_args(recurring, &args);
	args.values[ARG_REASON] = reason;
	args.nulls[ARG_REASON] = false;
	args.values[ARG_IMPORTED] = imported;
	args.nulls[ARG_IMPORTED] = false;
	(void) change_rows("UPDATE qml.recurring_data SET enabled = false, "
					   "paused_at = pg_catalog.clock_timestamp(), "
					   "paused_by = pg_catalog.pg_get_userbyid($12), pause_reason = $14, "
					   "imported = $19 WHERE id = $1",
					   &args, SPI_OK_UPDATE);
	qml_watching_note_queue(recurring->queue);
	qml_audit_change("qml_import_pg_cron", QML_AUDIT_SCHEDULE, recurring->id, recurring->queue,
					 before);
}

/* Returns false when there is none of that id and missing_ok; raises QM001 without it. */
bool
qml_recurring_remove(const char *id, bool missing_ok)
{
	StoredSchedule stored;
	StatementArgs args;
	Datum before;
	bool removed;

	if (!find_or_raise(id, missing_ok, true, &stored, &args))
		return false;
	before = qml_audit_look(QML_AUDIT_SCHEDULE, id);
	removed = change_rows("DELETE FROM qml.recurring_data WHERE id = $1", &args, SPI_OK_DELETE) > 0;
	qml_watching_note_queue(stored.recurring.queue);
	qml_audit_change("qml_remove_recurring", QML_AUDIT_SCHEDULE, id, stored.recurring.queue,
					 before);
	qml_grant_unmark_role(stored.created_by);
	return removed;
}

/*
 * Stops a schedule from firing; returns as above.  A paused one gets another reason, if there
 * is one; reason: a text, or 0 for none.
 */
bool
qml_recurring_pause(const char *id, Datum reason, bool missing_ok)
{
	StoredSchedule stored;
	StatementArgs args;
	Datum before;
	bool paused;

	if (!find_or_raise(id, missing_ok, true, &stored, &args))
		return false;
	if (!stored.enabled && reason == (Datum) 0)
		return true;
	before = qml_audit_look(QML_AUDIT_SCHEDULE, id);
	args.values[ARG_REASON] = reason;
	args.nulls[ARG_REASON] = reason == (Datum) 0;
	args.values[ARG_USER] = ObjectIdGetDatum(GetUserId());
	args.nulls[ARG_USER] = false;
	paused = change_rows("UPDATE qml.recurring_data SET enabled = false, "
						 "paused_at = pg_catalog.clock_timestamp(), "
						 "paused_by = pg_catalog.pg_get_userbyid($12), pause_reason = $14, "
						 "updated_at = pg_catalog.clock_timestamp() WHERE id = $1",
						 &args, SPI_OK_UPDATE) > 0;
	qml_watching_note_queue(stored.recurring.queue);
	qml_audit_change("qml_pause_recurring", QML_AUDIT_SCHEDULE, id, stored.recurring.queue, before);
	return paused;
}

/*
 * Lets a schedule fire again; returns as above.  Ticks that passed while it was paused were
 * not missed.  One that was imported from pg_cron takes its job over, or raises 55000.
 */
bool
qml_recurring_resume(const char *id, bool missing_ok)
{
	StoredSchedule stored;
	StatementArgs args;
	TimestampTz next;
	Datum before;
	bool resumed;
	bool taken;

	if (!find_or_raise(id, missing_ok, true, &stored, &args))
		return false;
	before = qml_audit_look(QML_AUDIT_SCHEDULE, id);
	/* One that was made by hand under the name of a job is told so, also if it fires already. */
	taken = qml_takeover_job(id, stored.created_by, stored.imported);
	if (stored.enabled)
		return true;
	/* An interval goes on in its rhythm. */
	next = set_new_times(&args, &stored.recurring, stored.anchor, stored.last_run_at);
	if (taken)
		qml_takeover_watch(id, next);
	resumed = change_rows("UPDATE qml.recurring_data SET enabled = true, paused_at = NULL, "
						  "paused_by = NULL, pause_reason = NULL, "
						  "next_run_at = $13, error = NULL, "
						  "updated_at = pg_catalog.clock_timestamp() WHERE id = $1",
						  &args, SPI_OK_UPDATE) > 0;
	qml_watching_note_queue(stored.recurring.queue);
	qml_audit_change("qml_resume_recurring", QML_AUDIT_SCHEDULE, id, stored.recurring.queue,
					 before);
	return resumed;
}

/* Records that a job of a schedule was enqueued by hand. */
static void
record_run(const QmlRecurring *recurring, const pg_uuid_t *job)
{
	QmlAuditAct act = {.action = "qml_run_recurring",
					   .kind = QML_AUDIT_SCHEDULE,
					   .object = recurring->id,
					   .queue = recurring->queue};
	JsonbParseState *state = NULL;

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	qml_json_push_text(&state, "job", CStringGetTextDatum(qml_job_id_string(job)));
	act.after = JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
	qml_audit_write(&act);
}

/*
 * Enqueues the job of a schedule now, off the schedule, as the current user: whatever the
 * overlap policy says, but then the ticks take that job into account.
 */
void
qml_recurring_run(const char *id, pg_uuid_t *job)
{
	StoredSchedule stored;
	StatementArgs args;

	(void) find_or_raise(id, false, false, &stored, &args);
	qml_uuid_generate(job);
	if (qml_overlap_is_watched(stored.recurring.overlap))
	{
		(void) find_or_raise(id, false, true, &stored, &args);
		args.values[ARG_OPEN_JOBS] = qml_overlap_add(stored.open_jobs, job);
		args.nulls[ARG_OPEN_JOBS] = false;
		(void) change_rows("UPDATE qml.recurring_data SET open_jobs = $18 WHERE id = $1", &args,
						   SPI_OK_UPDATE);
	}
	qml_tick_enqueue(&stored.recurring, QML_NO_TIME, InvalidOid, job);
	record_run(&stored.recurring, job);
}

/*
 * The next ticks of a schedule, of which the first is stored: up to `max`, in `ticks`; how
 * many.  For a view: a row that was edited by hand raises no error.
 */
int
qml_recurring_list(const char *expression, const char *timezone, TimestampTz anchor,
				   TimestampTz next_run_at, Datum *ticks, int max)
{
	QmlTimes times;
	QmlCronError error;
	TimestampTz tick = next_run_at;
	int count = 0;
	bool valid = qml_times_parse(expression, &times, &error) &&
				 qml_timezone_find(timezone, &times.zone);

	times.anchor = anchor;
	while (tick != QML_NO_TIME && count < max)
	{
		ticks[count++] = TimestampTzGetDatum(tick);
		if (!valid || TIMESTAMP_NOT_FINITE(tick))
			break;
		tick = qml_times_next(&times, tick);
	}
	return count;
}
