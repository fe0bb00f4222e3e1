/*
 * subxact.c
 *		Work that may meet data which cannot be worked with.
 *
 * A broken row must neither stop the rows behind it nor fill the log.  Work is
 * done in a subtransaction; an error that may lie in the data undoes it and is
 * told to the caller, who leaves the row out.  All other errors are raised again:
 * cancellation and shutdown, lack of resources, and those that the next try may
 * not meet.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "common/subxact.h"

/* Whether the error is one that the work has to do with, and not its data. */
static bool
is_not_of_the_data(int sqlerrcode)
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
 * Does the work in a subtransaction.  False when it failed: nothing of it is left,
 * and *failure tells why.  Errors that pass are raised again.
 */
bool
qml_subxact_try(void (*work)(void *arg), void *arg, bool (*passes)(int sqlerrcode),
				QmlFailure *failure)
{
	MemoryContext oldcontext = CurrentMemoryContext;
	ResourceOwner oldowner = CurrentResourceOwner;
	volatile bool done = false;

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
		bool passing = passes(geterrcode());
		ErrorData *error;

		/*
		 * Copied before the rollback: what was raised again inside refers to memory of
		 * whoever did.  Raised again here, some of its strings are not copied, and
		 * must outlive those outside, too.
		 */
		MemoryContextSwitchTo(passing ? TopTransactionContext : oldcontext);
		error = CopyErrorData();
		FlushErrorState();
		MemoryContextSwitchTo(oldcontext);
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(oldcontext);
		CurrentResourceOwner = oldowner;
		if (passing)
			ReThrowError(error);
		failure->sqlerrcode = error->sqlerrcode;
		failure->message = error->message;
		failure->hint = error->hint;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(oldcontext);
	CurrentResourceOwner = oldowner;
	return done;
}

/* The same for errors that may lie in the data. */
bool
qml_subxact_run(void (*work)(void *arg), void *arg, QmlFailure *failure)
{
	return qml_subxact_try(work, arg, is_not_of_the_data, failure);
}
