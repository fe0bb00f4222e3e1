/*
 * role_mark.c
 *		Marks of the roles that qml's tables name.
 *
 * A row of a table cannot depend on a role: DROP ROLE would leave capabilities and
 * handlers of nobody, and DROP OWNED would leave them as they are.  So qml grants each
 * role that its rows name the privilege REFERENCES on an empty table, the mark: one for
 * capabilities, one for what roles have registered (handlers, hooks, middleware,
 * schedules).  The server then
 *
 *	 - refuses DROP ROLE, and names the table, whose name says what helps;
 *	 - takes the mark away with DROP OWNED BY: rows of a role without its mark count as
 *	   revoked, and do not count again when the role gets its mark back (model/grant.c);
 *	 - dumps the mark with the extension's other privileges.
 *
 * The owner of the tables and the bootstrap superuser need no mark: they cannot lose their
 * objects.
 *
 * Each backend caches who is marked, until the privileges on the tables change.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "lib/qunique.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "common/cache.h"
#include "common/spi.h"
#include "model/catalog.h"
#include "model/role_mark.h"

/* Who has a mark. */
typedef struct MarkedRoles
{
	Oid table;
	bool valid;
	Oid *roles; /* in order */
	int count;
} MarkedRoles;

static MarkedRoles marked[QML_ROLE_MARKS];
static uint64 changes = 1;

static const char *const tables[QML_ROLE_MARKS] = {
	[QML_MARK_CAPABILITY] = QML_CAPABILITY_MARK,
	[QML_MARK_REGISTRATION] = QML_REGISTRATION_MARK,
};

/* A relation changed; InvalidOid stands for all of them. */
static void
forget_marks(Oid relid)
{
	for (int i = 0; i < QML_ROLE_MARKS; i++)
	{
		if (relid == InvalidOid || relid == marked[i].table)
		{
			marked[i].valid = false;
			changes++;
		}
	}
}

/* Called when the library is loaded. */
void
qml_role_mark_init(void)
{
	qml_cache_listen(forget_marks);
}

static int
compare_oids(const void *a, const void *b)
{
	Oid left = *(const Oid *) a;
	Oid right = *(const Oid *) b;

	return left < right ? -1 : left > right;
}

/* Reads who has the privilege on the table of a mark, whoever granted it. */
static void
load_marks(QmlRoleMark mark, Oid table)
{
	MarkedRoles *into = &marked[mark];
	HeapTuple tuple;
	Datum value;
	bool isnull;
	Oid *roles = NULL;
	int count = 0;

	/* What changes while it is read makes it be read again. */
	into->table = table;
	into->valid = true;
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(table));
	if (!HeapTupleIsValid(tuple))
	{
		into->valid = false;
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"qml\" was dropped or changed by another session"),
				 errhint("Try again.")));
	}
	value = SysCacheGetAttr(RELOID, tuple, Anum_pg_class_relacl, &isnull);
	if (!isnull)
	{
		Acl *acl = DatumGetAclP(value);

		roles = MemoryContextAlloc(TopMemoryContext, sizeof(Oid) * Max(ACL_NUM(acl), 1));
		for (int i = 0; i < ACL_NUM(acl); i++)
		{
			if (ACLITEM_GET_PRIVS(ACL_DAT(acl)[i]) & ACL_REFERENCES)
				roles[count++] = ACL_DAT(acl)[i].ai_grantee;
		}
	}
	ReleaseSysCache(tuple);
	if (into->roles)
		pfree(into->roles);
	if (count > 1)
	{
		qsort(roles, count, sizeof(Oid), compare_oids);
		count = qunique(roles, count, sizeof(Oid), compare_oids);
	}
	into->roles = roles;
	into->count = count;
}

/* Whether rows count without a mark of the role. */
bool
qml_role_mark_is_needless(Oid role)
{
	return role == BOOTSTRAP_SUPERUSERID || role == qml_catalog()->owner;
}

/* Whether what qml's tables say of the role counts. */
bool
qml_role_mark_has(QmlRoleMark mark, Oid role)
{
	const QmlCatalog *cat = qml_catalog();
	Oid table = mark == QML_MARK_CAPABILITY ? cat->capability_mark : cat->registration_mark;

	if (qml_role_mark_is_needless(role))
		return true;
	if (!marked[mark].valid || marked[mark].table != table)
		load_marks(mark, table);
	return marked[mark].count > 0 && bsearch(&role, marked[mark].roles, marked[mark].count,
											 sizeof(Oid), compare_oids) != NULL;
}

/* Grows whenever a mark may have changed, for what remembers answers. */
uint64
qml_role_mark_changes(void)
{
	return changes;
}

/*
 * Whether the mark is as qml grants it: by the owner, nothing else, without the grant option.
 * What somebody granted by hand, GRANT ALL say, is not for qml to revoke.
 */
static bool
is_own_mark(Oid table, Oid role)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(table));
	bool own = false;
	bool isnull;
	Datum value;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", table);
	value = SysCacheGetAttr(RELOID, tuple, Anum_pg_class_relacl, &isnull);
	if (!isnull)
	{
		Oid owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
		Acl *acl = DatumGetAclP(value);

		for (int i = 0; i < ACL_NUM(acl) && !own; i++)
		{
			const AclItem *item = &ACL_DAT(acl)[i];

			own = item->ai_grantee == role &&
				  (item->ai_grantor == owner || item->ai_grantor == qml_catalog()->owner) &&
				  ACLITEM_GET_RIGHTS(*item) == ACL_REFERENCES;
		}
	}
	ReleaseSysCache(tuple);
	return own;
}

/*
 * Marks a role, or takes its mark away.  The caller runs SQL as the owner of the tables
 * (common/spi.c), and nobody else grants privileges of qml meanwhile.
 */
void
qml_role_mark_set(QmlRoleMark mark, Oid role, bool wanted)
{
	const char *name;

	if (qml_role_mark_is_needless(role) || qml_role_mark_has(mark, role) == wanted)
		return;
	if (!wanted && !is_own_mark(marked[mark].table, role))
		return;
	name = quote_identifier(GetUserNameFromId(role, false));
	qml_spi_utility(psprintf(wanted ? "GRANT REFERENCES ON TABLE %s.%s TO %s" :
									  "REVOKE REFERENCES ON TABLE %s.%s FROM %s",
							 QML_SCHEMA, tables[mark], name));
}

/*
 * Why what the tables say of a role does not count; NULL: it does.  whose says which role it
 * is, such as "its owner".
 */
char *
qml_role_mark_problem(QmlRoleMark mark, Oid role, const char *whose)
{
	char *name = GetUserNameFromId(role, true);

	if (!OidIsValid(role))
		return psprintf("%s was dropped, or has lost it by DROP OWNED", whose);
	if (name == NULL)
		return psprintf("%s was dropped", whose);
	if (qml_role_mark_has(mark, role))
		return NULL;
	return psprintf("%s, \"%s\", has lost it by DROP OWNED", whose, name);
}
