/*
 * named_lock.c
 *		Named locks with an owner, an end and a fencing number.
 *
 * A lock is a row of qml.lock_data, so it commits and rolls back with the caller's
 * transaction.  Each call first takes an object lock on the name, to the end of the
 * transaction.  So what it decides, the time that counts for it and the number that it
 * draws come after everything that was decided before.
 *
 * Fencing numbers come from one sequence: they only grow, for each lock, also when it
 * was released or has expired in between.  Time is the server's clock.
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

/* Two names may have the same hash: they wait for one another, which does no harm. */
static void
lock_name(const char *resource)
{
	uint32 hash = hash_bytes((const unsigned char *) resource, strlen(resource));

	qml_table_require_write();
	LockDatabaseObject(qml_catalog()->lock, hash, 0, ExclusiveLock);
}

/*
 * Takes the lock, takes it over when it has expired, or extends it for its owner, who
 * keeps the number.  False when another owner holds it.
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

	lock_name(resource);
	now = GetCurrentTimestamp();
	values[2] = TimestampTzGetDatum(now);
	values[3] = TimestampTzGetDatum(now + ttl);

	/*
	 * Not qml_spi_execute_latest(): in REPEATABLE READ and SERIALIZABLE, ON CONFLICT DO
	 * UPDATE raises 40001 for a row that the snapshot of its statement does not see.  That
	 * must be the transaction's own: with a later one the lock would be taken over by a
	 * transaction that does not see what its last owner did.
	 */
	qml_spi_begin(&spi, qml_catalog()->owner);
	taken = qml_spi_execute("INSERT INTO qml.lock_data AS l "
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

/* Releases the lock; false when the owner does not hold it, or no longer. */
bool
qml_named_lock_release(const char *resource, const char *owner)
{
	Oid types[] = {TEXTOID, TEXTOID, TIMESTAMPTZOID};
	Datum values[] = {CStringGetTextDatum(resource), CStringGetTextDatum(owner), 0};
	QmlSpi spi;
	bool held;
	bool isnull;

	lock_name(resource);
	values[2] = TimestampTzGetDatum(GetCurrentTimestamp());
	qml_spi_begin(&spi, qml_catalog()->owner);
	held =
		qml_spi_execute_latest("DELETE FROM qml.lock_data l WHERE l.resource = $1 AND l.owner = $2 "
							   "RETURNING l.expires_at > $3",
							   3, types, values, NULL, SPI_OK_DELETE_RETURNING) > 0 &&
		DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	qml_spi_end(&spi);
	return held;
}
