/*
 * pgcron.c
 *		Maintenance by pg_cron, for servers that do not preload qml.
 *
 * The jobs are pg_cron's, of the current user and in this database, which must be
 * the one that has the extension pg_cron; they run every minute.  pg_cron keeps
 * names apart by user, so that scheduling again changes nothing.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "common/spi.h"
#include "model/catalog.h"
#include "schedule/pgcron.h"

/* What one run does at most, perhaps once a minute. */
static const struct
{
	const char *name;
	const char *command; /* with the schema of the functions */
} jobs[QML_PGCRON_JOBS] = {
	{"qml jobs", "SELECT %1$s.qml_promote_due(100000), %1$s.qml_reclaim(100000)"},
	{"qml recurring", "SELECT %1$s.qml_poll_recurring(100000)"},
	{"qml cleanup", "SELECT %1$s.qml_cleanup()"},
};

static void
require_pg_cron(void)
{
	if (!OidIsValid(get_extension_oid("pg_cron", true)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"pg_cron\" does not exist in this database"),
				 errhint("pg_cron lives in the database that cron.database_name names. From there, "
						 "cron.schedule_in_database() can call qml_maintain() here.")));
}

/* Puts maintenance on pg_cron's list; fills ids, bigint, and returns how many. */
int
qml_pgcron_schedule(Datum *ids)
{
	const char *schema = quote_identifier(get_namespace_name(qml_catalog()->function_schema));
	Oid types[] = {TEXTOID, TEXTOID};
	QmlSpi spi;

	require_pg_cron();
	/* As the caller: the jobs shall be his, and do what he may do. */
	qml_spi_begin(&spi, GetUserId());
	for (int i = 0; i < QML_PGCRON_JOBS; i++)
	{
		Datum values[] = {CStringGetTextDatum(jobs[i].name),
						  CStringGetTextDatum(psprintf(jobs[i].command, schema))};
		bool isnull;

		(void) qml_spi_execute("SELECT cron.schedule($1, '* * * * *', $2)", 2, types, values, NULL,
							   SPI_OK_SELECT);
		ids[i] = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	}
	qml_spi_end(&spi);
	return QML_PGCRON_JOBS;
}

/* Takes it off again; returns how many jobs there were. */
int
qml_pgcron_unschedule(void)
{
	Oid type = TEXTOID;
	QmlSpi spi;
	int count = 0;

	require_pg_cron();
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
	return count;
}
