/*
 * server.c
 *		Registered servers: groups of workers outside the database.
 *
 * A server registers and gets an id; its workers fetch as "<id>/<name>", which puts the
 * id into the jobs that they claim.  If it sends no heartbeat for
 * qml.dead_server_timeout, it is given up: its jobs are reclaimed and its row is marked
 * dead.  A heartbeat after that is answered with false, and the server must register
 * again, under a new id.  So what it fetches then is not taken for what it lost.
 *
 * The row of a server is locked before its jobs, and giving it up is one transaction.  A
 * heartbeat that comes meanwhile waits and is then answered with false.  A crash before
 * the commit leaves the server alive and its jobs held; the next look does it again.
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
#include "common/log.h"
#include "common/spi.h"
#include "ipc/slots.h"
#include "maintenance/reclaim.h"
#include "maintenance/server.h"
#include "model/acl.h"
#include "model/catalog.h"
#include "qml.h"

/* Random bytes at the end of an id. */
#define ID_BYTES 6

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
	bool isnull;

	qml_spi_begin(&spi, qml_catalog()->owner);
	if (qml_spi_execute_latest(lock ? FIND_OWNER " FOR UPDATE" : FIND_OWNER, 1, &type, &value, NULL,
							   SPI_OK_SELECT) > 0)
		owner = DatumGetObjectId(
			SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
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

/* A server is alive; false when it is not known, or was given up. */
bool
qml_server_heartbeat(const char *id)
{
	Oid owner = find_owner(id, false);

	if (!OidIsValid(owner))
		return false;
	check_control(owner);
	return execute_for_server("UPDATE qml.server_data s SET heartbeat_at = $2 "
							  "WHERE s.id = $1 AND s.dead_at IS NULL",
							  id, SPI_OK_UPDATE) > 0;
}

/* Removes a server; jobs that its workers still hold are reclaimed.  False: not known. */
bool
qml_server_unregister(const char *id)
{
	Oid owner = find_owner(id, true);

	if (!OidIsValid(owner))
		return false;
	check_control(owner);
	(void) qml_catalog_to_work();
	(void) qml_reclaim_of_server(id, INT_MAX);
	return execute_for_server("DELETE FROM qml.server_data s WHERE s.id = $1", id, SPI_OK_DELETE) >
		   0;
}

/*
 * Reclaims up to max jobs of a server, which the caller has locked; returns how many.  It
 * is marked dead when none is left, so that the next call goes on.
 */
static int
give_up_server(const char *id, int max)
{
	int jobs = qml_reclaim_of_server(id, max);

	if (jobs < max)
		(void) execute_for_server("UPDATE qml.server_data s SET dead_at = $2 "
								  "WHERE s.id = $1 AND s.dead_at IS NULL",
								  id, SPI_OK_UPDATE);
	return jobs;
}

/* Gives a server up; returns how many jobs are reclaimed. */
int
qml_server_reclaim(const char *id)
{
	Oid owner = find_owner(id, true);

	(void) qml_catalog_to_work();
	if (OidIsValid(owner))
		check_control(owner);
	else
		qml_acl_require(QML_CAN_ADMIN, NULL);
	return give_up_server(id, INT_MAX);
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
						   "ORDER BY s.id LIMIT 10 FOR UPDATE SKIP LOCKED",
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
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	qml_spi_end(&spi);
	return isnull ? QML_NO_TIME : DatumGetTimestampTz(value);
}

/*
 * Gives up servers that have sent no heartbeat for qml.dead_server_timeout; reclaims up to
 * max jobs, and returns how many.  *next becomes the time when another one may be dead,
 * or QML_NO_TIME.
 */
int
qml_server_reclaim_dead(int max, TimestampTz *next)
{
	int64 timeout = qml_dead_server_timeout * USECS_PER_SEC;
	List *ids = lock_silent_servers(GetCurrentTimestamp() - timeout);
	int jobs = 0;
	ListCell *lc;

	(void) qml_catalog_to_work();
	foreach(lc, ids)
	{
		if (jobs < max)
			jobs += give_up_server(lfirst(lc), max - jobs);
	}
	if (ids != NIL && qml_log_is_due(QML_LOG_SERVERS))
		ereport(LOG,
				(errmsg("server \"%s\" sent no heartbeat for %d seconds; its jobs are reclaimed",
						(char *) linitial(ids), qml_dead_server_timeout)));
	*next = oldest_heartbeat();
	if (*next != QML_NO_TIME)
		*next += timeout;
	return jobs;
}

/* Deletes servers that have been dead for a day; until then they can be seen. */
void
qml_server_forget(void)
{
	QmlSpi spi;

	qml_spi_begin(&spi, qml_catalog()->owner);
	(void) qml_spi_execute("DELETE FROM qml.server_data s "
						   "WHERE s.dead_at < pg_catalog.clock_timestamp() - interval '1 day'",
						   0, NULL, NULL, NULL, SPI_OK_DELETE);
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

/* The rows of qml.background_servers(): the processes of this database; none if not preloaded. */
void
qml_server_list_background(Tuplestorestate *store, TupleDesc desc)
{
	char *name = get_own_name();
	QmlSlotView *slots;

	if (qml_shmem == NULL)
		return;
	slots = palloc(sizeof(QmlSlotView) * qml_shmem->nslots);
	qml_slots_copy_all(slots);
	for (int i = 0; i < qml_shmem->nslots; i++)
	{
		const QmlSlotView *slot = &slots[i];
		Datum values[6];
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
