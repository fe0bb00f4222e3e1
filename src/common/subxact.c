/*
 * subxact.c
 *		Work in a subtransaction, which may meet data that cannot be processed.
 *
 * A broken row must neither stop the rows behind it nor fill the log.  The work is done
 * in a subtransaction.  An error that may lie in the data rolls it back and is returned
 * to the caller, which skips the row.  All other errors are raised again: cancellation
 * and shutdown, lack of resources, and errors that the next try may not meet.
 *
 * Where a call has several parts that have nothing to do with each other, a part may meet
 * any error: only what concerns the whole call is raised again (qml_subxact_ends_call).
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "common/subxact.h"

/* Whether an error has nothing to do with the data, but with the work or the server. */
static bool
is_unrelated_error(int sqlerrcode)
{
	switch (ERRCODE_TO_CATEGORY(sqlerrcode))
	{
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
			return true;
		default:
			return sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
				   sqlerrcode == ERRCODE_READ_ONLY_SQL_TRANSACTION;
	}
}

/*
 * Errors of the whole call rather than of a part of it: it was canceled, its transaction has
 * to be repeated, or must not write.
 */
bool
qml_subxact_ends_call(int sqlerrcode)
{
	int category = ERRCODE_TO_CATEGORY(sqlerrcode);

	return category == ERRCODE_TRANSACTION_ROLLBACK || category == ERRCODE_OPERATOR_INTERVENTION ||
		   sqlerrcode == ERRCODE_READ_ONLY_SQL_TRANSACTION;
}

/*
 * Does the work in a subtransaction.  False if it failed: it is rolled back, and
 * *failure says why, in the current memory context.  Errors for which must_reraise() is
 * true are raised again.
 */
bool
qml_subxact_try(void (*work)(void *arg), void *arg, bool (*must_reraise)(int sqlerrcode),
				QmlFailure *failure)
{
	MemoryContext oldcontext = CurrentMemoryContext;
	ResourceOwner oldowner = CurrentResourceOwner;
	volatile bool done = false;

	Assert(IsTransactionState());
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(oldcontext);
	PG_TRY();
	{
		work(arg);
		ReleaseCurrentSubTransaction();
		done = true;
	}
	PG_CATCH();
	{
		bool reraise = must_reraise(geterrcode());
		ErrorData *error;

		/*
		 * Copied before the rollback: an error that was raised again inside refers to
		 * memory of the code that did.  Raised again here, some of its strings are not
		 * copied, and must outlive the callers' memory, too.
		 */
		MemoryContextSwitchTo(reraise ? TopTransactionContext : oldcontext);
		error = CopyErrorData();
		FlushErrorState();
		MemoryContextSwitchTo(oldcontext);
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(oldcontext);
		CurrentResourceOwner = oldowner;
		if (reraise)
			ReThrowError(error);
		failure->sqlerrcode = error->sqlerrcode;
		failure->message = error->message ? error->message : "missing error text";
		failure->detail = error->detail;
		failure->hint = error->hint;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(oldcontext);
	CurrentResourceOwner = oldowner;
	return done;
}

/* The same; only errors that may lie in the data are not raised again. */
bool
qml_subxact_run(void (*work)(void *arg), void *arg, QmlFailure *failure)
{
	return qml_subxact_try(work, arg, is_unrelated_error, failure);
}
