/*
 * named_lock.c
 *		Named locks with an owner, an end and a fencing number.
 *
 * A lock is a row of qml.lock_data, so it commits and rolls back with the caller's
 * transaction.  Each call first takes an object lock on the name, to the end of the
 * transaction.  So what it decides, the time that counts for it and the number that it
 * draws come after everything that was decided before.
 *
 * A lock belongs to the role that took it: the name of its owner can be seen by others,
 * and is no secret.  Only that role, its members and administrators of all queues refresh
 * or release it.  To anybody else who gives the same name it is held by somebody else.
 *
 * Fencing numbers come from one sequence: they only grow, for each lock, also when it
 * was released or has expired in between.  Time is the server's clock.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "common/spi.h"
#include "common/table.h"
#include "jobs/named_lock.h"
#include "model/acl.h"
#include "model/catalog.h"

/*
 * Whether the lock l belongs to the current user of qml's function, $4, or to a role that
 * it is a member of; $5: it may refresh and release all locks.
 */
#define IS_OWN "($5 OR pg_catalog.pg_has_role($4, l.taken_by::pg_catalog.oid, 'USAGE'))"

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
 * keeps the number.  False when another owner holds it, or another role.
 */
bool
qml_named_lock_take(const char *resource, const char *owner, int64 ttl, int64 *fence)
{
	Oid types[] = {TEXTOID, TEXTOID, TIMESTAMPTZOID, OIDOID, BOOLOID, TIMESTAMPTZOID};
	Datum values[] = {CStringGetTextDatum(resource),
					  CStringGetTextDatum(owner),
					  0,
					  ObjectIdGetDatum(GetUserId()),
					  BoolGetDatum(qml_acl_allow(QML_CAN_ADMIN, NULL)),
					  0};
	TimestampTz now;
	QmlSpi spi;
	bool taken;

	lock_name(resource);
	now = GetCurrentTimestamp();
	values[2] = TimestampTzGetDatum(now);
	values[5] = TimestampTzGetDatum(now + ttl);

	/*
	 * Not qml_spi_execute_latest(): in REPEATABLE READ and SERIALIZABLE, ON CONFLICT DO
	 * UPDATE raises 40001 for a row that the snapshot of its statement does not see.  That
	 * must be the transaction's own: with a later one the lock would be taken over by a
	 * transaction that does not see what its last owner did.
	 */
	qml_spi_begin(&spi, qml_catalog()->owner);
	taken = qml_spi_execute("INSERT INTO qml.lock_data AS l "
							"(resource, owner, fence, acquired_at, expires_at, taken_by) "
							"VALUES ($1, $2, pg_catalog.nextval('qml.lock_fence'), $3, $6, $4) "
							"ON CONFLICT (resource) DO UPDATE SET "
							"owner = excluded.owner, "
							"expires_at = excluded.expires_at, "
							"fence = CASE WHEN l.expires_at > $3 THEN l.fence "
							"ELSE pg_catalog.nextval('qml.lock_fence') END, "
							"acquired_at = CASE WHEN l.expires_at > $3 THEN l.acquired_at "
							"ELSE $3 END, "
							"taken_by = CASE WHEN l.expires_at > $3 THEN l.taken_by "
							"ELSE excluded.taken_by END "
							"WHERE l.owner = excluded.owner AND " IS_OWN " OR l.expires_at <= $3 "
							"RETURNING l.fence",
							lengthof(types), types, values, NULL, SPI_OK_INSERT_RETURNING) > 0;
	if (taken)
		*fence = DatumGetInt64(qml_spi_value(SPI_tuptable, 0, 1, INT8OID, NULL));
	qml_spi_end(&spi);
	return taken;
}

/* Releases the lock; false when the owner, or the role, does not hold it, or no longer. */
bool
qml_named_lock_release(const char *resource, const char *owner)
{
	Oid types[] = {TEXTOID, TEXTOID, TIMESTAMPTZOID, OIDOID, BOOLOID};
	Datum values[] = {CStringGetTextDatum(resource), CStringGetTextDatum(owner), 0,
					  ObjectIdGetDatum(GetUserId()),
					  BoolGetDatum(qml_acl_allow(QML_CAN_ADMIN, NULL))};
	QmlSpi spi;
	bool held;

	lock_name(resource);
	values[2] = TimestampTzGetDatum(GetCurrentTimestamp());
	qml_spi_begin(&spi, qml_catalog()->owner);
	held = qml_spi_execute_latest("DELETE FROM qml.lock_data l "
								  "WHERE l.resource = $1 AND l.owner = $2 AND " IS_OWN
								  " RETURNING l.expires_at > $3",
								  lengthof(types), types, values, NULL,
								  SPI_OK_DELETE_RETURNING) > 0 &&
		   DatumGetBool(qml_spi_value(SPI_tuptable, 0, 1, BOOLOID, NULL));
	qml_spi_end(&spi);
	return held;
}
