/*
 * pgcron.c
 *		Maintenance by pg_cron, for servers that do not preload qml.
 *
 * The jobs belong to pg_cron and to the current user.  They run every minute in this
 * database, which must be the one that has the extension pg_cron.  A job of pg_cron is
 * identified by its name and user, so scheduling again changes nothing.
 *
 * Whether pg_cron does the work here is looked up for a warning, inside what a caller asked for.
 * So the look never raises an error and never waits.  It is made as the owner of qml, who may
 * not be allowed to read the table of pg_cron, or sees the rows of its own role alone; then, and
 * if the table is not as it is known, pg_cron may do the work.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"

#include "common/spi.h"
#include "common/subxact.h"
#include "compat.h"
#include "model/audit.h"
#include "model/catalog.h"
#include "schedule/pgcron.h"

/*
 * The maxima are for one run, once a minute.  What could fail by itself is a job by itself:
 * all of a job is one transaction.
 */
static const struct
{
	const char *name;
	const char *command; /* with the schema of the functions */
} jobs[QML_PGCRON_JOBS] = {
	{"qml jobs", "SELECT %1$s.qml_promote_due(100000)"},
	{"qml lost jobs", "SELECT %1$s.qml_reclaim(100000)"},
	{"qml recurring", "SELECT %1$s.qml_poll_recurring(100000)"},
	{"qml cleanup", "SELECT %1$s.qml_cleanup()"},
};

/* The extension must be here, before its functions are called. */
static void
require_extension(void)
{
	if (!OidIsValid(get_extension_oid("pg_cron", true)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"pg_cron\" does not exist in this database"),
				 errhint("pg_cron is installed in the database that cron.database_name names. From there, "
						 "cron.schedule_in_database() can call qml_maintain() here.")));
}

/* Records that the maintenance was scheduled in pg_cron, or removed. */
static void
record_jobs(const char *action, Datum before, Datum after)
{
	QmlAuditAct act = {.action = action,
					   .kind = QML_AUDIT_DATABASE,
					   .before = before,
					   .after = after};

	qml_audit_write(&act);
}

/*
 * Schedules the jobs in pg_cron; returns how many, and their ids (bigint) in ids, which has
 * room for QML_PGCRON_JOBS.
 */
int
qml_pgcron_schedule(Datum *ids)
{
	const char *schema = quote_identifier(get_namespace_name(qml_catalog()->function_schema));
	Oid types[] = {TEXTOID, TEXTOID};
	QmlSpi spi;
	int made = 0;

	require_extension();
	/* As the caller, who owns the jobs then: they may do what the caller may do. */
	qml_spi_begin(&spi, GetUserId());
	for (int i = 0; i < QML_PGCRON_JOBS; i++)
	{
		Datum values[] = {CStringGetTextDatum(jobs[i].name),
						  CStringGetTextDatum(psprintf(jobs[i].command, schema))};

		if (qml_spi_execute_latest("SELECT FROM cron.job j WHERE j.jobname = $1 AND j.command = $2 "
								   "AND j.schedule = '* * * * *' AND j.active "
								   "AND j.username = CURRENT_USER "
								   "AND j.database = pg_catalog.current_database()",
								   2, types, values, NULL, SPI_OK_SELECT) == 0)
			made++;
		(void) qml_spi_execute("SELECT cron.schedule($1, '* * * * *', $2)", 2, types, values, NULL,
							   SPI_OK_SELECT);
		ids[i] = qml_spi_value(SPI_tuptable, 0, 1, INT8OID, NULL);
	}
	qml_spi_end(&spi);
	if (made > 0)
		record_jobs("qml_pg_cron_schedule", (Datum) 0, qml_audit_count("pg_cron_jobs", made));
	return QML_PGCRON_JOBS;
}

/* Removes the jobs from pg_cron; returns how many there were. */
int
qml_pgcron_unschedule(void)
{
	Oid type = TEXTOID;
	QmlSpi spi;
	int count = 0;

	require_extension();
	qml_spi_begin(&spi, GetUserId());
	for (int i = 0; i < QML_PGCRON_JOBS; i++)
	{
		Datum name = CStringGetTextDatum(jobs[i].name);

		count += (int) qml_spi_execute_latest("SELECT cron.unschedule(j.jobid) FROM cron.job j "
											  "WHERE j.jobname = $1 AND j.username = CURRENT_USER "
											  "AND j.database = pg_catalog.current_database()",
											  1, &type, &name, NULL, SPI_OK_SELECT);
	}
	qml_spi_end(&spi);
	if (count > 0)
		record_jobs("qml_pg_cron_unschedule", qml_audit_count("pg_cron_jobs", count), (Datum) 0);
	return count;
}

/* Whether a job of this name is one of qml_pgcron_schedule(). */
bool
qml_pgcron_is_own(const char *jobname)
{
	for (int i = 0; i < QML_PGCRON_JOBS; i++)
	{
		if (strcmp(jobs[i].name, jobname) == 0)
			return true;
	}
	return false;
}

/* What is known of pg_cron's table of jobs, and of the work that it may do here. */
typedef struct Look
{
	bool recurring; /* fires schedules, rather than promotes jobs */
	bool found;
} Look;

/* Whether the table has a column of the type. */
static bool
has_column(Oid table, const char *name, Oid type)
{
	AttrNumber column = get_attnum(table, name);

	return column != InvalidAttrNumber && get_atttype(table, column) == type;
}

/* Whether it is the table of jobs as it is known.  The type of jobname depends on the version. */
static bool
is_known(Oid table)
{
	return get_rel_relkind(table) == RELKIND_RELATION && has_column(table, "active", BOOLOID) &&
		   has_column(table, "database", TEXTOID) && has_column(table, "command", TEXTOID) &&
		   has_column(table, "jobid", INT8OID) && has_column(table, "schedule", TEXTOID) &&
		   has_column(table, "nodename", TEXTOID) && has_column(table, "nodeport", INT4OID) &&
		   has_column(table, "username", TEXTOID) &&
		   (has_column(table, "jobname", NAMEOID) || has_column(table, "jobname", TEXTOID));
}

/* pg_cron's table of jobs; InvalidOid if there is none as it is known. */
static Oid
find_table(void)
{
	Oid schema = get_namespace_oid("cron", true);
	Oid table = OidIsValid(schema) ? get_relname_relid("job", schema) : InvalidOid;

	return OidIsValid(table) && is_known(table) ? table : InvalidOid;
}

/* Raises an error unless pg_cron is here, and its table of jobs is as it is known. */
Oid
qml_pgcron_require_table(void)
{
	Oid table;

	require_extension();
	table = find_table();
	if (!OidIsValid(table))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the jobs of this version of pg_cron cannot be read"),
				 errdetail("pg_cron 1.4 is the oldest version that qml knows.")));
	return table;
}

/* Whether the owner of qml can read all of the jobs of pg_cron, in a table as it is known. */
static bool
is_readable(Oid table)
{
	Oid owner = qml_catalog()->owner;

	return is_known(table) && qml_schema_is_usable(get_rel_namespace(table), owner) &&
		   pg_class_aclcheck(table, owner, ACL_SELECT) == ACLCHECK_OK &&
		   check_enable_rls(table, owner, true) != RLS_ENABLED;
}

/* For qml_subxact_try(): arg is a Look. */
static void
look_for_job(void *arg)
{
	Look *look = arg;
	Oid type = TEXTOID;
	Datum pattern = CStringGetTextDatum(look->recurring ? "qml_(poll_recurring|maintain)" :
														  "qml_(promote_due|maintain)");
	QmlSpi spi;

	qml_spi_begin(&spi, qml_catalog()->owner);
	look->found = qml_spi_execute_latest("SELECT FROM cron.job j WHERE j.active "
										 "AND j.database = pg_catalog.current_database() "
										 "AND j.command OPERATOR(pg_catalog.~) $1 LIMIT 1",
										 1, &type, &pattern, NULL, SPI_OK_SELECT) > 0;
	qml_spi_end(&spi);
}

/* Whether pg_cron calls a function here that does this work; `unknown` if that cannot be known. */
static bool
is_scheduled(bool recurring, bool unknown)
{
	Oid schema = get_namespace_oid("cron", true);
	Oid table = OidIsValid(schema) ? get_relname_relid("job", schema) : InvalidOid;
	Look look = {.recurring = recurring};
	QmlFailure failure;
	bool known;

	if (!OidIsValid(table) || !ConditionalLockRelationOid(table, AccessShareLock))
		return unknown;
	/* What is wrong otherwise, such as a broken file, is no business of the caller. */
	known = is_readable(table) &&
			qml_subxact_try(look_for_job, &look, qml_subxact_ends_call, &failure);
	UnlockRelationOid(table, AccessShareLock);
	return known ? look.found : unknown;
}

/* Whether pg_cron is in this database, and is known to do this work now. */
bool
qml_pgcron_serves(bool recurring)
{
	return GetConfigOption("cron.database_name", true, false) != NULL &&
		   OidIsValid(get_extension_oid("pg_cron", true)) && is_scheduled(recurring, false);
}

/*
 * Whether pg_cron promotes jobs here, or fires schedules, as far as can be known: from the
 * database that pg_cron is in, others are served too.  Looked up once in a session.
 */
bool
qml_pgcron_may_serve(bool recurring)
{
	static bool looked[2];
	static bool serves[2];

	if (!looked[recurring])
	{
		if (GetConfigOption("cron.database_name", true, false) == NULL)
			serves[recurring] = false;
		else if (!OidIsValid(get_extension_oid("pg_cron", true)))
			serves[recurring] = true;
		else
			serves[recurring] = is_scheduled(recurring, true);
		looked[recurring] = true;
	}
	return serves[recurring];
}
