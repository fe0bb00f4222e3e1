/*
 * session_sleep.c
 *		Sleep of a session within a call.
 *
 * A procedure that waits sleeps in a transaction that has no snapshot and no lock.  That is why
 * it is a procedure: a function cannot end its caller's transaction.  It is refused within a
 * transaction that it cannot end.  Nothing is written, so it works in transactions that are
 * read-only.  On a standby it is refused: what happens there is replayed, and no session
 * commits it.
 *
 * A client that is gone ends the sleep at once, where the platform can tell.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "ipc/shmem.h"
#include "jobs/session_sleep.h"

/*
 * What a session waits for from its client: the socket, the latch, the end of the postmaster;
 * NULL in a background process.  libpq/libpq.h declares it, but needs headers of Kerberos that
 * whoever builds an extension need not have.
 */
extern PGDLLIMPORT WaitEventSet *FeBeWaitSet;
#define CLIENT_SOCKET 0
#define CLIENT_EVENTS 3

/* Raises an error where the procedure cannot wait; on_standby: what happens elsewhere, if so. */
void
qml_session_check_wait(FunctionCallInfo fcinfo, const char *procedure, const char *on_standby)
{
	if (qml_shmem == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s() can wait only if qml is preloaded", procedure),
				 errhint("Add qml to shared_preload_libraries.")));
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("%s() cannot wait on a standby", procedure),
				 errdetail_internal("%s", on_standby),
				 errhint("Call it on the primary.")));
	if (fcinfo->context == NULL || !IsA(fcinfo->context, CallContext) ||
		castNode(CallContext, fcinfo->context)->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("%s() cannot be called within a transaction block", procedure),
				 errdetail("It ends its transaction, so that it holds nothing while it waits."),
				 errhint("Call it on a connection in autocommit mode, outside of BEGIN and COMMIT, "
						 "and not in a function.")));
}

/* From here on the call may end its transaction. */
void
qml_session_begin_call(void)
{
	if (SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
}

void
qml_session_end_call(void)
{
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "SPI_finish failed");
}

/* The client has gone: the session ends, with FATAL. */
static void
end_session(void)
{
	ClientConnectionLost = true;
	InterruptPending = true;
	CHECK_FOR_INTERRUPTS();
}

/* Sleeps until the latch is set, for so many milliseconds at most; notices if the client has gone. */
void
qml_session_sleep(int64 milliseconds, uint32 wait_event)
{
	WaitEvent events[CLIENT_EVENTS];
	long timeout = (long) Min(milliseconds, INT_MAX);
	bool gone = false;
	int n;

	Assert(!HaveRegisteredOrActiveSnapshot());
	if (FeBeWaitSet == NULL || !WaitEventSetCanReportClosed())
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, timeout,
						 wait_event);
	else
	{
		/* Whoever uses the set next says anew what to wait for on the socket. */
		ModifyWaitEvent(FeBeWaitSet, CLIENT_SOCKET, WL_SOCKET_CLOSED, NULL);
		n = WaitEventSetWait(FeBeWaitSet, timeout, events, lengthof(events), wait_event);
		for (int i = 0; i < n; i++)
		{
			if (events[i].events & WL_POSTMASTER_DEATH)
				proc_exit(1);
			gone = gone || (events[i].events & WL_SOCKET_CLOSED);
		}
	}
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	if (gone)
		end_session();
}
