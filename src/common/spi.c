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
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

#include "common/spi.h"
#include "common/table.h"

/* Settings of the caller that would change what the statements mean. */
static const struct
{
	const char *name;
	const char *value;
} pinned[] = {
	{"search_path", "pg_catalog, pg_temp"},
	{"default_tablespace", ""},
	{"default_table_access_method", "heap"},
};

/* Pins the settings, in a nest level of settings that the caller has begun. */
void
qml_spi_pin(void)
{
	for (int i = 0; i < (int) lengthof(pinned); i++)
		(void) set_config_option(pinned[i].name, pinned[i].value, PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
}

/* Until qml_spi_end(): the current user is the owner of qml's tables. */
void
qml_spi_begin(QmlSpi *spi, Oid owner)
{
	Assert(OidIsValid(owner));
	spi->guc_level = NewGUCNestLevel();
	qml_spi_pin();
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

/*
 * The same for a statement about what there is now, as the caches and the
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

/* The first column of all rows of the last query, none of them null, as C strings. */
List *
qml_spi_strings(MemoryContext context)
{
	List *strings = NIL;

	for (uint64 i = 0; i < SPI_processed; i++)
	{
		char *string = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);
		MemoryContext spi_context = MemoryContextSwitchTo(context);

		strings = lappend(strings, pstrdup(string));
		MemoryContextSwitchTo(spi_context);
	}
	return strings;
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
