/*
 * server.c
 *		Servers: groups of workers that register, beat and may be found dead.
 *
 * A server outside the database registers and gets an id; its workers fetch as
 * "<id>/<name>", which puts the id into the job.  When it does not beat for
 * qml.dead_server_timeout, its jobs are taken back and it is marked dead: what it
 * beats after that is answered with false, and it must register again.
 *
 * A server's row is locked before its jobs.  The background processes of this
 * database are not in the table but in shared memory (ipc/shmem.c).
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
#include "common/subxact.h"
#include "maintenance/reclaim.h"
#include "maintenance/server.h"
#include "model/acl.h"
#include "model/catalog.h"
#include "qml.h"

/* Random bytes at the end of an id. */
#define ID_BYTES 6

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

/* $1 id, $2 now; returns how many rows there were. */
static uint64
run(const char *sql, const char *id, int expected)
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
 * Who registered a server, InvalidOid when there is none; locked if it is to be
 * changed together with its jobs.
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

/* Whoever registered it, and administrators. */
static void
require_control(Oid owner)
{
	if (!has_privs_of_role(GetUserId(), owner))
		qml_acl_require(QML_CAN_ADMIN, NULL);
}

/* A server says that it is alive; false when it is not known, or was given up. */
bool
qml_server_heartbeat(const char *id)
{
	Oid owner = find_owner(id, false);

	if (!OidIsValid(owner))
		return false;
	require_control(owner);
	return run("UPDATE qml.server_data s SET heartbeat_at = $2 "
			   "WHERE s.id = $1 AND s.dead_at IS NULL",
			   id, SPI_OK_UPDATE) > 0;
}

/* A server leaves; what its workers still hold is taken back.  False: not known. */
bool
qml_server_deregister(const char *id)
{
	Oid owner = find_owner(id, true);

	if (!OidIsValid(owner))
		return false;
	require_control(owner);
	(void) qml_catalog_to_work();
	(void) qml_reclaim_of_server(id, INT_MAX);
	return run("DELETE FROM qml.server_data s WHERE s.id = $1 AND $2 IS NOT NULL", id,
			   SPI_OK_DELETE) > 0;
}

/* A locked one: when no more than max jobs are left; returns how many are taken back. */
static int
give_up(const char *id, int max)
{
	int jobs = qml_reclaim_of_server(id, max);

	if (jobs < max)
		(void) run("UPDATE qml.server_data s SET dead_at = $2 "
				   "WHERE s.id = $1 AND s.dead_at IS NULL",
				   id, SPI_OK_UPDATE);
	return jobs;
}

/* Gives a server up, and takes its jobs back; returns how many. */
int
qml_server_reclaim(const char *id)
{
	Oid owner = find_owner(id, true);

	(void) qml_catalog_to_work();
	if (OidIsValid(owner))
		require_control(owner);
	else
		qml_acl_require(QML_CAN_ADMIN, NULL);
	return give_up(id, INT_MAX);
}

/* Ids of some servers that did not beat since a time, locked; nobody is waited for. */
static List *
find_silent(TimestampTz since)
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

/* The longest silence among servers that are alive; QML_NO_TIME: there are none. */
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
 * Gives up the servers that did not beat for qml.dead_server_timeout, as long as that
 * takes back no more than max jobs; returns how many.  *next becomes the time when another one may be
 * dead, or QML_NO_TIME.
 */
int
qml_server_reclaim_dead(int max, TimestampTz *next)
{
	int64 timeout = qml_dead_server_timeout * USECS_PER_SEC;
	List *ids = find_silent(GetCurrentTimestamp() - timeout);
	int jobs = 0;
	ListCell *lc;

	(void) qml_catalog_to_work();
	foreach(lc, ids)
	{
		if (jobs < max)
			jobs += give_up(lfirst(lc), max - jobs);
	}
	if (ids != NIL && qml_log_is_due(QML_LOG_SERVERS))
		ereport(LOG,
				(errmsg("server \"%s\" did not beat for %d seconds, its jobs are taken back",
						(char *) linitial(ids), qml_dead_server_timeout)));
	*next = oldest_heartbeat();
	if (*next != QML_NO_TIME)
		*next += timeout;
	return jobs;
}

/* Dead servers can be seen for a day. */
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

/* The name under which the background processes of this server are shown. */
char *
qml_server_own_name(void)
{
	char host[QML_MAX_SERVER_NAME + 1];

	if (qml_server_name[0] != '\0')
		return pstrdup(qml_server_name);
	if (gethostname(host, sizeof(host)) != 0)
		return pstrdup("localhost");
	host[sizeof(host) - 1] = '\0';
	return pstrdup(host);
}
