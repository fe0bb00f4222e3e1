/*
 * unlogged_rows.c
 *		The jobs of unlogged queues, for the view of all jobs.
 *
 * The view cannot name the unlogged tables: on a standby it would fail as a whole.  So it calls a
 * function, which gives the rows that the tables of these jobs have, as the view reads those of
 * others.  It runs as the reader of the view, and so it does itself what the view does for the
 * tables that it names: rows of queues that the reader does not see are left out, and contents that
 * it does not see are null, or hidden (model/redact.c).
 *
 * Columns are found by name and type, so that a function with more of them, or fewer, works
 * as well: the SQL objects may be older or newer than the library.
 *
 * Rows are seen by the snapshot of the statement, so that a job that moves is in one place for it.
 * AccessShareLock is held to the end of the transaction, as in SQL.  While nothing was written to
 * the tables since they were emptied, as in each server without unlogged queues, none is opened.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "miscadmin.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "jobs/history.h"
#include "jobs/unlogged_rows.h"
#include "model/catalog.h"
#include "model/redact.h"

/* Columns that whoever sees a job sees; all others, also those that came later, are contents. */
static const char *const outline[] = {
	"id",		  "created_at",	 "queue_id",   "priority",		   "state",	   "attempt",
	"uncounted",  "max_retries", "timeout_ms", "created_by",	   "ready_at", "run_at",
	"started_at", "finished_at", "expires_at", "lease_expires_at", "worker",   "server",
	"method",	  "job_type",
};

/* The rows of one call. */
typedef struct Rows
{
	Tuplestorestate *store;
	TupleDesc desc;
	bool *is_content; /* of its columns */
	int *sources;	  /* of its columns, the numbers in the table that is read; 0: it has none */
	bool finished;	  /* that is one of finished jobs */
	Datum *values;
	bool *nulls;
} Rows;

static bool
is_in_outline(const char *name)
{
	for (int i = 0; i < (int) lengthof(outline); i++)
	{
		if (strcmp(name, outline[i]) == 0)
			return true;
	}
	return false;
}

static void
begin_rows(Rows *rows, Tuplestorestate *store, TupleDesc desc)
{
	rows->store = store;
	rows->desc = desc;
	rows->is_content = palloc(sizeof(bool) * desc->natts);
	rows->sources = palloc(sizeof(int) * desc->natts);
	rows->values = palloc(sizeof(Datum) * desc->natts);
	rows->nulls = palloc(sizeof(bool) * desc->natts);
	for (int i = 0; i < desc->natts; i++)
		rows->is_content[i] = !is_in_outline(NameStr(TupleDescAttr(desc, i)->attname));
}

/* The number of the column of this name and type; 0: there is none. */
static int
find_column(TupleDesc desc, Form_pg_attribute wanted)
{
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped && att->atttypid == wanted->atttypid &&
			strcmp(NameStr(att->attname), NameStr(wanted->attname)) == 0)
			return i + 1;
	}
	return 0;
}

/* Adds the row in a slot, as far as the current user sees it. */
static void
add_row(Rows *rows, TupleTableSlot *slot)
{
	QmlAccess access;
	Datum method;
	int queue_id;

	slot_getallattrs(slot);
	queue_id = DatumGetInt32(slot->tts_values[LIVE_QUEUE_ID - 1]);
	method = slot->tts_values[(rows->finished ? HISTORY_METHOD : LIVE_METHOD) - 1];
	access = qml_redact_access(queue_id, method,
							   DatumGetObjectId(slot->tts_values[LIVE_CREATED_BY - 1]));
	if (access == QML_ACCESS_NONE)
		return;
	for (int i = 0; i < rows->desc->natts; i++)
	{
		int source = rows->sources[i];

		rows->nulls[i] = source == 0 || slot->tts_isnull[source - 1] ||
						 (rows->is_content[i] && access < QML_ACCESS_REDACTED);
		rows->values[i] = rows->nulls[i] ? (Datum) 0 : slot->tts_values[source - 1];
		if (rows->is_content[i] && access == QML_ACCESS_REDACTED)
		{
			rows->values[i] = qml_redact_value(qml_queue_by_id(queue_id), method,
											   NameStr(TupleDescAttr(rows->desc, i)->attname),
											   rows->values[i]);
			rows->nulls[i] = rows->values[i] == (Datum) 0;
		}
	}
	tuplestore_putvalues(rows->store, rows->desc, rows->values, rows->nulls);
}

/* Adds the rows of a table; of finished jobs, those that have not expired. */
static void
add_table(Rows *rows, Oid relid, bool finished)
{
	TimestampTz now = GetCurrentStatementStartTimestamp();
	QmlTable table;
	TableScanDesc scan;

	/* A partition may have been dropped meanwhile. */
	if (!qml_table_try_open(&table, relid, AccessShareLock))
		return;
	rows->finished = finished;
	for (int i = 0; i < rows->desc->natts; i++)
		rows->sources[i] = find_column(RelationGetDescr(table.rel), TupleDescAttr(rows->desc, i));
	scan = table_beginscan(table.rel, GetActiveSnapshot(), 0, NULL);
	while (table_scan_getnextslot(scan, ForwardScanDirection, table.slot))
	{
		bool isnull;

		CHECK_FOR_INTERRUPTS();
		if (!finished ||
			DatumGetTimestampTz(slot_getattr(table.slot, HISTORY_EXPIRES_AT, &isnull)) > now)
			add_row(rows, table.slot);
	}
	table_endscan(scan);
	qml_table_close(&table);
}

/* Stores the jobs that the current user sees, as rows of qml.unlogged_jobs(). */
void
qml_unlogged_rows_store(Tuplestorestate *store, TupleDesc desc)
{
	Rows rows;
	Oid *places;
	int count;

	if (qml_stores_in_use() <= QML_STORE_UNLOGGED)
		return;
	begin_rows(&rows, store, desc);
	add_table(&rows, qml_store(QML_STORE_UNLOGGED)->live, false);
	count = qml_history_places(QML_STORE_UNLOGGED, &places);
	for (int i = 0; i < count; i++)
		add_table(&rows, places[i], true);
}
