/*
 * default_acl.c
 *		Revokes privileges that default privileges granted on qml's objects.
 *
 * ALTER DEFAULT PRIVILEGES of the owner is meant for the owner's other objects.  Nobody
 * may reach a table of qml except through its functions and views.  So the code that
 * creates objects calls this before it commits.  Only grants that are stored are
 * revoked.  An object without any can be open to PUBLIC, as functions and types are;
 * the REVOKEs of the install script are for that.
 *
 * Runs within qml_spi_begin(), as the owner.
 */
#include "postgres.h"

#include "catalog/pg_type.h"

#include "common/default_acl.h"
#include "common/spi.h"

/* Query for one REVOKE for each object of a set (class, oid) and each grantee except its owner. */
#define REVOKES_ON(set)                                                                         \
	"SELECT DISTINCT pg_catalog.format('REVOKE ALL ON %s %s FROM %s', o.kind, o.name, "         \
	"CASE a.grantee WHEN 0 THEN 'PUBLIC' "                                                      \
	"ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END) "                  \
	"FROM (SELECT tableoid, oid, CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, "      \
	"oid::pg_catalog.regclass::text, relowner, relacl FROM pg_catalog.pg_class "                \
	"UNION ALL SELECT tableoid, oid, 'ROUTINE', oid::pg_catalog.regprocedure::text, proowner, " \
	"proacl FROM pg_catalog.pg_proc "                                                           \
	"UNION ALL SELECT tableoid, oid, 'TYPE', oid::pg_catalog.regtype::text, typowner, typacl "  \
	"FROM pg_catalog.pg_type "                                                                  \
	"UNION ALL SELECT tableoid, oid, 'SCHEMA', pg_catalog.quote_ident(nspname), nspowner, "     \
	"nspacl FROM pg_catalog.pg_namespace) o (class, oid, kind, name, owner, acl), "             \
	"LATERAL pg_catalog.aclexplode(o.acl) a "                                                   \
	"WHERE a.grantee <> o.owner AND (o.class, o.oid) IN (" set ")"

/* Runs the statements that a query returns. */
static void
run_revokes(const char *sql, Oid argument)
{
	Oid type = OIDOID;
	Datum value = ObjectIdGetDatum(argument);
	List *revokes;
	ListCell *lc;

	(void) qml_spi_execute(sql, 1, &type, &value, NULL, SPI_OK_SELECT);
	revokes = qml_spi_strings(CurrentMemoryContext);
	foreach(lc, revokes)
		qml_spi_utility(lfirst(lc));
}

/* A table that has just been created. */
void
qml_default_acl_close_table(Oid table)
{
	run_revokes(REVOKES_ON("SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::oid, $1"), table);
}

/* All objects of an extension. */
void
qml_default_acl_close_extension(Oid extension)
{
	run_revokes(REVOKES_ON("SELECT classid, objid FROM pg_catalog.pg_depend "
						   "WHERE refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass "
						   "AND refobjid = $1 AND deptype = 'e'"),
				extension);
}
