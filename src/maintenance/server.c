/*
 * server.c
 *		Registered servers: groups of workers outside the database.
 *
 * A server registers and gets an id; its workers fetch as "<id>/<name>", which puts the
 * id into the jobs that they claim.  If it sends no heartbeat for
 * qml.dead_server_timeout, it is given up: its row is marked dead, and the jobs that it
 * held are reclaimed.  A heartbeat after that is answered with false, and the server must
 * register again, under a new id.  So what it fetches then is not taken for what it lost.
 *
 * The mark comes first.  The scheduler commits it, then reclaims the jobs of all servers
 * that are marked, in as many transactions as that takes (reclaim.c).  So a server that
 * has lost some of its jobs never passes for alive, and a crash leaves nothing undone: what
 * is marked is found again.  In calls of clients all of it is one transaction.
 *
 * The row of a server is locked before its jobs.  A heartbeat that comes meanwhile waits
 * and is then answered with false.
 *
 * Background processes of this database are not in the table but in shared memory
 * (ipc/slots.c).
 */
#include "postgres.h"

#include <unistd.h>

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "common/guc.h"
#include "common/spi.h"
#include "ipc/slots.h"
#include "ipc/wakeup.h"
#include "ipc/watch_notes.h"
#include "maintenance/reclaim.h"
#include "maintenance/server.h"
#include "model/acl.h"
#include "model/audit.h"
#include "model/catalog.h"
#include "qml.h"

/* Random bytes at the end of an id. */
#define ID_BYTES 6

/* Servers that one call gives up at most; a call that finds so many is followed by another. */
#define MAX_SILENT 1000

/* The name and random digits: no id is given twice. */
static char *
make_id(const char *name)
{
	uint8 bytes[ID_BYTES];
	char hex[ID_BYTES * 2 + 1];

	if (!pg_strong_random(bytes, sizeof(bytes)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate random values")));
	hex[hex_encode((char *) bytes, sizeof(bytes), hex)] = '\0';
	return psprintf("%s:%s", name, hex);
}

/* Registers a server; returns its id. */
char *
qml_server_register(const char *name, int workers, Datum queues)
{
	char *id = make_id(name);
	Oid types[] = {TEXTOID, TEXTOID, INT4OID, TEXTARRAYOID, OIDOID, TIMESTAMPTZOID};
	Datum values[] = {CStringGetTextDatum(id),		 CStringGetTextDatum(name),
					  Int32GetDatum(workers),		 queues,
					  ObjectIdGetDatum(GetUserId()), TimestampTzGetDatum(GetCurrentTimestamp())};
	bool nulls[] = {false, false, false, queues == (Datum) 0, false, false};
	QmlSpi spi;

	qml_spi_begin(&spi, qml_catalog()->owner);
	(void) qml_spi_execute("INSERT INTO qml.server_data (id, name, workers, queues, "
						   "registered_by, registered_at, heartbeat_at) "
						   "VALUES ($1, $2, $3, $4, $5, $6, $6)",
						   6, types, values, nulls, SPI_OK_INSERT);
	qml_spi_end(&spi);
	qml_watch_note_common();
	return id;
}

/*
 * Runs a statement about one server as it is now: $1 is its id, $2 the time.  Returns the
 * number of rows.
 */
static uint64
execute_for_server(const char *sql, const char *id, int expected)
{
	Oid types[] = {TEXTOID, TIMESTAMPTZOID};
	Datum values[] = {CStringGetTextDatum(id), TimestampTzGetDatum(GetCurrentTimestamp())};
	QmlSpi spi;
	uint64 rows;

	qml_spi_begin(&spi, qml_catalog()->owner);
	rows = qml_spi_execute_latest(sql, 2, types, values, NULL, expected);
	qml_spi_end(&spi);
	return rows;
}

#define FIND_OWNER "SELECT s.registered_by::oid FROM qml.server_data s WHERE s.id = $1"

/*
 * The role that registered a server; InvalidOid when there is none.  lock: before the
 * server is changed together with its jobs.
 */
static Oid
find_owner(const char *id, bool lock)
{
	Oid type = TEXTOID;
	Datum value = CStringGetTextDatum(id);
	Oid owner = InvalidOid;
	QmlSpi spi;

	qml_spi_begin(&spi, qml_catalog()->owner);
	if (qml_spi_execute_latest(lock ? FIND_OWNER " FOR UPDATE" : FIND_OWNER, 1, &type, &value, NULL,
							   SPI_OK_SELECT) > 0)
		owner = DatumGetObjectId(qml_spi_value(SPI_tuptable, 0, 1, OIDOID, NULL));
	qml_spi_end(&spi);
	return owner;
}

/* The role that registered it and administrators may control a server. */
static void
check_control(Oid owner)
{
	if (!has_privs_of_role(GetUserId(), owner))
		qml_acl_require(QML_CAN_ADMIN, NULL);
}

/* The same; raises 42704 when there is none, unless missing_ok. */
static Oid
find_owner_or_raise(const char *id, bool lock, bool missing_ok)
{
	Oid owner = find_owner(id, lock);

	if (!OidIsValid(owner) && !missing_ok)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("server \"%s\" does not exist", id),
				 errdetail("It was not registered, or has been removed since."),
				 errhint("qml_register_server() registers a server, and returns its id.")));
	return owner;
}

/* A server is alive; false when it was given up, or is not known and missing_ok. */
bool
qml_server_heartbeat(const char *id, bool missing_ok)
{
	Oid owner = find_owner_or_raise(id, false, missing_ok);

	if (!OidIsValid(owner))
		return false;
	check_control(owner);
	return execute_for_server("UPDATE qml.server_data s SET heartbeat_at = $2 "
							  "WHERE s.id = $1 AND s.dead_at IS NULL",
							  id, SPI_OK_UPDATE) > 0;
}

/* Records that a server was given up, or removed, by hand; and how many jobs were reclaimed. */
static void
record_end(const char *action, const char *id, int jobs)
{
	QmlAuditAct act = {.action = action,
					   .kind = QML_AUDIT_SERVER,
					   .object = id,
					   .after = qml_audit_count("reclaimed_jobs", jobs)};

	qml_audit_write(&act);
}

/*
 * Removes a server; jobs that its workers still hold are reclaimed.  False: not known, and
 * missing_ok.
 */
bool
qml_server_unregister(const char *id, bool missing_ok)
{
	Oid owner = find_owner_or_raise(id, true, missing_ok);
	int jobs;

	if (!OidIsValid(owner))
		return false;
	check_control(owner);
	(void) qml_catalog_to_work();
	jobs = qml_reclaim_of_server(id);
	/* A server that ends unregisters itself; that somebody else does it is an act. */
	if (owner != GetUserId())
		record_end("qml_unregister_server", id, jobs);
	qml_watch_note_common();
	return execute_for_server("DELETE FROM qml.server_data s WHERE s.id = $1", id, SPI_OK_DELETE) >
		   0;
}

/* Marks a server dead, which the caller has locked. */
static void
mark_dead(const char *id)
{
	(void) execute_for_server("UPDATE qml.server_data s SET dead_at = $2 "
							  "WHERE s.id = $1 AND s.dead_at IS NULL",
							  id, SPI_OK_UPDATE);
	qml_watch_note_common();
}

/*
 * Gives a server up; returns how many jobs are reclaimed.  With missing_ok also jobs of a
 * server that is not known any more.
 */
int
qml_server_reclaim(const char *id, bool missing_ok)
{
	Oid owner = find_owner_or_raise(id, true, missing_ok);
	int jobs;

	(void) qml_catalog_to_work();
	if (OidIsValid(owner))
		check_control(owner);
	else
		qml_acl_require(QML_CAN_ADMIN, NULL);
	mark_dead(id);
	jobs = qml_reclaim_of_server(id);
	if (OidIsValid(owner) || jobs > 0)
		record_end("qml_reclaim_server", id, jobs);
	return jobs;
}

/*
 * Locks some servers that have sent no heartbeat since a time and that nobody else has
 * locked; returns their ids.
 */
static List *
lock_silent_servers(TimestampTz since)
{
	MemoryContext context = CurrentMemoryContext;
	Oid type = TIMESTAMPTZOID;
	Datum value = TimestampTzGetDatum(since);
	List *ids;
	QmlSpi spi;

	qml_spi_begin(&spi, qml_catalog()->owner);
	(void) qml_spi_execute("SELECT s.id FROM qml.server_data s "
						   "WHERE s.dead_at IS NULL AND s.heartbeat_at < $1 "
						   "ORDER BY s.id LIMIT " CppAsString2(
							   MAX_SILENT) " FOR UPDATE SKIP LOCKED",
						   1, &type, &value, NULL, SPI_OK_SELECT);
	ids = qml_spi_strings(context);
	qml_spi_end(&spi);
	return ids;
}

/* The oldest last heartbeat of a server that is alive; QML_NO_TIME: there are none. */
static TimestampTz
oldest_heartbeat(void)
{
	QmlSpi spi;
	bool isnull;
	Datum value;

	qml_spi_begin(&spi, qml_catalog()->owner);
	(void) qml_spi_execute("SELECT pg_catalog.min(s.heartbeat_at) FROM qml.server_data s "
						   "WHERE s.dead_at IS NULL",
						   0, NULL, NULL, NULL, SPI_OK_SELECT);
	value = qml_spi_value(SPI_tuptable, 0, 1, TIMESTAMPTZOID, &isnull);
	qml_spi_end(&spi);
	/* One that was set to infinity by hand never falls silent. */
	return isnull || TIMESTAMP_NOT_FINITE(DatumGetTimestampTz(value)) ? QML_NO_TIME :
																		DatumGetTimestampTz(value);
}

/*
 * Marks servers dead that have sent no heartbeat for qml.dead_server_timeout; returns how
 * many.  Their jobs are left to qml_reclaim_lost().  *next becomes the time when another
 * one may be dead, or QML_NO_TIME.
 */
int
qml_server_give_up_silent(TimestampTz *next)
{
	TimestampTz now = GetCurrentTimestamp();
	int64 timeout = qml_dead_server_timeout * USECS_PER_SEC;
	List *ids = lock_silent_servers(now - timeout);
	ListCell *lc;

	(void) qml_catalog_to_work();
	foreach(lc, ids)
	{
		mark_dead(lfirst(lc));
		/* Each dies once, so each is told. */
		ereport(LOG,
				(errmsg("server \"%s\" sent no heartbeat for %d seconds; its jobs are reclaimed",
						(char *) lfirst(lc), qml_dead_server_timeout)));
	}
	/* The scheduler looks for the jobs, also for those that this caller leaves. */
	if (ids != NIL)
		qml_wakeup_at(QML_WAKE_SERVER, now);
	*next = oldest_heartbeat();
	if (*next != QML_NO_TIME)
		*next += timeout;
	return list_length(ids);
}

/* Deletes servers that have been dead for a day; until then they can be seen. */
void
qml_server_forget(void)
{
	QmlSpi spi;

	qml_spi_begin(&spi, qml_catalog()->owner);
	if (qml_spi_execute("DELETE FROM qml.server_data WHERE id IN (SELECT s.id "
						"FROM qml.server_data s "
						"WHERE s.dead_at < pg_catalog.clock_timestamp() - interval '1 day' "
						"FOR UPDATE SKIP LOCKED)",
						0, NULL, NULL, NULL, SPI_OK_DELETE) > 0)
		qml_watch_note_common();
	qml_spi_end(&spi);
}

/* Whether a server with this latest heartbeat, which was not given up, is alive. */
bool
qml_server_is_alive(TimestampTz heartbeat_at)
{
	return heartbeat_at > GetCurrentTimestamp() - qml_dead_server_timeout * USECS_PER_SEC;
}

/* The name under which the background processes of this server are shown. */
static char *
get_own_name(void)
{
	char host[QML_MAX_SERVER_NAME + 1];

	if (qml_server_name[0] != '\0')
		return pstrdup(qml_server_name);
	if (gethostname(host, sizeof(host)) != 0)
		return pstrdup("localhost");
	host[sizeof(host) - 1] = '\0';
	return pstrdup(host);
}

/* The columns of qml.background_servers(). */
#define BACKGROUND_COLUMNS 6

/* The rows of qml.background_servers(): the processes of this database; none if not preloaded. */
void
qml_server_list_background(Tuplestorestate *store, TupleDesc desc)
{
	char *name = get_own_name();
	QmlSlotView *slots;

	if (desc->natts != BACKGROUND_COLUMNS)
		elog(ERROR, "unexpected number of columns: %d", desc->natts);
	if (qml_shmem == NULL)
		return;
	slots = palloc(sizeof(QmlSlotView) * qml_shmem->nslots);
	qml_slots_copy_all(slots);
	for (int i = 0; i < qml_shmem->nslots; i++)
	{
		const QmlSlotView *slot = &slots[i];
		Datum values[BACKGROUND_COLUMNS];
		bool nulls[lengthof(values)] = {false};

		if (slot->state != QML_SLOT_RUNNING || slot->database != MyDatabaseId ||
			slot->kind == QML_LOOK)
			continue;
		values[0] = CStringGetTextDatum(psprintf("%s:%d", name, slot->pid));
		values[1] = CStringGetTextDatum(name);
		values[2] = CStringGetTextDatum(slot->kind == QML_WORKER ? "worker" : "scheduler");
		values[3] = ObjectIdGetDatum(slot->role);
		values[4] = TimestampTzGetDatum(slot->started_at);
		values[5] = TimestampTzGetDatum(slot->heartbeat_at);
		tuplestore_putvalues(store, desc, values, nulls);
	}
}
