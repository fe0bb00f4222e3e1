/*
 * bulk_run.c
 *		Doing bulk operations, a chunk at a time.
 *
 * A chunk is one transaction, the caller's: it locks the row of an operation, does the action to
 * some jobs (jobs/bulk_chunk.c), and writes into the row how far it has come.  A crash
 * undoes both, so no job is met twice.  Several operations take turns.
 *
 * The current user of a chunk is the role that made the operation, with the rights that it has now.
 * If it was dropped, may not administer any of the queues any more, or not add jobs to the queue
 * that the action names, the operation stops and says so; what was done stays.  It can be
 * resumed.  The same goes for an error that lies in the operation.  Any other error is raised again,
 * and the caller tries again later.
 *
 * Jobs that others have just then are noted in the row, and tried again: some at a time while the
 * operation goes on, and when it has met all others, once a second for a minute.
 *
 * Nothing is waited for.  A row that is locked is being steered, or another session is at it: it
 * is passed over.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/uuid.h"

#include "common/fault.h"
#include "common/json.h"
#include "common/report.h"
#include "common/spi.h"
#include "common/subxact.h"
#include "ipc/watch_notes.h"
#include "jobs/bulk_chunk.h"
#include "jobs/enqueue.h"
#include "jobs/search.h"
#include "maintenance/bulk_run.h"
#include "model/catalog.h"

/* Jobs that others have: when they are tried again meanwhile, and how many stay noted then. */
#define HELD_MOST QML_FAULT_LIMIT("bulk.held", 500)
#define HELD_KEPT (HELD_MOST / 2)

/* How often, and for how long, they are tried at the end: microseconds. */
#define HELD_INTERVAL USECS_PER_SEC
#define HELD_TIME	  QML_FAULT_LIMIT("bulk.held_usecs", 60 * USECS_PER_SEC)

/* A row of qml.bulk_data. */
typedef struct Operation
{
	pg_uuid_t id;
	char *action;
	char *query;
	Jsonb *options;
	char *timezone;
	Oid made_by;
	TimestampTz made_at;
	bool has_place; /* it has begun */
	QmlSearchPlace place;
	bool walked; /* it has met all jobs */
	pg_uuid_t *held;
	int nheld;
	TimestampTz held_until; /* QML_NO_TIME: not walked yet */
	int64 looked;
	int64 counts[QML_BULK_OUTCOMES];
} Operation;

/* A chunk. */
typedef struct Work
{
	Operation *operation;
	int most_jobs;
	int most_looked;
	MemoryContext context;
	char *stopped; /* why it cannot go on; NULL: it can */
	bool is_busy;  /* the queue that the action names is being made or dropped */
	QmlBulkChunk chunk;
} Work;

/* ----- the row ----- */

/* Counts by outcome, from a document. */
static void
read_counts(Jsonb *document, int64 *counts)
{
	for (int i = 0; i < QML_BULK_OUTCOMES; i++)
	{
		JsonbValue value;
		const char *name = qml_bulk_outcome_names[i];

		counts[i] = 0;
		if (JB_ROOT_IS_OBJECT(document) &&
			getKeyJsonValueFromContainer(&document->root, name, (int) strlen(name), &value) &&
			value.type == jbvNumeric)
			counts[i] = DatumGetInt64(
				DirectFunctionCall1(numeric_int8, NumericGetDatum(value.val.numeric)));
	}
}

static Datum
make_counts(const int64 *counts)
{
	JsonbParseState *state = NULL;

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < QML_BULK_OUTCOMES; i++)
	{
		if (counts[i] > 0)
			qml_json_push_int(&state, qml_bulk_outcome_names[i], counts[i]);
	}
	return JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
}

static void
read_held(Datum array, Operation *operation)
{
	Datum *elements;
	bool *nulls;
	int count;

	deconstruct_array(DatumGetArrayTypeP(array), UUIDOID, UUID_LEN, false, TYPALIGN_CHAR, &elements,
					  &nulls, &count);
	operation->held = palloc(sizeof(pg_uuid_t) * Max(count, 1));
	for (int i = 0; i < count; i++)
	{
		if (!nulls[i])
			operation->held[operation->nheld++] = *DatumGetUUIDP(elements[i]);
	}
}

static Datum
make_held(const pg_uuid_t *held, int count)
{
	Datum *elements = palloc(sizeof(Datum) * Max(count, 1));

	for (int i = 0; i < count; i++)
		elements[i] = UUIDPGetDatum(&held[i]);
	return PointerGetDatum(
		construct_array(elements, count, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR));
}

static TimestampTz
read_time(int column)
{
	bool isnull;
	Datum value = qml_spi_value(SPI_tuptable, 0, column, TIMESTAMPTZOID, &isnull);

	return isnull ? QML_NO_TIME : DatumGetTimestampTz(value);
}

/* The row that the last query has found, in the current memory context. */
static Operation *
read_row(void)
{
	Operation *operation = palloc0(sizeof(Operation));
	const SPITupleTable *table = SPI_tuptable;
	bool isnull;
	Datum order;

	operation->id = *DatumGetUUIDP(qml_spi_value(table, 0, 1, UUIDOID, NULL));
	operation->action = TextDatumGetCString(qml_spi_value(table, 0, 2, TEXTOID, NULL));
	operation->query = TextDatumGetCString(qml_spi_value(table, 0, 3, TEXTOID, NULL));
	operation->options = DatumGetJsonbPCopy(qml_spi_value(table, 0, 4, JSONBOID, NULL));
	operation->timezone = TextDatumGetCString(qml_spi_value(table, 0, 5, TEXTOID, NULL));
	operation->made_by = DatumGetObjectId(qml_spi_value(table, 0, 6, OIDOID, NULL));
	operation->made_at = read_time(7);
	order = qml_spi_value(table, 0, 8, INT8OID, &isnull);
	operation->has_place = !isnull;
	if (operation->has_place)
	{
		operation->place.order = DatumGetInt64(order);
		operation->place.id = *DatumGetUUIDP(qml_spi_value(table, 0, 9, UUIDOID, NULL));
	}
	operation->walked = DatumGetBool(qml_spi_value(table, 0, 10, BOOLOID, NULL));
	read_held(qml_spi_value(table, 0, 11, UUIDARRAYOID, NULL), operation);
	operation->held_until = read_time(12);
	operation->looked = DatumGetInt64(qml_spi_value(table, 0, 13, INT8OID, NULL));
	read_counts(DatumGetJsonbP(qml_spi_value(table, 0, 14, JSONBOID, NULL)), operation->counts);
	return operation;
}

/* Locks the operation whose turn it is; NULL: there is none that can go on now. */
static Operation *
take_operation(void)
{
	MemoryContext context = CurrentMemoryContext;
	Operation *operation = NULL;
	QmlSpi spi;

	qml_spi_begin(&spi, qml_catalog()->owner);
	if (qml_spi_execute_latest(
			"SELECT b.id, b.action, b.query, b.options, b.timezone, b.made_by::oid, b.made_at, "
			"b.cursor_order, b.cursor_id, b.walked, b.held, b.held_until, b.looked, b.outcomes "
			"FROM qml.bulk_data b WHERE b.state = 'running' AND "
			"(b.not_before IS NULL OR b.not_before <= pg_catalog.clock_timestamp()) "
			"ORDER BY b.worked_at NULLS FIRST, b.made_at LIMIT 1 FOR UPDATE SKIP LOCKED",
			0, NULL, NULL, NULL, SPI_OK_SELECT) > 0)
	{
		MemoryContext spi_context = MemoryContextSwitchTo(context);

		operation = read_row();
		MemoryContextSwitchTo(spi_context);
	}
	qml_spi_end(&spi);
	return operation;
}

/* When there is more to do; QML_NO_TIME: nothing is under way. */
static TimestampTz
find_next(void)
{
	TimestampTz next = QML_NO_TIME;
	QmlSpi spi;

	qml_spi_begin(&spi, qml_catalog()->owner);
	if (qml_spi_execute_latest("SELECT pg_catalog.min(coalesce(b.not_before, "
							   "pg_catalog.clock_timestamp())) FROM qml.bulk_data b "
							   "WHERE b.state = 'running'",
							   0, NULL, NULL, NULL, SPI_OK_SELECT) > 0)
		next = read_time(1);
	qml_spi_end(&spi);
	return next;
}

/* ----- the rights of the role ----- */

static bool
may_administer_any(List *queues)
{
	ListCell *lc;

	if (queues == NIL)
		return qml_acl_allow_any(QML_CAN_ADMIN);
	foreach(lc, queues)
	{
		if (qml_acl_allow(QML_CAN_ADMIN, lfirst(lc)))
			return true;
	}
	return false;
}

/* Why the current user may not go on; NULL: he may. */
static char *
find_obstacle(const QmlBulkAction *action, const QmlSearchCompiled *compiled)
{
	char *name = GetUserNameFromId(GetUserId(), false);
	List *queues = qml_search_queues(compiled);

	AcceptInvalidationMessages();
	if (!may_administer_any(queues))
		return psprintf("role \"%s\" has no capability \"admin\" %s any more", name,
						queues ? "on a queue that the query names" : "on any queue");
	if (action->changes.queue && !qml_acl_allow(QML_CAN_ENQUEUE, action->changes.queue))
		return psprintf("role \"%s\" has no capability \"enqueue\" on queue \"%s\" any more", name,
						action->changes.queue);
	return NULL;
}

/* ----- a chunk ----- */

static QmlSearchCompiled *
compile(const Operation *operation)
{
	pg_tz *zone = pg_tzset(operation->timezone);

	if (zone == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("time zone \"%s\" is not known any more", operation->timezone)));
	return qml_search_compile_in_zone(operation->query, operation->made_at, zone);
}

/* Whether the jobs that others had are tried now, and not the next ones. */
static bool
is_turn_of_held(const Operation *operation)
{
	return operation->walked || operation->nheld >= HELD_MOST;
}

/* As the role that made the operation. */
static void
work_as_role(Work *work)
{
	const Operation *operation = work->operation;
	QmlBulkChunk *chunk = &work->chunk;
	QmlBulkAction *action = palloc(sizeof(QmlBulkAction));

	qml_bulk_action_parse(operation->action, operation->options, action);
	chunk->action = action;
	chunk->compiled = compile(operation);
	work->stopped = find_obstacle(action, chunk->compiled);
	if (work->stopped)
		return;
	if (action->changes.queue)
	{
		chunk->queue = qml_enqueue_try_lock_queue(action->changes.queue);
		work->is_busy = chunk->queue == NULL;
	}
	if (work->is_busy)
		return;
	chunk->made_at = operation->made_at;
	chunk->most_jobs = work->most_jobs;
	chunk->most_looked = work->most_looked;
	if (is_turn_of_held(operation))
	{
		chunk->ids = operation->held;
		chunk->nids = operation->nheld;
		chunk->most_jobs = Max(operation->nheld, 1);
		chunk->most_looked = PG_INT32_MAX;
	}
	else
	{
		chunk->has_after = operation->has_place;
		chunk->after = operation->place;
	}
	qml_bulk_chunk_run(chunk);
}

/* Work of qml_subxact_run(). */
static void
work_on_chunk(void *arg)
{
	Work *work = arg;
	Oid role = work->operation->made_by;
	MemoryContext oldcontext = MemoryContextSwitchTo(work->context);
	Oid user;
	int security;

	work->stopped = NULL;
	work->is_busy = false;
	memset(&work->chunk, 0, sizeof(work->chunk));
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(role)))
		work->stopped = psprintf("the role that made it, with OID %u, was dropped", role);
	else
	{
		GetUserIdAndSecContext(&user, &security);
		SetUserIdAndSecContext(role, security | SECURITY_LOCAL_USERID_CHANGE |
										 SECURITY_RESTRICTED_OPERATION);
		work_as_role(work);
		SetUserIdAndSecContext(user, security);
	}
	MemoryContextSwitchTo(oldcontext);
}

/* ----- what became of it ----- */

/* Notes the jobs that others had. */
static void
keep_held(Operation *operation, const QmlBulkChunk *chunk)
{
	bool retried = chunk->ids != NULL;
	pg_uuid_t *held = palloc(sizeof(pg_uuid_t) * (operation->nheld + chunk->nheld + 1));
	int count = retried ? 0 : operation->nheld;
	int most = retried && !operation->walked ? HELD_KEPT : PG_INT32_MAX;

	memcpy(held, operation->held, sizeof(pg_uuid_t) * count);
	for (int i = 0; i < chunk->nheld; i++)
	{
		if (count < most)
			held[count++] = chunk->held[i];
		else
			operation->counts[QML_BULK_HELD]++;
	}
	operation->held = held;
	operation->nheld = count;
}

/* Whether the operation has come to its end. */
static bool
advance(Operation *operation, const QmlBulkChunk *chunk)
{
	TimestampTz now = GetCurrentTimestamp();

	for (int i = 0; i < QML_BULK_OUTCOMES; i++)
		operation->counts[i] += chunk->counts[i];
	operation->looked += chunk->looked;
	keep_held(operation, chunk);
	if (chunk->ids == NULL)
	{
		operation->walked = chunk->over;
		if (!chunk->over)
		{
			operation->has_place = true;
			operation->place = chunk->reached;
		}
	}
	if (!operation->walked)
		return false;
	if (operation->held_until == QML_NO_TIME)
		operation->held_until = now + HELD_TIME;
	if (operation->nheld > 0 && now >= operation->held_until)
	{
		operation->counts[QML_BULK_HELD] += operation->nheld;
		operation->nheld = 0;
	}
	return operation->nheld == 0;
}

static void
write_row(const Operation *operation, const char *state, const char *reason, const char *error,
		  TimestampTz not_before)
{
	Oid types[] = {UUIDOID,		 TEXTOID,		 TEXTOID, INT8OID,	UUIDOID, BOOLOID,
				   UUIDARRAYOID, TIMESTAMPTZOID, INT8OID, JSONBOID, TEXTOID, TIMESTAMPTZOID};
	Datum values[] = {UUIDPGetDatum(&operation->id),
					  CStringGetTextDatum(state),
					  reason ? CStringGetTextDatum(reason) : (Datum) 0,
					  Int64GetDatum(operation->place.order),
					  UUIDPGetDatum(&operation->place.id),
					  BoolGetDatum(operation->walked),
					  make_held(operation->held, operation->nheld),
					  TimestampTzGetDatum(operation->held_until),
					  Int64GetDatum(operation->looked),
					  make_counts(operation->counts),
					  error ? qml_report_cut(error, (int) strlen(error), QML_MAX_ERROR) : (Datum) 0,
					  TimestampTzGetDatum(not_before)};
	bool nulls[lengthof(values)] = {false};
	QmlSpi spi;

	nulls[2] = reason == NULL;
	nulls[3] = nulls[4] = !operation->has_place;
	nulls[7] = operation->held_until == QML_NO_TIME;
	nulls[10] = error == NULL;
	nulls[11] = not_before == QML_NO_TIME;
	qml_spi_begin(&spi, qml_catalog()->owner);
	(void) qml_spi_execute_latest(
		"UPDATE qml.bulk_data SET state = $2, "
		"state_at = CASE WHEN state = $2 THEN state_at ELSE pg_catalog.clock_timestamp() END, "
		"state_reason = $3, cursor_order = $4, cursor_id = $5, walked = $6, held = $7, "
		"held_until = $8, looked = $9, outcomes = $10, last_error = coalesce($11, last_error), "
		"not_before = $12, worked_at = pg_catalog.clock_timestamp() WHERE id = $1",
		lengthof(values), types, values, nulls, SPI_OK_UPDATE);
	qml_spi_end(&spi);
}

/* Tells the log what became of an operation. */
static void
report_end(const Operation *operation, const char *state, const char *reason)
{
	char *outcomes = DatumGetCString(
		DirectFunctionCall1(jsonb_out, make_counts(operation->counts)));

	ereport(LOG, (errmsg("bulk operation %s (%s) is %s%s%s", qml_job_id_string(&operation->id),
						 operation->action, state, reason ? ": " : "", reason ? reason : ""),
				  errdetail("Jobs by outcome: %s.", outcomes)));
}

/* Ends the chunk of an operation: writes how far it has come, and what is next. */
static void
finish_chunk(Work *work, const QmlFailure *failure)
{
	Operation *operation = work->operation;
	TimestampTz soon = GetCurrentTimestamp() + HELD_INTERVAL;
	const char *state = "running";
	const char *reason = work->stopped;
	TimestampTz not_before = QML_NO_TIME;

	if (failure)
		reason = psprintf("%s (SQLSTATE %s)", failure->message,
						  unpack_sql_state(failure->sqlerrcode));
	if (reason)
		state = "failed";
	else if (work->is_busy)
		not_before = soon;
	else if (advance(operation, &work->chunk))
		state = "finished";
	else if (operation->walked)
		not_before = soon;
	write_row(operation, state, reason, work->chunk.error, not_before);
	if (strcmp(state, "running") != 0)
		report_end(operation, state, reason);
	qml_watch_note_common();
}

/*
 * Does one chunk of the operation whose turn it is: up to so many jobs, or until it has looked at so
 * many.
 */
void
qml_bulk_run(int most_jobs, int most_looked, QmlBulkRun *run)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "qml bulk",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	Work work = {.most_jobs = most_jobs, .most_looked = most_looked, .context = context};

	memset(run, 0, sizeof(*run));
	(void) qml_catalog_to_work();
	work.operation = take_operation();
	if (work.operation)
	{
		QmlFailure failure;
		bool done = qml_subxact_run(work_on_chunk, &work, &failure);

		if (!done)
		{
			work.stopped = NULL;
			memset(&work.chunk, 0, sizeof(work.chunk));
		}
		QML_FAULT("bulk.before_write");
		finish_chunk(&work, done ? NULL : &failure);
		run->any = true;
		run->changed = work.chunk.counts[QML_BULK_CHANGED];
		run->met = work.chunk.met;
		run->looked = work.chunk.looked;
	}
	run->next = find_next();
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
	QML_FAULT_AT_COMMIT("bulk.before_commit");
}
