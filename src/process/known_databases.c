/*
 * known_databases.c
 *		The databases that the launcher knows, and what others see of them.
 *
 * They are those that accept connections, and those that still have a process.  New ones
 * are found by reading pg_database again after an invalidation.  After each round
 * the launcher writes into shared memory (ipc/databases.c) how each of them is served, and
 * at most once a minute it names all that lack a process in the log.
 *
 * Called by the launcher only, whose memory it is in.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_database.h"
#include "lib/stringinfo.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "common/clock.h"
#include "common/log.h"
#include "compat.h"
#include "ipc/databases.h"
#include "ipc/slots.h"
#include "process/capacity.h"
#include "process/known_databases.h"
#include "process/listed.h"
#include "process/process.h"
#include "process/worker_pool.h"

/* Milliseconds between two messages about databases that are not shown. */
#define HIDDEN_INTERVAL (60 * 60 * 1000)

static List *databases = NIL; /* of QmlKnownDatabase */
static bool databases_changed = true;

/* Invalidation of pg_database; hashvalue 0 stands for all of it. */
static void
on_database_change(Datum arg, int cacheid, uint32 hashvalue)
{
	databases_changed = true;
}

/* Called once, when the launcher has connected. */
void
qml_known_databases_init(void)
{
	CacheRegisterSyscacheCallback(DATABASEOID, on_database_change, (Datum) 0);
	qml_databases_reset();
}

/* pg_database must be read again. */
void
qml_known_databases_forget(void)
{
	databases_changed = true;
}

List *
qml_known_databases_all(void)
{
	return databases;
}

/* What is known of a database; NULL if nothing is. */
QmlKnownDatabase *
qml_known_databases_find(Oid oid)
{
	ListCell *lc;

	foreach(lc, databases)
	{
		QmlKnownDatabase *database = lfirst(lc);

		if (database->oid == oid)
			return database;
	}
	return NULL;
}

/* A database that is new to us is looked at first. */
QmlKnownDatabase *
qml_known_databases_add(Oid oid)
{
	QmlKnownDatabase *database = MemoryContextAllocZero(TopMemoryContext, sizeof(QmlKnownDatabase));
	MemoryContext oldcontext = MemoryContextSwitchTo(TopMemoryContext);

	database->oid = oid;
	database->next = QML_NEXT_LOOK;
	database->ended = qml_clock_monotonic_ms();
	database->entry = -1;
	databases = lappend(databases, database);
	MemoryContextSwitchTo(oldcontext);
	return database;
}

/* Forgets the databases that are gone, or must not be worked in. */
static void
remove_unlisted(void)
{
	ListCell *lc;

	foreach(lc, databases)
	{
		QmlKnownDatabase *database = lfirst(lc);

		/* A process that still runs there ends by itself. */
		if (database->listed || database->running)
			continue;
		databases = foreach_delete_current(databases, lc);
		qml_databases_remove(database->entry);
		pfree(database);
	}
}

/* A row of pg_database. */
static void
note_database(Form_pg_database entry)
{
	QmlKnownDatabase *database;
	bool refused = !entry->datallowconn || entry->datistemplate || qml_database_is_invalid(entry);

	qml_listed_note(NameStr(entry->datname), refused);
	/* A template must stay free to be copied; the DROP of some databases was interrupted. */
	if (refused)
		return;
	database = qml_known_databases_find(entry->oid);
	if (database == NULL)
		database = qml_known_databases_add(entry->oid);
	strlcpy(database->name, NameStr(entry->datname), NAMEDATALEN);
	database->listed = true;
}

/* Reads pg_database. */
static void
read_databases(void)
{
	Relation rel;
	TableScanDesc scan;
	HeapTuple tuple;
	ListCell *lc;

	foreach(lc, databases)
		((QmlKnownDatabase *) lfirst(lc))->listed = false;

	databases_changed = false;
	qml_listed_start();
	qml_process_begin("reading pg_database");
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
		note_database((Form_pg_database) GETSTRUCT(tuple));
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	qml_process_commit();
	qml_listed_end();
	remove_unlisted();
}

/* If a database may have come, gone or changed, or qml.databases has: reads them. */
void
qml_known_databases_read_if_changed(void)
{
	if (databases_changed || qml_listed_has_changed())
		read_databases();
}

/* Whether a database is to have a scheduler, or to be looked at. */
bool
qml_known_databases_wants_process(const QmlKnownDatabase *database)
{
	return database->next != QML_NEXT_NOTHING && database->listed &&
		   qml_process_works_database(database->name);
}

/* How many of them there are. */
int
qml_known_databases_count_wanting(void)
{
	int count = 0;
	ListCell *lc;

	foreach(lc, databases)
	{
		if (qml_known_databases_wants_process(lfirst(lc)))
			count++;
	}
	return count;
}

/* ----- what others see of it ----- */

static QmlDatabaseState
state_of(const QmlKnownDatabase *database, int64 now)
{
	if (database->is_copy)
		return QML_DATABASE_COPY;
	if (database->running)
		return QML_DATABASE_SERVED;
	if (database->failures > 0 && database->not_before > now)
		return QML_DATABASE_FAILED;
	if (database->time_left == PG_INT64_MAX)
		return QML_DATABASE_STARTING;
	return database->time_left > 0 ? QML_DATABASE_RESTING : QML_DATABASE_WAITING;
}

/* Others no longer see the database, and what they make due there is noted nowhere. */
static void
hide_database(QmlKnownDatabase *database)
{
	database->rested = false;
	qml_databases_remove(database->entry);
	database->entry = -1;
	database->shown_state = QML_DATABASE_FREE;
	database->shown_roles = 0;
}

/* Writes into shared memory how a database is served. */
static void
show_database(QmlKnownDatabase *database, int64 now)
{
	QmlDatabaseState state = state_of(database, now);
	int roles = qml_worker_pool_count_waiting(database->oid);

	if (!qml_known_databases_wants_process(database) && !database->is_copy)
	{
		hide_database(database);
		return;
	}
	if (database->entry < 0)
	{
		database->entry = qml_databases_add(database->oid, database->name);
		database->shown_state = QML_DATABASE_FREE;
	}
	if (state == database->shown_state && roles == database->shown_roles &&
		database->served_at == database->shown_served_at)
		return;
	qml_databases_set(database->entry, database->name, state, roles, database->served_at);
	database->shown_state = state;
	database->shown_roles = roles;
	database->shown_served_at = database->served_at;
}

/* Whether a database lacks its scheduler, now or in turn, and whether it lacks a worker. */
static bool
lacks_scheduler(const QmlKnownDatabase *database)
{
	return database->shown_state == QML_DATABASE_WAITING ||
		   database->shown_state == QML_DATABASE_RESTING;
}

static bool
lacks_worker(const QmlKnownDatabase *database)
{
	return database->shown_roles > 0 && qml_slots_count_workers(database->oid, InvalidOid) == 0;
}

/* Names all databases that lack a process in the log, if one of them waits for it now. */
static void
log_unserved(void)
{
	bool waits = false;
	bool schedulers = false;
	StringInfoData list;
	ListCell *lc;

	foreach(lc, databases)
	{
		const QmlKnownDatabase *database = lfirst(lc);

		waits = waits || database->shown_state == QML_DATABASE_WAITING || lacks_worker(database);
		schedulers = schedulers || lacks_scheduler(database);
	}
	if (!waits || !qml_log_is_due(QML_LOG_SLOTS))
		return;
	initStringInfo(&list);
	foreach(lc, databases)
	{
		const QmlKnownDatabase *database = lfirst(lc);

		if (lacks_scheduler(database))
			appendStringInfo(&list, "%s\"%s\" (scheduler)", list.len > 0 ? ", " : "",
							 database->name);
		if (lacks_worker(database))
			appendStringInfo(&list, "%s\"%s\" (worker)", list.len > 0 ? ", " : "", database->name);
	}
	Assert(list.len > 0);
	ereport(LOG,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("qml launcher: no free background worker slot for databases: %s", list.data),
			 schedulers ?
				 errdetail("There can be %d processes, of which at most %d are schedulers; databases take turns.",
						   qml_capacity_processes(), qml_capacity_schedulers()) :
				 errdetail("There can be %d processes, schedulers included: there is none left for workers.",
						   qml_capacity_processes()),
			 qml_capacity_by_server() ?
				 errhint("Increase max_worker_processes: other processes of the server use its slots.") :
				 errhint("Increase qml.max_workers and max_worker_processes, or list fewer "
						 "databases in qml.databases.")));
}

/* Counts the databases and names that found no place to be shown, and tells of them. */
static void
show_hidden(void)
{
	static int shown = 0;
	int hidden = qml_listed_count_hidden();
	ListCell *lc;

	foreach(lc, databases)
	{
		const QmlKnownDatabase *database = lfirst(lc);

		if (database->entry < 0 && database->shown_state != QML_DATABASE_FREE)
			hidden++;
	}
	if (hidden != shown)
		qml_databases_set_hidden(hidden);
	shown = hidden;
	if (hidden > 0 && qml_log_is_due_after(QML_LOG_DATABASES, HIDDEN_INTERVAL))
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg_plural("qml launcher: no place for %d database beyond the first %d",
							   "qml launcher: no place for %d databases beyond the first %d",
							   hidden, hidden, qml_databases_most()),
				 errdetail("There is a scheduler about once a minute, whatever is due, and the view "
						   "qml.database does not show what it lacks."),
				 errhint("List the databases that have jobs in qml.databases.")));
}

void
qml_known_databases_show(int64 now)
{
	ListCell *lc;

	foreach(lc, databases)
		show_database(lfirst(lc), now);
	show_hidden();
	log_unserved();
}

/* No database is worked in: others see none. */
void
qml_known_databases_hide(void)
{
	ListCell *lc;

	foreach(lc, databases)
		hide_database(lfirst(lc));
}
