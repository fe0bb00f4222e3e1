/*
 * storage.c
 *		Checks of what keeps the tables of jobs small and claims fast: who holds back vacuum, whether
 *		it runs, whether qml is told of what SQL does to jobs.
 *
 * What holds back vacuum counts by the transactions that were begun since, because that is how many
 * dead rows there may be.  A transaction that is old on an idle server does no harm.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/transam.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "pgstat.h"
#include "postmaster/autovacuum.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "common/spi.h"
#include "compat.h"
#include "diagnosis/names.h"
#include "diagnosis/storage.h"
#include "maintenance/triggers.h"
#include "model/catalog.h"

/* So many transactions were begun since. */
#define HELD_TRANSACTIONS 100000

/* The oldest transaction id that somebody needs, and who. */
typedef struct Holder
{
	TransactionId xid; /* invalid: nobody holds anything back */
	char *who;
	char *remedy;
} Holder;

/* Notes one that is older than what is known. */
static void
consider(Holder *oldest, TransactionId xid, char *who, char *remedy)
{
	if (!TransactionIdIsNormal(xid) ||
		(TransactionIdIsValid(oldest->xid) && !TransactionIdPrecedes(xid, oldest->xid)))
		return;
	oldest->xid = xid;
	oldest->who = who;
	oldest->remedy = remedy;
}

static TransactionId
older_of(TransactionId a, TransactionId b)
{
	if (!TransactionIdIsNormal(a))
		return b;
	return TransactionIdIsNormal(b) && TransactionIdPrecedes(b, a) ? b : a;
}

/* Sessions of this database, and those that send the WAL to a standby that says what it needs. */
static void
consider_sessions(Holder *oldest)
{
	int count;

	pgstat_clear_backend_activity_snapshot();
	count = pgstat_fetch_stat_numbackends();
	for (int number = 1; number <= count; number++)
	{
		const LocalPgBackendStatus *entry = qml_backend_entry(number);
		const PgBackendStatus *status;
		TransactionId xid;

		if (entry == NULL)
			continue;
		status = &entry->backendStatus;
		xid = older_of(entry->backend_xid, entry->backend_xmin);
		/* This one, and those that do the work. */
		if (status->st_procpid == MyProcPid || status->st_backendType == B_AUTOVAC_WORKER)
			continue;
		if (status->st_backendType == B_WAL_SENDER)
			consider(oldest, xid,
					 psprintf("a query on a standby, by its WAL sender (pid %d)",
							  status->st_procpid),
					 "End the query on the standby, or turn off hot_standby_feedback there.");
		else if (status->st_databaseid == MyDatabaseId)
			consider(oldest, xid,
					 status->st_xact_start_timestamp == 0 ?
						 psprintf("the session with pid %d", status->st_procpid) :
						 psprintf("the session with pid %d, in a transaction since %s",
								  status->st_procpid,
								  qml_finding_time(status->st_xact_start_timestamp)),
					 psprintf("SELECT pg_terminate_backend(%d);", status->st_procpid));
	}
}

/* Prepared transactions and replication slots, which outlive their sessions. */
static void
consider_what_stays(Holder *oldest)
{
	MemoryContext context = CurrentMemoryContext;
	QmlSpi spi;
	uint64 rows;

	qml_spi_begin(&spi, qml_catalog()->owner);
	rows = qml_spi_execute_latest(
		"SELECT p.gid, NULL::text, p.transaction, false FROM pg_catalog.pg_prepared_xact() p "
		"WHERE p.dbid = (SELECT d.oid FROM pg_catalog.pg_database d "
		"WHERE d.datname = pg_catalog.current_database()) "
		"UNION ALL SELECT NULL, s.slot_name::text, s.xmin, s.active "
		"FROM pg_catalog.pg_get_replication_slots() s WHERE s.xmin IS NOT NULL",
		0, NULL, NULL, NULL, SPI_OK_SELECT);
	for (uint64 i = 0; i < rows; i++)
	{
		bool is_slot;
		bool isnull;
		Datum gid = qml_spi_value(SPI_tuptable, i, 1, TEXTOID, &is_slot);
		Datum slot = qml_spi_value(SPI_tuptable, i, 2, TEXTOID, &isnull);
		TransactionId xid = DatumGetTransactionId(qml_spi_value(SPI_tuptable, i, 3, XIDOID, NULL));
		MemoryContext oldcontext = MemoryContextSwitchTo(context);
		char *name = TextDatumGetCString(is_slot ? slot : gid);

		if (is_slot)
			consider(oldest, xid, psprintf("replication slot \"%s\"", name),
					 DatumGetBool(qml_spi_value(SPI_tuptable, i, 4, BOOLOID, NULL)) ?
						 pstrdup("End the query on the standby that uses the slot, or turn off "
								 "hot_standby_feedback there.") :
						 psprintf("SELECT pg_drop_replication_slot(%s);", qml_finding_quote(name)));
		else
			consider(oldest, xid, psprintf("prepared transaction \"%s\"", name),
					 psprintf("ROLLBACK PREPARED %s;", qml_finding_quote(name)));
		MemoryContextSwitchTo(oldcontext);
	}
	qml_spi_end(&spi);
}

void
qml_storage_check_vacuum(QmlFinding *finding)
{
	Holder oldest = {.xid = InvalidTransactionId};
	uint32 held;

	if (RecoveryInProgress())
	{
		qml_finding_pass(finding, "vacuum runs on the primary");
		return;
	}
	consider_sessions(&oldest);
	consider_what_stays(&oldest);
	held = TransactionIdIsValid(oldest.xid) ?
			   XidFromFullTransactionId(ReadNextFullTransactionId()) - oldest.xid :
			   0;
	if (held > HELD_TRANSACTIONS)
		qml_finding_fail(finding, oldest.remedy,
						 "vacuum cannot remove what %u transactions left: %s holds it back", held,
						 oldest.who);
	else
		qml_finding_pass(finding, "nothing holds back vacuum for %d transactions",
						 HELD_TRANSACTIONS);
}

/* Whether autovacuum is switched off for a table of jobs. */
static bool
is_switched_off(Oid relid)
{
	Relation rel = table_open(relid, AccessShareLock);
	const StdRdOptions *options = (const StdRdOptions *) rel->rd_options;
	bool off = options && !options->autovacuum.enabled;

	table_close(rel, NoLock);
	return off;
}

void
qml_storage_check_autovacuum(QmlFinding *finding)
{
	int count = qml_stores_in_use();

	if (!autovacuum_start_daemon || !pgstat_track_counts)
	{
		const char *name = autovacuum_start_daemon ? "track_counts" : "autovacuum";

		qml_finding_fail_setting(finding, name, "on",
								 "%s is off: the tables of jobs grow, and claims become slow",
								 name);
		return;
	}
	for (int i = 0; i < count; i++)
	{
		Oid live = qml_store(i)->live;

		if (!is_switched_off(live))
			continue;
		qml_finding_fail(finding,
						 psprintf("ALTER TABLE qml.%s RESET (autovacuum_enabled);",
								  get_rel_name(live)),
						 "autovacuum is switched off for qml.%s", get_rel_name(live));
		return;
	}
	qml_finding_pass(finding, "autovacuum is on");
}

/* Whether qml is told of what SQL writes: otherwise it does not use its memory, or relies on old. */
void
qml_storage_check_triggers(QmlFinding *finding)
{
	List *silent = qml_triggers_silent();
	QmlNameList names;
	ListCell *lc;

	if (silent == NIL)
	{
		qml_finding_pass(finding, "qml is told of jobs that SQL writes, and of what it caches");
		return;
	}
	qml_names_init(&names);
	foreach(lc, silent)
	{
		const QmlSilentTrigger *trigger = lfirst(lc);

		qml_names_add(&names, psprintf("%s on %s", trigger->name, trigger->table_name),
					  trigger->is_missing ? "missing" : "disabled or altered");
	}
	qml_finding_fail(finding, qml_finding_call("qml_adopt", ""),
					 "qml is not told of all that SQL writes: claims search the index, jobs are "
					 "counted by reading them or wrongly, or what is changed is not noticed: %s",
					 qml_names_text(&names));
}
