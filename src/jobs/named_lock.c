/*
 * named_lock.c
 *		Named locks with an owner, an end and a fencing number.
 *
 * A lock is a row of qml.lock, so it commits and rolls back with the caller's
 * transaction.  Whoever decides about a lock first takes an object lock that
 * stands for its name, to the end of the transaction: what is decided, the time
 * it counts from and the number it draws then come after everything that was
 * decided before.  Fencing numbers come from a sequence: they only grow, for each
 * lock, also when it was released or expired in between.  Time is the server's
 * clock.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "common/spi.h"
#include "common/table.h"
#include "jobs/named_lock.h"
#include "model/catalog.h"

/* Two names may share a number: they wait for one another, which does no harm. */
static void
become_decider(const char *resource)
{
	uint32 number = hash_bytes((const unsigned char *) resource, strlen(resource));

	qml_table_require_write();
	LockDatabaseObject(qml_catalog()->lock, number, 0, ExclusiveLock);
}

/*
 * Takes the lock, takes it over when it has expired, or refreshes it for the
 * owner, who keeps his number.  False when somebody else holds it.
 */
bool
qml_named_lock_take(const char *resource, const char *owner, int64 ttl, int64 *fence)
{
	Oid types[] = {TEXTOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID};
	Datum values[] = {CStringGetTextDatum(resource), CStringGetTextDatum(owner), 0, 0};
	TimestampTz now;
	QmlSpi spi;
	bool taken;
	bool isnull;

	become_decider(resource);
	now = GetCurrentTimestamp();
	values[2] = TimestampTzGetDatum(now);
	values[3] = TimestampTzGetDatum(now + ttl);

	qml_spi_begin(&spi, qml_catalog()->owner);
	taken = qml_spi_execute("INSERT INTO qml.lock AS l "
							"(resource, owner, fence, acquired_at, expires_at) "
							"VALUES ($1, $2, pg_catalog.nextval('qml.lock_fence'), $3, $4) "
							"ON CONFLICT (resource) DO UPDATE SET "
							"owner = excluded.owner, "
							"expires_at = excluded.expires_at, "
							"fence = CASE WHEN l.expires_at > $3 THEN l.fence "
							"ELSE pg_catalog.nextval('qml.lock_fence') END, "
							"acquired_at = CASE WHEN l.expires_at > $3 THEN l.acquired_at "
							"ELSE $3 END "
							"WHERE l.owner = excluded.owner OR l.expires_at <= $3 "
							"RETURNING l.fence",
							4, types, values, NULL, SPI_OK_INSERT_RETURNING) > 0;
	if (taken)
		*fence = DatumGetInt64(
			SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	qml_spi_end(&spi);
	return taken;
}

/* False when the owner does not hold the lock, or no longer. */
bool
qml_named_lock_release(const char *resource, const char *owner)
{
	Oid types[] = {TEXTOID, TEXTOID, TIMESTAMPTZOID};
	Datum values[] = {CStringGetTextDatum(resource), CStringGetTextDatum(owner), 0};
	QmlSpi spi;
	bool held;
	bool isnull;

	become_decider(resource);
	values[2] = TimestampTzGetDatum(GetCurrentTimestamp());
	qml_spi_begin(&spi, qml_catalog()->owner);
	held = qml_spi_execute_latest("DELETE FROM qml.lock l WHERE l.resource = $1 AND l.owner = $2 "
								  "RETURNING l.expires_at > $3",
								  3, types, values, NULL, SPI_OK_DELETE_RETURNING) > 0 &&
		   DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	qml_spi_end(&spi);
	return held;
}
