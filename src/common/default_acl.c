/*
 * default_acl.c
 *		Takes back what default privileges gave away.
 *
 * ALTER DEFAULT PRIVILEGES of the owner is meant for his own objects: past the
 * functions and views, nobody may reach a table of qml.  So whatever makes objects
 * closes them before it commits.  Only grants that are stored are looked for; that
 * an object without any is open to PUBLIC, as functions and types are, is what the
 * REVOKEs of the install script are for.
 *
 * Runs within qml_spi_begin(), as the owner.
 */
#include "postgres.h"

#include "catalog/pg_type.h"

#include "common/default_acl.h"
#include "common/spi.h"

/* A REVOKE for each object of a set, by class and oid, and grantee but the owner. */
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
		(void) qml_spi_execute(lfirst(lc), 0, NULL, NULL, NULL, SPI_OK_UTILITY);
}

void
qml_default_acl_close_table(Oid table)
{
	run_revokes(REVOKES_ON("SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::oid, $1"), table);
}

void
qml_default_acl_close_extension(Oid extension)
{
	run_revokes(REVOKES_ON("SELECT classid, objid FROM pg_catalog.pg_depend "
						   "WHERE refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass "
						   "AND refobjid = $1 AND deptype = 'e'"),
				extension);
}
