/*
 * grant.c
 *		Grants capabilities to roles, and revokes them.
 *
 * A capability is a row in qml.acl_data, which says for which queues; every function and view
 * checks it (acl.c).  The server lets everybody call the functions that check: the script
 * grants these to PUBLIC.  What a role gets besides its row is USAGE on the schemas of qml,
 * with its first capability or handler, until the last one is gone.  Without it nobody names a
 * view or table: who can name a table can lock it, without any privilege on it.  Where somebody
 * has taken functions or views from PUBLIC again, each role that has a capability or handler
 * gets them itself.
 *
 * A role with rows also has a mark (role_mark.c), by which the server knows that they are
 * the role's.  Rows of a role that has lost it are of no effect.  They are removed before
 * the role gets it again: what DROP OWNED has revoked does not come back with what is
 * granted later.
 *
 * Registrations (handlers, hooks, middleware, schedules) have a mark of their own.  Who
 * writes a row that names a role holds a ShareLock on the mark and role until the
 * transaction ends, so that nobody takes the mark away who does not see the row yet.
 *
 * Others grant USAGE by hand.  So what is revoked is as qml grants it: by the owner, without the
 * grant option.  Where that is not enough, a row records what qml has granted.
 *
 * GRANT and REVOKE take effect as of now in any isolation level.  So the rows that they
 * follow are read as of now, too, under a lock on qml.acl_data that keeps them so.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "common/cache.h"
#include "common/json.h"
#include "common/spi.h"
#include "common/table.h"
#include "compat.h"
#include "model/audit.h"
#include "model/catalog.h"
#include "model/grant.h"
#include "model/role_mark.h"
#include "model/shape.h"

/* What privileges are looked for. */
typedef enum Purpose
{
	TO_GRANT = 0, /* those that the role lacks */
	TO_REVOKE	  /* those that qml may have granted */
} Purpose;

/*
 * Whether USAGE on qml's own schema is one of these.  What the role has by membership, or
 * PUBLIC has, or another grantor gave, does not count.
 */
static bool
is_usage_one(Purpose purpose, Oid grantee)
{
	HeapTuple tuple = SearchSysCache1(NAMESPACEOID, ObjectIdGetDatum(qml_catalog()->schema));
	bool found = false;
	bool by_qml = false;
	bool isnull;
	Datum value;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for schema %u", qml_catalog()->schema);
	value = SysCacheGetAttr(NAMESPACEOID, tuple, Anum_pg_namespace_nspacl, &isnull);
	if (!isnull)
	{
		Acl *acl = DatumGetAclP(value);
		Oid owner = ((Form_pg_namespace) GETSTRUCT(tuple))->nspowner;

		for (int i = 0; i < ACL_NUM(acl) && !found; i++)
		{
			const AclItem *item = &ACL_DAT(acl)[i];

			/* Where the owner of the tables does not own the schema, it is the grantor itself. */
			found = item->ai_grantee == grantee &&
					(item->ai_grantor == owner || item->ai_grantor == qml_catalog()->owner) &&
					(ACLITEM_GET_PRIVS(*item) & ACL_USAGE) != 0;
			by_qml = found && (ACLITEM_GET_GOPTIONS(*item) & ACL_USAGE) == 0;
		}
	}
	ReleaseSysCache(tuple);
	return purpose == TO_GRANT ? !found : by_qml;
}

/* An index of the table; InvalidOid if there is none, or another one, of this name. */
static Oid
find_index(Relation acl, const char *name, QmlIndexShape shape)
{
	ListCell *lc;

	foreach(lc, RelationGetIndexList(acl))
	{
		Relation index = index_open(lfirst_oid(lc), AccessShareLock);
		bool fits = strcmp(RelationGetRelationName(index), name) == 0 &&
					qml_shape_index_fits(index, shape);

		index_close(index, AccessShareLock);
		if (fits)
			return lfirst_oid(lc);
	}
	return InvalidOid;
}

/* Whether a role has a row with the capability, in one of the two indexes on them. */
static bool
has_row(Relation acl, Oid index, Oid grantee, const char *capability)
{
	ScanKeyData keys[2];
	SysScanDesc scan;
	bool found;

	ScanKeyInit(&keys[0], ACL_GRANTEE, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(grantee));
	ScanKeyInit(&keys[1], ACL_CAPABILITY, BTEqualStrategyNumber, F_TEXTEQ,
				CStringGetTextDatum(capability));
	keys[1].sk_collation = TupleDescAttr(RelationGetDescr(acl), ACL_CAPABILITY - 1)->attcollation;
	scan = systable_beginscan(acl, index, OidIsValid(index), NULL, 2, keys);
	found = HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	return found;
}

/* Whether a role holds a capability by rows of its own. */
static bool
holds_capability(Oid grantee)
{
	Relation acl;
	Oid by_queue;
	Oid of_all;
	bool held = false;

	if (!qml_role_mark_has(QML_MARK_CAPABILITY, grantee))
		return false;
	acl = table_open(qml_catalog()->acl, AccessShareLock);
	Assert(CheckRelationLockedByMe(acl, ShareRowExclusiveLock, true));
	qml_table_check(acl, false);
	by_queue = find_index(acl, "acl_queue", QML_INDEX_ACL_QUEUE);
	of_all = find_index(acl, "acl_all", QML_INDEX_ACL_ALL);
	for (int c = 0; c < QML_CAPABILITIES && !held; c++)
		held = has_row(acl, by_queue, grantee, qml_capability_names[c]) ||
			   has_row(acl, of_all, grantee, qml_capability_names[c]);
	table_close(acl, AccessShareLock);
	return held;
}

/* Whether a handler runs as the role. */
static bool
runs_handler(Oid role)
{
	Oid type = REGROLEOID;
	Datum value = ObjectIdGetDatum(role);

	return qml_role_mark_has(QML_MARK_REGISTRATION, role) &&
		   qml_spi_execute_latest("SELECT FROM qml.handler_data h WHERE h.run_as = $1 LIMIT 1", 1,
								  &type, &value, NULL, SPI_OK_SELECT) > 0;
}

/* Records, or forgets, that qml has granted something; false if nothing changed. */
static bool
change_record(const char *what, Oid grantee, bool granted)
{
	Oid types[] = {REGROLEOID, TEXTOID, REGROLEOID};
	Datum values[] = {ObjectIdGetDatum(grantee), CStringGetTextDatum(what),
					  ObjectIdGetDatum(qml_catalog()->owner)};
	uint64 rows;

	if (granted)
		rows = qml_spi_execute_latest("INSERT INTO qml.acl_data (grantee, capability, grantor) "
									  "VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
									  3, types, values, NULL, SPI_OK_INSERT);
	else
		rows = qml_spi_execute_latest("DELETE FROM qml.acl_data WHERE grantee = $1 "
									  "AND capability = $2",
									  2, types, values, NULL, SPI_OK_DELETE);
	if (rows > 0)
		qml_cache_changed(qml_catalog()->acl);
	return rows > 0;
}

/*
 * The schema of the functions is not qml's own, and a role may have USAGE on it from
 * somebody else.  So a row records that it was qml that granted it, and only then is it
 * revoked.
 */
static void
grant_schema_usage(Oid grantee)
{
	Oid schema = qml_catalog()->function_schema;

	if (qml_schema_is_usable(schema, grantee))
		return;
	qml_spi_utility(psprintf("GRANT USAGE ON SCHEMA %s TO %s",
							 quote_identifier(get_namespace_name(schema)),
							 quote_identifier(GetUserNameFromId(grantee, false))));
	(void) change_record(QML_ACL_USAGE, grantee, true);
}

/* Revokes USAGE on that schema, if qml granted it. */
static void
revoke_schema_usage(Oid grantee)
{
	Oid schema = qml_catalog()->function_schema;

	if (change_record(QML_ACL_USAGE, grantee, false))
		qml_spi_utility(psprintf("REVOKE USAGE ON SCHEMA %s FROM %s",
								 quote_identifier(get_namespace_name(schema)),
								 quote_identifier(GetUserNameFromId(grantee, false))));
}

/*
 * Grants what a role needs to name functions, views and types, unless it has it: each GRANT
 * writes a new version of the schema's row, and a transaction with many of them would read more
 * and more versions.
 */
static void
grant_usage(Oid grantee)
{
	grant_schema_usage(grantee);
	if (is_usage_one(TO_GRANT, grantee))
		qml_spi_utility(psprintf("GRANT USAGE ON SCHEMA %s TO %s", QML_SCHEMA,
								 quote_identifier(GetUserNameFromId(grantee, false))));
}

static void
revoke_usage(Oid grantee)
{
	if (is_usage_one(TO_REVOKE, grantee))
		qml_spi_utility(psprintf("REVOKE USAGE ON SCHEMA %s FROM %s", QML_SCHEMA,
								 quote_identifier(GetUserNameFromId(grantee, false))));
	revoke_schema_usage(grantee);
}

/*
 * Of those who grant, revoke, register or unregister, one transaction at a time: two GRANTs
 * on the same function collide, and what is replaced must be known.  Before the rows.
 */
void
qml_grant_lock(void)
{
	qml_table_require_write();
	LockRelationOid(qml_catalog()->acl, ShareRowExclusiveLock);
}

/*
 * Changes rows of qml.acl_data: $1 is the grantee, $2 the capability, $3 the queue and $4,
 * if the statement uses it, the grantor.  Returns how many rows the statement returns or changes.
 */
static uint64
change_row(const char *sql, Oid grantee, QmlCapability capability, const char *queue, Oid grantor,
		   int expected)
{
	Oid types[] = {REGROLEOID, TEXTOID, TEXTOID, REGROLEOID};
	Datum values[] = {ObjectIdGetDatum(grantee),
					  CStringGetTextDatum(qml_capability_names[capability]),
					  queue ? CStringGetTextDatum(queue) : (Datum) 0, ObjectIdGetDatum(grantor)};
	bool nulls[] = {false, false, queue == NULL, false};
	uint64 rows = qml_spi_execute_latest(sql, 4, types, values, nulls, expected);

	if (rows > 0)
		qml_cache_changed(qml_catalog()->acl);
	return rows;
}

/* A capability and the queues that it is granted on, for the record; null stands for all. */
static Datum
describe_grants(QmlCapability capability, Datum queues)
{
	JsonbParseState *state = NULL;

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	qml_json_push_text(&state, "capability", CStringGetTextDatum(qml_capability_names[capability]));
	qml_json_push_document(&state, "queues", queues);
	return JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
}

/* One queue, or all, as an array. */
static Datum
list_queue(const char *queue)
{
	JsonbParseState *state = NULL;
	JsonbValue value = {.type = jbvNull};

	if (queue)
	{
		value.type = jbvString;
		value.val.string.val = unconstify(char *, queue);
		value.val.string.len = strlen(queue);
	}
	(void) pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	(void) pushJsonbValue(&state, WJB_ELEM, &value);
	return JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL)));
}

/* Records that capabilities were granted or revoked; queues: a jsonb array of names. */
static void
record_grant(const char *action, Oid grantee, QmlCapability capability, const char *queue,
			 Datum queues, bool granted)
{
	QmlAuditAct act = {.action = action, .kind = QML_AUDIT_ROLE, .queue = queue};
	Datum grants = describe_grants(capability, queues);

	act.object = GetUserNameFromId(grantee, false);
	act.before = granted ? (Datum) 0 : grants;
	act.after = granted ? grants : (Datum) 0;
	qml_audit_write(&act);
}

/* Runs a statement about a role, $1; returns how many rows it is about. */
static uint64
run_for_role(const char *sql, Oid role, int expected)
{
	Oid type = REGROLEOID;
	Datum value = ObjectIdGetDatum(role);

	return qml_spi_execute_latest(sql, 1, &type, &value, NULL, expected);
}

/*
 * What the script lets PUBLIC execute and select from, as the server remembers it, as far as it
 * is for the owner of the tables to grant: how GRANT names it, and the privileges on it.
 */
#define OPEN_OBJECTS                                                                         \
	"(SELECT 'EXECUTE' AS privilege, 'ROUTINE' AS kind, p.oid::regprocedure::text AS name, " \
	"p.proowner AS owner, coalesce(p.proacl, acldefault('f', p.proowner)) AS acl "           \
	"FROM pg_init_privs i JOIN pg_proc p ON p.oid = i.objoid "                               \
	"WHERE i.classoid = 'pg_proc'::regclass AND " IS_OPEN " "                                \
	"AND pg_has_role(p.proowner, 'USAGE') "                                                  \
	"UNION ALL "                                                                             \
	"SELECT 'SELECT', 'TABLE', c.oid::regclass::text, "                                      \
	"c.relowner, coalesce(c.relacl, acldefault('r', c.relowner)) "                           \
	"FROM pg_init_privs i JOIN pg_class c ON c.oid = i.objoid "                              \
	"WHERE i.classoid = 'pg_class'::regclass AND i.objsubid = 0 AND " IS_OPEN " "            \
	"AND pg_has_role(c.relowner, 'USAGE'))"
#define IS_OPEN                                                                                \
	"EXISTS (SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid "               \
	"WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'qml' " \
	"AND d.classid = i.classoid AND d.objid = i.objoid) "                                      \
	"AND EXISTS (SELECT FROM aclexplode(i.initprivs) a WHERE a.grantee = 0)"

/*
 * Grants what PUBLIC has lost of that to all who have a capability or a handler.  Not only to
 * the one whom the caller is about: what takes it from PUBLIC takes it from all of them.
 */
static void
grant_open_objects(void)
{
	SPITupleTable *table;
	uint64 rows;

	rows = run_for_role(
		"WITH lost AS MATERIALIZED (SELECT o.* FROM " OPEN_OBJECTS " o "
		"WHERE NOT EXISTS (SELECT FROM aclexplode(o.acl) a "
		"WHERE a.grantee = 0 AND a.privilege_type = o.privilege)) "
		"SELECT r.oid::regrole, h.capable, format('GRANT %s ON %s %s TO %I', l.privilege, l.kind, "
		"string_agg(l.name, ', '), r.rolname) "
		"FROM lost l CROSS JOIN (SELECT grantee AS role, true AS capable FROM qml.acl_data "
		"WHERE " QML_ACL_IS_CAPABILITY " "
		"UNION SELECT d.run_as, false FROM qml.handler_data d) h JOIN pg_roles r ON r.oid = h.role "
		"WHERE h.role <> $1 AND NOT EXISTS (SELECT FROM aclexplode(l.acl) a "
		"WHERE a.grantee = h.role AND a.privilege_type = l.privilege) "
		"GROUP BY r.oid, r.rolname, h.capable, l.privilege, l.kind",
		qml_catalog()->owner, SPI_OK_SELECT);
	table = SPI_tuptable;
	for (uint64 i = 0; i < rows; i++)
	{
		Oid role = DatumGetObjectId(qml_spi_value(table, i, 1, REGROLEOID, NULL));
		bool capable = DatumGetBool(qml_spi_value(table, i, 2, BOOLOID, NULL));

		/* Rows of a role without its mark are of no effect. */
		if (!qml_role_mark_has(capable ? QML_MARK_CAPABILITY : QML_MARK_REGISTRATION, role))
			continue;
		qml_spi_utility(TextDatumGetCString(qml_spi_value(table, i, 3, TEXTOID, NULL)));
		(void) change_record(QML_ACL_OPEN, role, true);
	}
}

/* Revokes it from a role that has neither, if qml granted it. */
static void
revoke_open_objects(Oid grantee)
{
	SPITupleTable *table;
	uint64 rows;

	if (!change_record(QML_ACL_OPEN, grantee, false))
		return;
	rows = run_for_role("SELECT format('REVOKE %s ON %s %s FROM %I', o.privilege, o.kind, "
						"string_agg(o.name, ', '), r.rolname) "
						"FROM " OPEN_OBJECTS " o JOIN pg_roles r ON r.oid = $1 "
						"WHERE EXISTS (SELECT FROM aclexplode(o.acl) a WHERE a.grantee = $1 "
						"AND a.privilege_type = o.privilege AND a.grantor = o.owner "
						"AND NOT a.is_grantable) GROUP BY o.privilege, o.kind, r.rolname",
						grantee, SPI_OK_SELECT);
	table = SPI_tuptable;
	for (uint64 i = 0; i < rows; i++)
		qml_spi_utility(TextDatumGetCString(qml_spi_value(table, i, 1, TEXTOID, NULL)));
}

/* ----- marks ----- */

/*
 * Removes the rows of a role without a mark.  So do the rows about other privileges go,
 * if the role has no mark at all: DROP OWNED has revoked these, too.
 */
static void
forget_capabilities(Oid role)
{
	if (qml_role_mark_has(QML_MARK_CAPABILITY, role))
		return;
	if (run_for_role(qml_role_mark_has(QML_MARK_REGISTRATION, role) ?
						 "DELETE FROM qml.acl_data WHERE grantee = $1 "
						 "AND " QML_ACL_IS_CAPABILITY :
						 "DELETE FROM qml.acl_data WHERE grantee = $1",
					 role, SPI_OK_DELETE) > 0)
		qml_cache_changed(qml_catalog()->acl);
}

/* Registrations stay, so that it can be seen what was there, but name nobody from now on. */
static void
forget_registrations(Oid role)
{
	const QmlCatalog *cat = qml_catalog();
	const struct
	{
		Oid table;
		const char *sql;
	} updates[] = {
		{cat->handler, "UPDATE qml.handler_data SET run_as = 0 WHERE run_as = $1"},
		{cat->handler, "UPDATE qml.handler_data SET registered_by = 0 WHERE registered_by = $1"},
		{cat->hook, "UPDATE qml.hook_data SET run_as = 0 WHERE run_as = $1"},
		{cat->middleware, "UPDATE qml.middleware_data SET run_as = 0 WHERE run_as = $1"},
	};

	(void) run_for_role("UPDATE qml.recurring_data SET created_by = 0 WHERE created_by = $1", role,
						SPI_OK_UPDATE);
	for (int i = 0; i < (int) lengthof(updates); i++)
	{
		if (run_for_role(updates[i].sql, role, SPI_OK_UPDATE) > 0)
			qml_cache_changed(updates[i].table);
	}
}

static bool
has_registrations(Oid role)
{
	return run_for_role("SELECT 1 WHERE "
						"EXISTS (SELECT FROM qml.handler_data h WHERE h.run_as = $1 "
						"OR h.registered_by = $1) OR "
						"EXISTS (SELECT FROM qml.hook_data h WHERE h.run_as = $1) OR "
						"EXISTS (SELECT FROM qml.middleware_data m WHERE m.run_as = $1) OR "
						"EXISTS (SELECT FROM qml.recurring_data r WHERE r.created_by = $1)",
						role, SPI_OK_SELECT) > 0;
}

/*
 * Takes the mark of registrations away if the role has none.  Somebody may just be
 * registering something: then the mark stays, and is taken away another time.
 */
static void
unmark_role(Oid role)
{
	if (!has_registrations(role) &&
		qml_catalog_try_lock(qml_catalog()->registration_mark, role, 0, ExclusiveLock) &&
		!has_registrations(role))
		qml_role_mark_set(QML_MARK_REGISTRATION, role, false);
}

/*
 * Before a registration that names the role is written: the role gets the mark, unless it
 * has it, and keeps it until the transaction ends.
 */
void
qml_grant_mark_role(Oid role)
{
	Oid table = qml_catalog()->registration_mark;
	QmlSpi spi;

	if (qml_role_mark_is_needless(role))
		return;
	qml_table_require_write();
	if (qml_role_mark_has(QML_MARK_REGISTRATION, role))
	{
		LockDatabaseObject(table, role, 0, ShareLock);
		if (qml_role_mark_has(QML_MARK_REGISTRATION, role))
			return;
		/* It was taken away.  Two that hold the lock must not wait for each other. */
		UnlockDatabaseObject(table, role, 0, ShareLock);
	}
	qml_grant_lock();
	LockDatabaseObject(table, role, 0, ShareLock);
	if (qml_role_mark_has(QML_MARK_REGISTRATION, role))
		return;
	qml_spi_begin(&spi, qml_catalog()->owner);
	forget_registrations(role);
	qml_role_mark_set(QML_MARK_REGISTRATION, role, true);
	qml_spi_end(&spi);
}

/*
 * After registrations that named the role have gone: takes the mark away with the last.  They
 * gave no privileges but the mark; for handlers, see qml_grant_adjust_role().
 */
void
qml_grant_unmark_role(Oid role)
{
	QmlSpi spi;
	bool last;

	if (qml_role_mark_is_needless(role) || !qml_role_mark_has(QML_MARK_REGISTRATION, role) ||
		!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(role)))
		return;
	/* Mostly it has more, and then nothing is locked. */
	qml_spi_begin(&spi, qml_catalog()->owner);
	last = !has_registrations(role);
	if (last)
	{
		qml_grant_lock();
		unmark_role(role);
	}
	qml_spi_end(&spi);
}

/*
 * All registrations of the role are about to be removed: waits for those who are
 * registering something, and keeps others from it, until the transaction ends.
 */
void
qml_grant_lock_role(Oid role)
{
	qml_grant_lock();
	LockDatabaseObject(qml_catalog()->registration_mark, role, 0, ExclusiveLock);
}

/* ----- granting and revoking ----- */

/* Grants a capability on a queue, which need not exist yet; NULL: on all queues. */
void
qml_grant_capability(Oid grantee, QmlCapability capability, const char *queue)
{
	Oid grantor = GetUserId();
	QmlSpi spi;
	bool is_new;

	qml_grant_lock();
	qml_spi_begin(&spi, qml_catalog()->owner);
	forget_capabilities(grantee);
	is_new = change_row("INSERT INTO qml.acl_data (grantee, capability, queue, grantor) "
						"VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
						grantee, capability, queue, grantor, SPI_OK_INSERT) > 0;
	if (grantee != qml_catalog()->owner)
		grant_usage(grantee);
	qml_role_mark_set(QML_MARK_CAPABILITY, grantee, true);
	grant_open_objects();
	qml_spi_end(&spi);
	if (is_new)
		record_grant("qml_grant", grantee, capability, queue, list_queue(queue), true);
}

/*
 * A role has lost capabilities or a handler, or got one: leaves it what belongs to the rest.
 * Returns whether there is any.
 */
static bool
adjust_privileges(Oid grantee)
{
	bool capable;
	bool entitled;

	/* The owner has its privileges by ownership; they are not for qml to revoke. */
	if (grantee == qml_catalog()->owner)
		return false;
	capable = holds_capability(grantee);
	entitled = capable || runs_handler(grantee);
	if (entitled)
		grant_usage(grantee);
	else
	{
		revoke_usage(grantee);
		revoke_open_objects(grantee);
	}
	qml_role_mark_set(QML_MARK_CAPABILITY, grantee, capable);
	unmark_role(grantee);
	return entitled;
}

/* A handler that runs as the role was made or removed, or all that the role had. */
void
qml_grant_adjust_role(Oid role)
{
	QmlSpi spi;

	/* The privileges of a role that was dropped went with it. */
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(role)))
		return;
	qml_grant_lock();
	qml_spi_begin(&spi, qml_catalog()->owner);
	if (adjust_privileges(role))
		grant_open_objects();
	qml_spi_end(&spi);
}

/* Revokes a capability on a queue; NULL: on all queues, also those granted one by one. */
void
qml_grant_revoke(Oid grantee, QmlCapability capability, const char *queue)
{
	MemoryContext context = CurrentMemoryContext;
	Datum queues = (Datum) 0;
	QmlSpi spi;

	qml_grant_lock();
	qml_spi_begin(&spi, qml_catalog()->owner);
	if (change_row("WITH gone AS (DELETE FROM qml.acl_data WHERE grantee = $1 AND capability = $2 "
				   "AND (queue = $3 OR $3 IS NULL) RETURNING queue) "
				   "SELECT jsonb_agg(g.queue ORDER BY g.queue) FROM gone g "
				   "WHERE $4::oid IS NOT NULL HAVING count(*) > 0",
				   grantee, capability, queue, qml_catalog()->owner, SPI_OK_SELECT) > 0)
	{
		MemoryContext spi_context;
		Datum rows = qml_spi_value(SPI_tuptable, 0, 1, JSONBOID, NULL);

		spi_context = MemoryContextSwitchTo(context);
		queues = PointerGetDatum(PG_DETOAST_DATUM_COPY(rows));
		MemoryContextSwitchTo(spi_context);
	}
	(void) adjust_privileges(grantee);
	qml_spi_end(&spi);
	if (queues != (Datum) 0)
		record_grant("qml_revoke", grantee, capability, queue, queues, false);
}

/* Revokes all capabilities on a queue that is dropped: a new one of its name has none. */
void
qml_grant_forget_queue(const char *queue)
{
	Oid type = TEXTOID;
	Datum value = CStringGetTextDatum(queue);
	SPITupleTable *grants;
	QmlSpi spi;
	uint64 rows;

	qml_grant_lock();
	qml_spi_begin(&spi, qml_catalog()->owner);
	rows = qml_spi_execute_latest("DELETE FROM qml.acl_data WHERE queue = $1 "
								  "RETURNING grantee",
								  1, &type, &value, NULL, SPI_OK_DELETE_RETURNING);
	grants = SPI_tuptable;
	if (rows > 0)
		qml_cache_changed(qml_catalog()->acl);
	for (uint64 i = 0; i < rows; i++)
	{
		Oid grantee = DatumGetObjectId(qml_spi_value(grants, i, 1, REGROLEOID, NULL));

		/* The privileges of a role that was dropped went with it. */
		if (SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(grantee)))
			(void) adjust_privileges(grantee);
	}
	qml_spi_end(&spi);
}
