/*
 * reading.c
 *		Reading all jobs for those that are lost.
 *
 * Lost jobs are looked for among the claims that are known (reclaim.c).  Where not all of them
 * are known, the scheduler reads all of qml.live, in pieces (common/walk.c), and enters the
 * claims that it sees into the table of leases (ipc/lease_table.c, with the proof).  A claim
 * that begins behind the walk is entered by its transaction.  So when the reading is over, all
 * claims are known, unless something was missed meanwhile.
 *
 * Where they are, the scheduler goes on reading now and then, far more slowly, for what nobody
 * tells of: rows that logical replication writes, or somebody by SQL while triggers are
 * disabled.  A lost job that only this net has found is logged.  It is not cast while no row
 * is written, as far as the server counts rows.
 *
 * A crash loses the reading, and all that is known: the next one begins anew.
 */
#include "postgres.h"

#include "access/twophase.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/fmgroids.h"

#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "common/spi.h"
#include "maintenance/reading.h"
#include "maintenance/reclaim.h"
#include "model/catalog.h"

/*
 * Between two readings, and after each piece of the net: a pause of so many times what it
 * took.  The shortest ones, and what lies between two nets, in milliseconds.
 */
#define SHARE		 50
#define NET_SHARE	 500
#define MIN_PAUSE	 1000
#define NET_INTERVAL QML_FAULT_LIMIT("reading.net_ms", 10 * 60 * 1000)

/* A piece of a reading. */
typedef struct Piece
{
	QmlLostSearch lost; /* first, for qml_reclaim_is_over() */
	bool is_net;
	int escaped;	   /* lost jobs that the table of leases did not show */
	pg_uuid_t example; /* of these */
} Piece;

/* Whether a lost job was not to be found by a look; nobody is changing it either. */
static bool
has_escaped(QmlJobPass *pass, TupleTableSlot *slot, const pg_uuid_t *job)
{
	const Piece *piece = pass->arg;

	return piece->is_net && !piece->lost.of_server && qml_lease_table_is_known() &&
		   !qml_lease_table_shows(job, pass->now) && qml_table_row_fate(slot) == TM_Ok;
}

/* QmlJobPass: whether a job is lost; its claim is in the table of leases from now on. */
static bool
is_lost(QmlJobPass *pass, TupleTableSlot *slot)
{
	Piece *piece = unconstify(void *, pass->arg);
	bool over = qml_reclaim_is_over(pass, slot);
	QmlLease claim;

	if (!qml_reclaim_read_claim(slot, &claim))
	{
		if (qml_job_live_state(slot) != QML_PROCESSING)
			return over;
		/* Nothing ends a claim that somebody has written so, but it runs. */
		claim.end = QML_WAKE_NEVER;
	}
	if (over && has_escaped(pass, slot, &claim.job))
	{
		piece->escaped++;
		piece->example = claim.job;
	}
	if (!qml_lease_table_set_sooner(&claim))
		qml_lease_table_miss();
	return over;
}

/* Lost jobs that only the net has found. */
static void
report_escaped(const Piece *piece)
{
	if (piece->escaped == 0 || !qml_log_is_due(QML_LOG_ESCAPED))
		return;
	ereport(LOG,
			(errmsg_plural("%d lost job was found only by reading all jobs",
						   "%d lost jobs were found only by reading all jobs", piece->escaped,
						   piece->escaped),
			 errdetail("One of them is %s.", qml_job_id_string(&piece->example)),
			 errhint("That is so for rows that replication has written, and those that were "
					 "changed while triggers were disabled.")));
}

/* Whether a transaction is prepared that was prepared until then. */
static bool
is_prepared_since(TimestampTz then)
{
	Oid types[] = {OIDOID, TIMESTAMPTZOID};
	Datum values[] = {ObjectIdGetDatum(MyDatabaseId), TimestampTzGetDatum(then)};
	bool found;
	QmlSpi spi;

	if (max_prepared_xacts == 0)
		return false;
	qml_spi_begin(&spi, qml_catalog()->owner);
	found = qml_spi_execute("SELECT 1 FROM pg_catalog.pg_prepared_xact() p "
							"WHERE p.dbid = $1 AND p.prepared <= $2 LIMIT 1",
							2, types, values, NULL, SPI_OK_SELECT) > 0;
	qml_spi_end(&spi);
	return found;
}

/* How many rows of unfinished jobs were written, as far as the server has counted; -1: it does not. */
static int64
count_written_rows(void)
{
	Oid counters[] = {F_PG_STAT_GET_TUPLES_INSERTED, F_PG_STAT_GET_TUPLES_UPDATED,
					  F_PG_STAT_GET_TUPLES_DELETED};
	int64 rows = 0;

	if (!pgstat_track_counts)
		return -1;
	for (int i = 0; i < (int) lengthof(counters); i++)
	{
		for (int s = 0; s < qml_stores_in_use(); s++)
			rows += DatumGetInt64(
				OidFunctionCall1(counters[i], ObjectIdGetDatum(qml_store(s)->live)));
	}
	return rows;
}

/* Whether the reading is a net, which has no haste. */
bool
qml_reading_is_slow(const QmlReading *reading)
{
	return reading->is_net;
}

/* Begins a reading, before its first snapshot; false: there is nothing to read. */
bool
qml_reading_begin(QmlReading *reading)
{
	int64 complete = reading->complete;
	TimestampTz told_since;

	memset(reading, 0, sizeof(*reading));
	reading->complete = complete;
	reading->next = QML_NO_TIME;
	reading->rows = count_written_rows();
	reading->is_net = qml_lease_table_is_known();
	if (reading->is_net && reading->rows >= 0 && reading->rows == complete)
		return false;
	reading->mark = qml_lease_table_begin_reading(&told_since);
	/* It may be committed behind the walk. */
	if (is_prepared_since(told_since))
		reading->mark = 0;
	return true;
}

/*
 * Reads a piece, and reclaims up to max jobs that are lost.  Returns whether the reading is
 * over; *pause becomes the milliseconds until the next piece, or the next reading.
 */
bool
qml_reading_go_on(QmlReading *reading, int max, int64 *pause)
{
	int64 begun = qml_clock_monotonic_ms();
	Piece piece = {.is_net = reading->is_net};
	QmlJobPass pass = {.wants = is_lost,
					   .change = qml_reclaim_job,
					   .max = max,
					   .arg = &piece,
					   .walk = &reading->walk};
	int64 spent;

	(void) qml_catalog_to_work();
	qml_job_pass_over_all(&pass);
	QML_FAULT_AT_COMMIT("reclaim.before_commit");
	report_escaped(&piece);
	if (pass.next_lease != QML_NO_TIME &&
		(reading->next == QML_NO_TIME || pass.next_lease < reading->next))
		reading->next = pass.next_lease;
	spent = qml_clock_monotonic_ms() - begun;
	reading->worked += spent;
	*pause = reading->is_net ? spent * NET_SHARE : 0;
	if (!pass.over)
		return false;
	qml_lease_table_end_reading(reading->mark);
	reading->complete = reading->rows;
	*pause = Max(*pause, Max(MIN_PAUSE, reading->worked * SHARE));
	return true;
}

/* Milliseconds between two readings that nobody asks for. */
int64
qml_reading_interval(int64 usual)
{
	return qml_lease_table_is_known() ? NET_INTERVAL : usual;
}
