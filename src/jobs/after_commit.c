/*
 * after_commit.c
 *		Jobs that call hooks after the commit of the transitions they are called for.
 *
 * A transition that an after-commit hook is called for makes a job in qml's own queue, in
 * the same transaction: both are committed, or neither is.  So the hook is called at least
 * once for each transition, as a job is run at least once.  How it runs: userfn/hook_job.c.
 *
 * Transitions are noted while rows are written, and the jobs are inserted together when the
 * writer is closed, or when much is noted.  Without such a hook a transition costs a look at
 * an empty list.
 *
 * Hooks that are called for alerts get such jobs, too (maintenance/alert_rows.c).
 *
 * What would never end does not begin: jobs of qml's own queue have no hooks, and a hook is
 * not told of what its own job does.
 *
 * `seq` tells a hook which of two transitions of a job came first, because its jobs may run in
 * any order.  It is the place in the WAL after the job's row was written.  That grows: the
 * next transition of the job is made after the commit of this one, and writes its row behind
 * it.  A sequence of the database would change what lastval() says to the caller.
 *
 * No locks but those of the tables that the writer has open.  Nobody drops qml's own queue.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "common/json.h"
#include "common/spi.h"
#include "common/uuid.h"
#include "core/state.h"
#include "ipc/counter_notes.h"
#include "ipc/wakeup.h"
#include "jobs/after_commit.h"
#include "jobs/partition.h"
#include "jobs/ready_row.h"
#include "jobs/told_job.h"
#include "model/acl.h"
#include "model/catalog.h"
#include "model/lineage.h"
#include "model/queue.h"
#include "userfn/current_job.h"
#include "userfn/hook_failure.h"
#include "userfn/hook_job.h"
#include "userfn/settings.h"

/* Rows written together. */
#define ROWS_AT_ONCE 256

/* What is noted and not written yet, in bytes: beyond it, jobs are made at once. */
#define MAX_NOTED (4 * 1024 * 1024)

/*
 * Documents of a job that a hook is told, in bytes together.  Larger ones are left out, or the
 * payload of the hook's job could be too large, and the transition would fail.
 */
#define MAX_DOCUMENTS (16 * 1024 * 1024)

/* Succeeded jobs of the queue are not kept: each transition would leave one. */
#define QUEUE_OPTIONS "{\"succeeded_ttl\": 0}"

/* One transition. */
typedef struct Transition
{
	Datum job; /* qml.job; payload and result only if a hook wants them */
	int queue_id;
	QmlState from;
	QmlState to;
	bool is_new; /* there is no `from` */
	int attempt;
	int64 seq;
} Transition;

/* A job of a hook that has failed for good. */
typedef struct FailedCall
{
	Datum hook; /* text */
	Oid role;
	Datum error; /* text, or 0 */
} FailedCall;

/* The jobs that are being made. */
typedef struct Insert
{
	QmlTable *live;
	const QmlQueue *queue;
	TimestampTz now;
	QmlToldJob told;
	TupleTableSlot *rows[ROWS_AT_ONCE];
	int count;			   /* of them are filled */
	int nrows;			   /* are made */
	MemoryContext context; /* of their values; reset when they are written */
} Insert;

/* Begins an operation; what is noted is kept in the current memory context. */
void
qml_after_commit_start(QmlAfterCommit *calls)
{
	calls->transitions = NIL;
	calls->failed = NIL;
	calls->noted = 0;
	calls->context = CurrentMemoryContext;
}

/* ----- noting ----- */

/* Whether a hook that wants the state is told payloads. */
static bool
is_payload_wanted(QmlState state)
{
	ListCell *lc;

	foreach(lc, qml_callback_all(QML_HOOK))
	{
		const QmlCallback *hook = lfirst(lc);

		if (qml_hook_job_wants(hook, state) && hook->options.with_payload)
			return true;
	}
	return false;
}

static Size
document_size(Datum document)
{
	return document == (Datum) 0 ? 0 : toast_raw_datum_size(document);
}

/* Leaves out what no hook wants, and what is too large. */
static void
choose_documents(QmlJob *job)
{
	Size own = document_size(job->metadata) + document_size(job->progress) +
			   document_size(job->errors);

	if (own > MAX_DOCUMENTS)
		job->metadata = job->progress = job->errors = (Datum) 0;
	if (!is_payload_wanted(job->state) ||
		own + document_size(job->payload) + document_size(job->result) > MAX_DOCUMENTS)
		job->payload = job->result = (Datum) 0;
}

static void
note_transition(QmlAfterCommit *calls, const QmlJob *job, bool is_new)
{
	Transition *transition = palloc(sizeof(Transition));
	QmlJob told = *job;

	choose_documents(&told);
	transition->job = qml_job_row(&told, QML_ACCESS_FULL);
	calls->noted += VARSIZE(DatumGetPointer(transition->job)) + sizeof(Transition);
	transition->queue_id = job->queue_id;
	transition->from = job->was;
	transition->to = job->state;
	transition->is_new = is_new;
	transition->attempt = job->attempt;
	transition->seq = (int64) GetXLogInsertRecPtr();
	calls->transitions = lappend(calls->transitions, transition);
}

/* The job of a hook has failed for good. */
static void
note_failure(QmlAfterCommit *calls, const QmlJob *job)
{
	FailedCall *failed = palloc(sizeof(FailedCall));
	Datum error = qml_job_last_error(job);

	failed->hook = PointerGetDatum(PG_DETOAST_DATUM_COPY(job->method));
	failed->role = job->created_by;
	failed->error = error;
	calls->failed = lappend(calls->failed, failed);
}

/* Whether so much is noted that qml_after_commit_write() must be called now. */
bool
qml_after_commit_is_full(const QmlAfterCommit *calls)
{
	return calls->noted > MAX_NOTED;
}

/* Notes a transition whose row was written, if any hook is told of it later. */
void
qml_after_commit_note(QmlAfterCommit *calls, const QmlJob *job, bool is_new)
{
	bool wanted = qml_hook_job_wanted(job->state);
	MemoryContext oldcontext;

	Assert(is_new || job->state != job->was);
	if (!wanted && job->state != QML_FAILED)
		return;
	oldcontext = MemoryContextSwitchTo(calls->context);
	if (!qml_queue_is_own(job->queue_id))
	{
		if (wanted)
			note_transition(calls, job, is_new);
	}
	else if (job->state == QML_FAILED)
		note_failure(calls, job);
	MemoryContextSwitchTo(oldcontext);
}

/* ----- what a hook is told ----- */

static void
push_state(JsonbParseState **state, const char *key, QmlState value, bool isnull)
{
	qml_json_push_text(state, key,
					   isnull ? (Datum) 0 : CStringGetTextDatum(qml_state_label(value)));
}

/* The payload of the job that calls the hook. */
static Datum
show_transition(QmlToldJob *told, const Transition *transition, bool with_payload)
{
	JsonbParseState *state = NULL;

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	qml_json_push_key(&state, "job");
	qml_told_job_push(told, &state, transition->job, with_payload);
	qml_json_push_int(&state, "attempt", transition->attempt);
	push_state(&state, "old", transition->from, transition->is_new);
	push_state(&state, "new", transition->to, false);
	qml_json_push_int(&state, "seq", transition->seq);
	return JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
}

/* ----- inserting ----- */

static void
write_rows(Insert *insert)
{
	QmlCounterDelta made = {.queue = insert->queue->id,
							.count = insert->count,
							.from = QML_NOT_COUNTED,
							.to = QML_ENQUEUED};

	insert->live->is_lazy = qml_queue_storage(insert->queue->id) != QML_DURABLE;
	if (insert->count > 0)
	{
		qml_table_insert_many(insert->live, insert->rows, insert->count);
		qml_counter_notes_add(&made);
	}
	for (int i = 0; i < insert->count; i++)
	{
		qml_ready_row_note_made(insert->rows[i], insert->rows[i]->tts_tid);
		ExecClearTuple(insert->rows[i]);
	}
	insert->count = 0;
	MemoryContextReset(insert->context);
	CHECK_FOR_INTERRUPTS();
}

/* What the hook of a job is told. */
typedef Datum (*Show)(Insert *insert, const QmlCallback *hook, const void *arg);

/* Adds the job that calls the hook for something. */
static void
add_job(Insert *insert, const QmlCallback *hook, Show show, const void *arg)
{
	MemoryContext oldcontext = CurrentMemoryContext;
	QmlJob job = {.created_at = insert->now,
				  .queue_id = insert->queue->id,
				  .state = QML_ENQUEUED,
				  .lineage = qml_lineage(insert->queue->id),
				  .max_retries = qml_queue_max_retries(insert->queue),
				  .timeout_ms = qml_queue_timeout_ms(insert->queue),
				  .created_by = hook->role,
				  .ready_at = QML_NO_TIME,
				  .run_at = QML_NO_TIME,
				  .started_at = QML_NO_TIME,
				  .finished_at = QML_NO_TIME,
				  .expires_at = QML_NO_TIME,
				  .lease_expires_at = QML_NO_TIME};
	QmlReadyJobs ready = {.handled = true, .count = 1};

	if (insert->count == insert->nrows)
		insert->rows[insert->nrows++] = MakeSingleTupleTableSlot(RelationGetDescr(
																	 insert->live->rel),
																 &TTSOpsVirtual);
	MemoryContextSwitchTo(insert->context);
	qml_uuid_generate(&job.id);
	job.method = CStringGetTextDatum(hook->name);
	job.payload = show(insert, hook, arg);
	qml_job_to_live(&job, insert->rows[insert->count]);
	/* It points to the id, which is on the stack. */
	ExecMaterializeSlot(insert->rows[insert->count++]);
	MemoryContextSwitchTo(oldcontext);
	ready.queue = job.queue_id;
	ready.name = insert->queue->name_hash;
	ready.method = qml_job_hash_method(job.method);
	qml_wakeup_ready(&ready, hook->role, false);
	if (insert->count == ROWS_AT_ONCE)
		write_rows(insert);
}

/* Whether the job of this very hook is what runs in this session. */
static bool
is_running(const QmlCallback *hook)
{
	const QmlJob *job = qml_current_job_or_null();

	return job && qml_queue_is_own(job->queue_id) && job->created_by == hook->role &&
		   strcmp(TextDatumGetCString(job->method), hook->name) == 0;
}

/* A Show of a transition. */
static Datum
show_to(Insert *insert, const QmlCallback *hook, const void *arg)
{
	return show_transition(&insert->told, arg, hook->options.with_payload);
}

static void
add_jobs(Insert *insert, const Transition *transition)
{
	const char *queue = qml_queue_require(transition->queue_id)->name;
	ListCell *lc;

	foreach(lc, qml_callback_all(QML_HOOK))
	{
		const QmlCallback *hook = lfirst(lc);

		if (qml_hook_job_wants(hook, transition->to) &&
			qml_acl_role_may(hook->role, QML_CAN_ADMIN, queue) && !is_running(hook))
			add_job(insert, hook, show_to, transition);
	}
}

/* Qml's own queue; made again if somebody has deleted its row. */
static const QmlQueue *
find_queue(void)
{
	const QmlQueue *queue = qml_queue_by_name(QML_HOOK_QUEUE);
	bool created;

	return queue ? queue : qml_queue_to_enqueue(QML_HOOK_QUEUE, false, &created);
}

static void
begin_insert(Insert *insert, QmlTable *live)
{
	memset(insert, 0, sizeof(*insert));
	insert->live = live;
	insert->now = GetCurrentTimestamp();
	insert->queue = find_queue();
	insert->context = AllocSetContextCreate(CurrentMemoryContext, "qml jobs of hooks",
											ALLOCSET_DEFAULT_SIZES);
}

static void
end_insert(Insert *insert)
{
	for (int i = 0; i < insert->nrows; i++)
		ExecDropSingleTupleTableSlot(insert->rows[i]);
	MemoryContextDelete(insert->context);
}

/*
 * Makes the jobs for the transitions that were noted, in qml.live, which is open.  What they
 * say does not depend on the settings of the session.
 */
void
qml_after_commit_write(QmlAfterCommit *calls, QmlTable *live)
{
	Insert insert;
	int guc_level;
	ListCell *lc;

	if (calls->transitions == NIL)
		return;
	begin_insert(&insert, live);
	guc_level = NewGUCNestLevel();
	qml_settings_pin();
	qml_told_job_begin(&insert.told);
	foreach(lc, calls->transitions)
		add_jobs(&insert, lfirst(lc));
	write_rows(&insert);
	qml_told_job_end(&insert.told);
	AtEOXact_GUC(false, guc_level);
	end_insert(&insert);
	foreach(lc, calls->transitions)
		pfree(DatumGetPointer(((Transition *) lfirst(lc))->job));
	list_free_deep(calls->transitions);
	calls->transitions = NIL;
	calls->noted = 0;
}

/* A Show of what is the same for all hooks. */
static Datum
show_document(Insert *insert, const QmlCallback *hook, const void *arg)
{
	return PointerGetDatum(arg);
}

/*
 * Makes a job for each hook that is called for alerts.  told: a jsonb document; queue: that the alert
 * is about, NULL: it is about all of them.
 */
void
qml_after_commit_tell_alert(Datum told, const char *queue)
{
	List *wanting = NIL;
	QmlTable live;
	Insert insert;
	ListCell *lc;

	foreach(lc, qml_callback_all(QML_HOOK))
	{
		const QmlCallback *hook = lfirst(lc);

		if (qml_hook_job_wants_alerts(hook) && qml_acl_role_may(hook->role, QML_CAN_ADMIN, queue))
			wanting = lappend(wanting, lfirst(lc));
	}
	if (wanting == NIL)
		return;
	qml_wakeup_read_rules();
	qml_table_open(&live, qml_store(QML_STORE_LOGGED)->live, RowExclusiveLock);
	begin_insert(&insert, &live);
	foreach(lc, wanting)
		add_job(&insert, lfirst(lc), show_document, DatumGetPointer(told));
	write_rows(&insert);
	end_insert(&insert);
	qml_table_close(&live);
}

/* Shows in qml.hook the calls that have failed for good; after the writer is closed. */
void
qml_after_commit_record(QmlAfterCommit *calls)
{
	ListCell *lc;

	foreach(lc, calls->failed)
	{
		const FailedCall *failed = lfirst(lc);

		qml_hook_failure_record_job(failed->hook, failed->role, failed->error);
	}
	calls->failed = NIL;
}

/* ----- the queue ----- */

/* Makes qml's own queue, when the first after-commit hook is registered. */
void
qml_after_commit_make_queue(void)
{
	Oid types[] = {TEXTOID, JSONBOID};
	Datum values[] = {CStringGetTextDatum(QML_HOOK_QUEUE),
					  DirectFunctionCall1(jsonb_in, CStringGetDatum(QUEUE_OPTIONS))};
	const QmlQueue *queue;
	QmlSpi spi;

	if (qml_queue_by_name(QML_HOOK_QUEUE))
		return;
	qml_spi_begin(&spi, qml_catalog()->owner);
	(void) qml_spi_execute("INSERT INTO qml.queue_data (name, options) VALUES ($1, $2) "
						   "ON CONFLICT (name) DO NOTHING RETURNING id",
						   lengthof(types), types, values, NULL, SPI_OK_INSERT_RETURNING);
	qml_queue_changed();
	qml_spi_end(&spi);
	queue = qml_queue_by_name(QML_HOOK_QUEUE);
	if (queue)
		(void) qml_partition_make_ahead(qml_queue_store(queue), qml_queue_ttls_of(queue), NULL);
}

/*
 * Of the queue $1, what qml_after_commit_forget() deletes.  Without run_at: no index has jobs
 * that wait for a retry by queue.  They are deleted when they are due.
 */
#define FORGOTTEN                                                              \
	"FROM qml.live l WHERE l.queue_id = $1 AND l.run_at IS NULL "              \
	"AND l.state <> 'processing' AND NOT EXISTS (SELECT FROM qml.hook_data h " \
	"WHERE h.name = l.method AND h.run_as = l.created_by "                     \
	"AND h.options @> '{\"after_commit\": true}')"

/*
 * Deletes the jobs whose hook is not registered any more, or by another role, all but those
 * that are running, and those that wait for a retry until they are due; returns how many.
 */
uint64
qml_after_commit_forget(void)
{
	Oid type = INT4OID;
	Datum value = Int32GetDatum(qml_queue_own_id());
	QmlSpi spi;
	uint64 deleted = 0;

	if (qml_queue_own_id() == 0)
		return 0;
	qml_spi_begin(&spi, qml_catalog()->owner);
	/*
	 * A look first, which reads nothing but the index live_ready, whatever is known of the
	 * table: nearly always there is none.
	 */
	if (qml_spi_execute_latest("SELECT " FORGOTTEN " ORDER BY l.priority DESC, l.id LIMIT 1", 1,
							   &type, &value, NULL, SPI_OK_SELECT) > 0)
		deleted = qml_spi_execute_latest("DELETE FROM qml.live WHERE id IN (SELECT l.id " FORGOTTEN
										 " FOR UPDATE OF l SKIP LOCKED)",
										 1, &type, &value, NULL, SPI_OK_DELETE);
	qml_spi_end(&spi);
	return deleted;
}
