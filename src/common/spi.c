/*
 * spi.c
 *		SQL that qml runs for itself, off the hot paths.
 *
 * It runs as the owner of qml's tables, with search_path pinned before the user
 * is switched, in a security-restricted context.  Statements name every object
 * by schema and take values only as parameters.  After an error the abort of the
 * (sub)transaction restores user and settings.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

#include "common/guc.h"
#include "common/spi.h"
#include "common/table.h"

/* Settings of the caller that would change what the statements mean or make. */
static const struct
{
	const char *name;
	const char *value;
} pinned[] = {
	{"search_path", "pg_catalog, pg_temp"},
	{"default_tablespace", ""},
	{"default_table_access_method", "heap"},
};

/* And what else could change the meaning of the script that creates the extension. */
static const struct
{
	const char *name;
	const char *value;
} pinned_in_script[] = {
	{"DateStyle", "ISO"},	  {"IntervalStyle", "postgres"}, {"TimeZone", "UTC"},
	{"array_nulls", "on"},	  {"row_security", "on"},		 {"transform_null_equals", "off"},
	{"xmloption", "content"},
};

/* Pins the settings, in a nest level of settings that the caller has begun. */
static void
pin(void)
{
	for (int i = 0; i < (int) lengthof(pinned); i++)
		qml_guc_set(pinned[i].name, pinned[i].value);
}

/* The same for the script that creates the extension. */
void
qml_spi_pin_for_script(void)
{
	pin();
	for (int i = 0; i < (int) lengthof(pinned_in_script); i++)
		qml_guc_set(pinned_in_script[i].name, pinned_in_script[i].value);
}

/* Until qml_spi_end(): the current user is the owner of qml's tables. */
void
qml_spi_begin(QmlSpi *spi, Oid owner)
{
	Assert(OidIsValid(owner));
	spi->guc_level = NewGUCNestLevel();
	pin();
	GetUserIdAndSecContext(&spi->user, &spi->security_context);
	SetUserIdAndSecContext(owner, spi->security_context | SECURITY_LOCAL_USERID_CHANGE |
									  SECURITY_RESTRICTED_OPERATION);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
}

/* As SPI wants it; isnull may be NULL: no value is null then. */
static char *
null_flags(int nargs, const bool *isnull)
{
	char *nulls = palloc(nargs + 1);

	for (int i = 0; i < nargs; i++)
		nulls[i] = isnull && isnull[i] ? 'n' : ' ';
	nulls[nargs] = '\0';
	return nulls;
}

/* Returns SPI_processed, or raises an error. */
static uint64
check_result(const char *sql, int result, int expected)
{
	if (result == SPI_OK_REWRITTEN)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a rule on a table of extension \"qml\" replaces what qml does"),
				 errdetail("The statement was: %s", sql),
				 errhint("Drop the rule.")));
	if (result != expected)
		elog(ERROR, "unexpected result %s of \"%s\"", SPI_result_code_string(result), sql);
	return SPI_processed;
}

/* Runs one statement; returns SPI_processed, the rows are in SPI_tuptable. */
uint64
qml_spi_execute(const char *sql, int nargs, const Oid *types, const Datum *values,
				const bool *isnull, int expected)
{
	int result = SPI_execute_with_args(sql, nargs, unconstify(Oid *, types),
									   unconstify(Datum *, values), null_flags(nargs, isnull),
									   false, 0);

	return check_result(sql, result, expected);
}

/* The same for a statement that is no query, without arguments. */
void
qml_spi_utility(const char *sql)
{
	(void) qml_spi_execute(sql, 0, NULL, NULL, NULL, SPI_OK_UTILITY);
}

/*
 * qml_spi_execute() for a statement about what there is now, as the caches and the
 * privileges on functions know it, in any isolation level.  In a transaction that keeps its
 * snapshot, changing a row that the snapshot does not see is error 40001; without
 * this the row would be passed over, and the call end as if there were none.
 * Foreign keys are enforced the same way.
 */
uint64
qml_spi_execute_latest(const char *sql, int nargs, const Oid *types, const Datum *values,
					   const bool *isnull, int expected)
{
	Snapshot latest;
	SPIPlanPtr plan;
	int result;

	if (!IsolationUsesXactSnapshot())
		return qml_spi_execute(sql, nargs, types, values, isnull, expected);

	plan = SPI_prepare(sql, nargs, unconstify(Oid *, types));
	if (plan == NULL)
		elog(ERROR, "unexpected result %s of \"%s\"", SPI_result_code_string(SPI_result), sql);
	latest = qml_table_latest_snapshot();
	result = SPI_execute_snapshot(plan, unconstify(Datum *, values), null_flags(nargs, isnull),
								  latest, GetTransactionSnapshot(), false, true, 0);
	UnregisterSnapshot(latest);
	return check_result(sql, result, expected);
}

/*
 * A value out of a row of a query, which must be of this type.  isnull is NULL where it
 * cannot be null.  The tables have been checked when they were looked up, but only the query
 * locks them: they may have been altered in between.
 */
Datum
qml_spi_value(const SPITupleTable *table, uint64 row, int column, Oid type, bool *isnull)
{
	bool null;
	Datum value;

	Assert(row < table->numvals && column <= table->tupdesc->natts);
	if (SPI_gettypeid(table->tupdesc, column) != type)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a statement of qml returned a value of type %s instead of %s",
						format_type_be(SPI_gettypeid(table->tupdesc, column)),
						format_type_be(type)),
				 errhint("A table of extension \"qml\" may have been altered.")));
	value = SPI_getbinval(table->vals[row], table->tupdesc, column, &null);
	if (isnull)
		*isnull = null;
	else if (null)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a statement of qml returned a null value"),
				 errhint("A table of extension \"qml\" may have been altered.")));
	return value;
}

/* What `read` makes of each row of the last query; it is called in the memory context of the list. */
List *
qml_spi_rows(MemoryContext context, void *(*read)(uint64 row))
{
	MemoryContext spi_context = MemoryContextSwitchTo(context);
	List *rows = NIL;

	for (uint64 i = 0; i < SPI_processed; i++)
		rows = lappend(rows, read(i));
	MemoryContextSwitchTo(spi_context);
	return rows;
}

static void *
read_string(uint64 row)
{
	return TextDatumGetCString(qml_spi_value(SPI_tuptable, row, 1, TEXTOID, NULL));
}

/* The first column of all rows of the last query, texts, as C strings. */
List *
qml_spi_strings(MemoryContext context)
{
	return qml_spi_rows(context, read_string);
}

/* Restores the user and the settings. */
void
qml_spi_end(QmlSpi *spi)
{
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "SPI_finish failed");
	SetUserIdAndSecContext(spi->user, spi->security_context);
	AtEOXact_GUC(false, spi->guc_level);
}
