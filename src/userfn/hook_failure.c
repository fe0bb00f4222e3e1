/*
 * hook_failure.c
 *		Counts the errors of state hooks, and disables those that keep failing.
 *
 * Errors are counted in the table of hooks, in the transaction of the transitions that
 * the hook was called for: if it is rolled back, they are not counted.  Nobody waits for
 * a count.  A row that another transaction holds is skipped, and the errors of this
 * operation are lost; the next ones count.
 *
 * A hook that ignored a cancel and took its process with it could not be counted there.
 * It is remembered in shared memory (userfn/hook_limit.c), and the next process of the
 * database disables it before it calls any hook.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"

#include "common/cache.h"
#include "common/log.h"
#include "common/spi.h"
#include "ipc/stuck_hooks.h"
#include "ipc/wakeup.h"
#include "model/catalog.h"
#include "model/redact.h"
#include "userfn/hook_failure.h"
#include "userfn/hook_limit.h"

/*
 * What the hook said may quote a job.  Whoever made the transition reads it only with the
 * right to all jobs; the server's log has it unless something is hidden in the job.
 */
static int
failure_detail(const QmlHookResult *result)
{
	const QmlFailure *failure = &result->failure;
	const char *sqlstate = unpack_sql_state(failure->sqlerrcode);

	if (qml_redact_allow_contents())
		errdetail("%s (SQLSTATE %s)", failure->message, sqlstate);
	return errdetail_log("%s (SQLSTATE %s)", result->hidden ? QML_REDACTED : failure->message,
						 sqlstate);
}

/* Failures that do not disable the hook are logged once a minute only. */
static void
log_failure(const QmlHookResult *result, bool disabled)
{
	if (disabled)
		ereport(WARNING,
				(errcode(result->failure.sqlerrcode),
				 errmsg("hook \"%s\" failed %d times in a row and is disabled",
						result->hook->name, QML_HOOK_MAX_ERRORS),
				 failure_detail(result),
				 errhint("Fix the function, then enable the hook again with qml_register_hook().")));
	else if (result->failed && qml_log_is_due(QML_LOG_HOOKS))
		ereport(WARNING,
				(errcode(result->failure.sqlerrcode),
				 errmsg("hook \"%s\" failed and is skipped", result->hook->name),
				 failure_detail(result)));
}

/*
 * Writes the result into the table and disables the hook if it has failed too often.
 * False if nothing was written: the row is locked, or the hook is disabled already.
 */
bool
qml_hook_failure_record(const QmlHookResult *result)
{
	Oid types[] = {TEXTOID, INT4OID, TEXTOID, BOOLOID, INT4OID};
	Datum values[lengthof(types)];
	bool nulls[lengthof(types)] = {false};
	QmlSpi spi;
	bool written;
	bool disabled = false;

	Assert(IsTransactionState());
	/* After a success, the errors since then are all; otherwise they are added. */
	values[0] = CStringGetTextDatum(result->hook->name);
	values[1] = Int32GetDatum(result->succeeded ? result->errors :
												  result->errors - result->hook->errors);
	nulls[2] = !result->failed;
	if (result->failed)
		values[2] = CStringGetTextDatum(result->failure.message);
	values[3] = BoolGetDatum(result->succeeded);
	values[4] = Int32GetDatum(QML_HOOK_MAX_ERRORS);
	qml_spi_begin(&spi, qml_catalog()->owner);
	written = qml_spi_execute(
				  "UPDATE qml.hook_data AS h "
				  "SET errors = LEAST($2 + CASE WHEN $4 THEN 0 ELSE h.errors::bigint END, $5), "
				  "broken = $2 + CASE WHEN $4 THEN 0 ELSE h.errors::bigint END >= $5, "
				  "last_error = coalesce($3, h.last_error), "
				  "last_error_at = CASE WHEN $3 IS NULL THEN h.last_error_at "
				  "ELSE pg_catalog.clock_timestamp() END "
				  "WHERE NOT h.broken AND h.name = "
				  "(SELECT s.name FROM qml.hook_data s WHERE s.name = $1 FOR UPDATE SKIP LOCKED) "
				  "RETURNING h.broken",
				  lengthof(types), types, values, nulls, SPI_OK_UPDATE_RETURNING) > 0;
	if (written)
		disabled = DatumGetBool(qml_spi_value(SPI_tuptable, 0, 1, BOOLOID, NULL));
	qml_spi_end(&spi);
	if (written)
	{
		qml_cache_changed(qml_callback_table(QML_HOOK));
		log_failure(result, disabled);
	}
	return written;
}

/*
 * The job of an after-commit hook has failed for good: counts it, and keeps what it says.  A
 * row that another transaction holds is skipped, as above; the job itself says the same.
 */
void
qml_hook_failure_record_job(Datum name, Oid role, Datum error)
{
	Oid types[] = {TEXTOID, REGROLEOID, TEXTOID};
	Datum values[] = {name, ObjectIdGetDatum(role), error};
	bool nulls[] = {false, false, error == (Datum) 0};
	QmlSpi spi;
	bool written;

	qml_spi_begin(&spi, qml_catalog()->owner);
	written =
		qml_spi_execute_latest("UPDATE qml.hook_data AS h SET errors = h.errors + 1, "
							   "last_error = $3, last_error_at = pg_catalog.clock_timestamp() "
							   "WHERE h.errors < 2147483647 AND h.name = "
							   "(SELECT s.name FROM qml.hook_data s WHERE s.name = $1 "
							   "AND s.run_as = $2 FOR UPDATE SKIP LOCKED)",
							   lengthof(types), types, values, nulls, SPI_OK_UPDATE) > 0;
	qml_spi_end(&spi);
	if (written)
		qml_cache_changed(qml_callback_table(QML_HOOK));
}

/* Disables the hooks of this database that ignored a cancel and ended their process. */
void
qml_hook_failure_disable_stuck(void)
{
	uint32 stuck[QML_MAX_STUCK];
	bool left[QML_MAX_STUCK] = {false}; /* to be tried again */
	int count = qml_stuck_hooks_list(stuck);
	ListCell *lc;

	if (count == 0)
		return;
	foreach(lc, qml_callback_all(QML_HOOK))
	{
		QmlHookResult result = {.hook = lfirst(lc),
								.failed = true,
								.succeeded = true, /* whatever was counted before */
								.errors = QML_HOOK_MAX_ERRORS,
								.failure = {.sqlerrcode = ERRCODE_QUERY_CANCELED,
											.message = "it did not stop when it was canceled"}};

		for (int i = 0; i < count; i++)
		{
			if (qml_hook_limit_hash(result.hook) == stuck[i] && !result.hook->broken &&
				!result.hook->options.after_commit)
				left[i] = !qml_hook_failure_record(&result) || left[i];
		}
	}
	for (int i = 0; i < count; i++)
	{
		if (left[i])
			qml_wakeup_at(QML_WAKE_HOOK, GetCurrentTimestamp() + USECS_PER_SEC);
		else
			qml_stuck_hooks_remove(stuck[i]);
	}
}
