/*
 * command.c
 *		Running the statement of a command handler.
 *
 * VACUUM, REINDEX CONCURRENTLY, CREATE DATABASE and their like begin and end transactions
 * themselves, and are refused inside of anything: a function, a subtransaction, a
 * transaction with other statements.  So a command runs as the only statement of its
 * transaction, as if a client had sent it: while it does, the process holds no other
 * transaction, no snapshot and no lock, also none of qml's.
 *
 *	 transaction 1	the job is still that of the attempt, and can be run (alone.c)
 *	 the command	its transaction, or those that it makes
 *	 transaction 2	the session is reset
 *	 transaction 3	the end of the attempt (record.c)
 *
 * A crash between the command and the last of these leaves its work done and the job
 * claimed: at least once.  For the same reason no hook and no lost claim can undo it.
 *
 * Its result is an object: `tag`, the command tag; `rows`, how many rows it has returned or
 * changed, for statements that say so; `row`, if it has returned one row only, or `row_error`
 * if that row cannot be stored, which is no error of the job.  Other rows are counted and
 * dropped.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/xact.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "parser/analyze.h"
#include "pgstat.h"
#include "tcop/pquery.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"

#include "common/conversion.h"
#include "common/fault.h"
#include "common/guc.h"
#include "common/report.h"
#include "common/subxact.h"
#include "compat.h"
#include "process/command.h"
#include "process/execute.h"
#include "process/job_stop.h"
#include "process/pace.h"
#include "process/process.h"
#include "process/session_reset.h"
#include "userfn/statement.h"

/* A row so many times as large as a result is not even copied: no text is so much shorter. */
#define MAX_ROW_RATIO 16

/* Why a row was not stored, in bytes: it must itself fit into the smallest result. */
#define MAX_ROW_ERROR 256

/* Receives the rows of a statement, if it has any. */
typedef struct RowReceiver
{
	DestReceiver pub;
	MemoryContext context; /* of the row */
	TupleDesc desc;
	uint64 count;
	Datum row; /* composite; 0: there is none, or several, or a very large one */
} RowReceiver;

static Size
max_result_size(void)
{
	return (Size) qml_max_payload_size * 1024;
}

static void
start_rows(DestReceiver *self, int operation, TupleDesc desc)
{
	RowReceiver *receiver = (RowReceiver *) self;
	MemoryContext oldcontext = MemoryContextSwitchTo(receiver->context);

	receiver->desc = BlessTupleDesc(CreateTupleDescCopy(desc));
	MemoryContextSwitchTo(oldcontext);
}

/* What the values of variable length would take in memory. */
static Size
row_size(TupleTableSlot *slot)
{
	Size size = 0;

	slot_getallattrs(slot);
	for (int i = 0; i < slot->tts_tupleDescriptor->natts; i++)
	{
		if (!slot->tts_isnull[i] && TupleDescAttr(slot->tts_tupleDescriptor, i)->attlen == -1)
			size += toast_raw_datum_size(slot->tts_values[i]);
	}
	return size;
}

/*
 * Keeps the first row until there is a second one.  It is converted later, and so what it
 * has in TOAST tables is fetched now, while the statement's snapshot keeps it there.
 */
static bool
receive_row(TupleTableSlot *slot, DestReceiver *self)
{
	RowReceiver *receiver = (RowReceiver *) self;
	MemoryContext oldcontext;
	bool owned;

	if (receiver->count++ > 0)
	{
		if (receiver->row != (Datum) 0)
			pfree(DatumGetPointer(receiver->row));
		receiver->row = (Datum) 0;
		return true;
	}
	if (row_size(slot) > MAX_ROW_RATIO * max_result_size())
		return true;
	oldcontext = MemoryContextSwitchTo(receiver->context);
	receiver->row = heap_copy_tuple_as_datum(ExecFetchSlotHeapTuple(slot, false, &owned),
											 receiver->desc);
	MemoryContextSwitchTo(oldcontext);
	return true;
}

static void
ignore_event(DestReceiver *self)
{
}

/* The result with one member more, whose value is JSON; NULL: without. */
static Datum
make_document(const QueryCompletion *completion, uint64 count, const char *member,
			  const char *value)
{
	CommandTag tag = completion->commandTag;
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfo(&json, "{\"tag\": \"%s\"", GetCommandTagName(tag));
	if (command_tag_display_rowcount(tag))
		appendStringInfo(&json, ", \"rows\": " UINT64_FORMAT, completion->nprocessed);
	else if (count > 0)
		appendStringInfo(&json, ", \"rows\": " UINT64_FORMAT, count);
	if (member)
		appendStringInfo(&json, ", \"%s\": %s", member, value);
	appendStringInfoChar(&json, '}');
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(json.data));
}

/* What is made of the outcome of a statement. */
typedef struct Outcome
{
	const QueryCompletion *completion;
	const RowReceiver *receiver;
	Datum result;
} Outcome;

/* The result with the row, converted as results are; the types may have code of users. */
static void
make_document_with_row(void *arg)
{
	Outcome *outcome = arg;
	char *row;
	int level;

	if (outcome->receiver->row != (Datum) 0)
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		level = qml_conversion_begin(QML_NEEDS_ANYTHING);
		row = TextDatumGetCString(DirectFunctionCall1(row_to_json, outcome->receiver->row));
		qml_conversion_end(level);
		PopActiveSnapshot();
		outcome->result = make_document(outcome->completion, 1, "row", row);
		if (VARSIZE(DatumGetPointer(outcome->result)) - VARHDRSZ <= max_result_size())
			return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("the row is too large: qml.max_payload_size allows %zu bytes",
					max_result_size())));
}

/* The result without the row, and with the error of its conversion. */
static Datum
make_document_with_error(const QueryCompletion *completion, const char *message)
{
	StringInfoData json;

	initStringInfo(&json);
	escape_json(&json,
				TextDatumGetCString(qml_report_cut(message, strlen(message), MAX_ROW_ERROR)));
	return make_document(completion, 1, "row_error", json.data);
}

/* A cancel is meant for the job. */
static bool
is_cancel(int sqlerrcode)
{
	return sqlerrcode == ERRCODE_QUERY_CANCELED;
}

/*
 * The result of the job.  The statement has done its work: what is wrong with its row must not
 * undo that, nor have it done again.
 */
static Datum
make_result(const QueryCompletion *completion, const RowReceiver *receiver)
{
	Outcome outcome = {.completion = completion, .receiver = receiver};
	QmlFailure failure;

	if (receiver->count != 1)
		return make_document(completion, receiver->count, NULL, NULL);
	if (qml_subxact_try(make_document_with_row, &outcome, is_cancel, &failure))
		return outcome.result;
	return make_document_with_error(completion, failure.message);
}

/* The plans of the one statement; rules may have made several of it, or none. */
static List *
plan_statement(RawStmt *statement, const char *command)
{
	bool needs_snapshot = analyze_requires_snapshot(statement);
	List *plans;

	if (needs_snapshot)
		PushActiveSnapshot(GetTransactionSnapshot());
	plans = pg_plan_queries(pg_analyze_and_rewrite_fixedparams(statement, command, NULL, 0, NULL),
							command, CURSOR_OPT_PARALLEL_OK, NULL);
	if (needs_snapshot)
		PopActiveSnapshot();
	return plans;
}

/*
 * Does what postgres.c does for a query of one statement.  The statement may end the
 * transaction and begin others: the current memory context must outlive them.  After an
 * error the portal is marked as failed, and the abort of the transaction drops it.
 */
static Datum
execute_statement(const char *command)
{
	MemoryContext context = CurrentMemoryContext;
	RawStmt *statement = qml_statement_parse(command);
	RowReceiver receiver = {.pub = {receive_row, start_rows, ignore_event, ignore_event, DestNone},
							.context = context};
	QueryCompletion completion;
	Portal portal;

	Assert(ActivePortal == NULL && !IsSubTransaction());
	portal = CreatePortal("", true, true);
	portal->visible = false;
	PortalDefineQuery(portal, NULL, command, CreateCommandTag(statement->stmt),
					  plan_statement(statement, command), NULL);
	PortalStart(portal, NULL, 0, InvalidSnapshot);
	InitializeQueryCompletion(&completion);
	(void) qml_portal_run_all(portal, &receiver.pub, &completion);
	PortalDrop(portal, false);
	MemoryContextSwitchTo(context);
	return make_result(&completion, &receiver);
}

/*
 * Outside of a transaction: runs the command of a job and commits.  attempt->committed says
 * whether that was done; its end remains to be recorded.  An error before that is the job's,
 * and the caller's to handle.
 */
void
qml_command_run(QmlRunner *runner, QmlAttempt *attempt, const char *command)
{
	double milliseconds;

	Assert(!IsTransactionState() && !qml_job_stop_is_running());
	qml_job_stop_begin(&attempt->job, attempt->context);
	qml_job_stop_arm_job(&attempt->job);
	pgstat_report_activity(STATE_RUNNING,
						   psprintf("running %s, job %s", TextDatumGetCString(attempt->job.method),
									qml_job_id_string(&attempt->job.id)));
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	MemoryContextSwitchTo(runner->job_context);
	QML_FAULT("command.before_run");
	qml_execute_keep_result(runner, attempt, execute_statement(command));
	/* It may have caught the cancel as if it were its own. */
	if (qml_job_stop_timer_reason() == QML_STOP_TIMEOUT)
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("canceling a job because of its timeout")));
	qml_process_end_transaction();
	attempt->committed = true;
	qml_job_stop_disarm();
	milliseconds = qml_job_stop_elapsed_ms();
	qml_job_stop_end();
	QML_FAULT("command.after_commit");
	(void) pgstat_report_stat(true);
	attempt->trace = qml_trace_take();
	runner->spent_ms += milliseconds;
	qml_pace_note(&attempt->job, milliseconds, false);
}
