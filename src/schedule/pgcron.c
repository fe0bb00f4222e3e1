/*
 * pgcron.c
 *		Maintenance by pg_cron, for servers that do not preload qml.
 *
 * The jobs belong to pg_cron and to the current user.  They run every minute in this
 * database, which must be the one that has the extension pg_cron.  A job of pg_cron is
 * identified by its name and user, so scheduling again changes nothing.
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

/* The maxima are for one run, once a minute. */
static const struct
{
	const char *name;
	const char *command; /* with the schema of the functions */
} jobs[QML_PGCRON_JOBS] = {
	{"qml jobs", "SELECT %1$s.qml_promote_due(100000), %1$s.qml_reclaim(100000)"},
	{"qml recurring", "SELECT %1$s.qml_poll_recurring(100000)"},
	{"qml cleanup", "SELECT %1$s.qml_cleanup()"},
};

/* The extension, before its functions are called. */
static void
check_pg_cron(void)
{
	if (!OidIsValid(get_extension_oid("pg_cron", true)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"pg_cron\" does not exist in this database"),
				 errhint("pg_cron is installed in the database that cron.database_name names. From there, "
						 "cron.schedule_in_database() can call qml_maintain() here.")));
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

	check_pg_cron();
	/* As the caller, who owns the jobs then: they may do what the caller may do. */
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

/* Removes the jobs from pg_cron; returns how many there were. */
int
qml_pgcron_unschedule(void)
{
	Oid type = TEXTOID;
	QmlSpi spi;
	int count = 0;

	check_pg_cron();
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
