/*
 * lazy_commit.c
 *		Commits that do not wait for the disk.
 *
 * A transaction that has written nothing but jobs of queues which say so commits without waiting
 * for its WAL to be flushed, nor for a standby, as with synchronous_commit = off.  A crash of the
 * server may lose it then, as a whole.
 *
 * Nobody else's rows are ever lost so: it is not asked what a transaction has done, but what it
 * has put into the WAL.  The code that writes such a job measures what that takes
 * (qml_lazy_commit_begin and _end_write, in table.c); before the commit the sum is compared with
 * everything that the session has put into the WAL since its last transaction ended.  A row of a
 * user, of a trigger or a function, a job of another queue, DDL, a sequence, a row lock, a
 * subtransaction that was rolled back: each of them is in the WAL beside, and the commit is as
 * synchronous_commit says.  What is measured is a single call of the access method or of
 * indexes, in which no code of users runs: if indexes call functions of users, it is not
 * measured.  Whoever forgets to measure makes a commit wait that needed not; an error in between
 * does the same.  To read a page may write WAL, too (it is pruned, or gets a hint): that is
 * measured where jobs are searched, and is nobody's loss.
 *
 * What comes after the decision, by a later callback of the same event or the end of temporary
 * tables, is seen after the commit, which then flushes and waits as it should have before.
 *
 * Prepared transactions are flushed by PREPARE; COMMIT PREPARED is not of interest here.
 *
 * The variable synchronous_commit is changed from the decision to the end of the transaction,
 * in which no statement can read it.  Its value comes back before the settings of the
 * transaction are undone.
 *
 * Attempts whose claim was lost with a crash must not give their numbers away again
 * (model/lineage.c).  The callback must be called behind all others: so commits are lazy only where
 * the library is loaded with the server.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "replication/syncrep.h"

#include "common/lazy_commit.h"

/* Of the transaction: bytes of WAL that need no commit that waits, and whether any was written. */
uint64 qml_lazy_commit_wal = 0;
bool qml_lazy_commit_wanted = false;

/* What the session had put into the WAL when its last transaction ended. */
static uint64 wal_before = 0;

/* From the decision to the end of the transaction. */
static bool is_lazy = false;
static int setting;			   /* synchronous_commit */
static int64 records_expected; /* in the WAL when it has committed */

static bool possible = false;

/* The library was loaded with the server. */
void
qml_lazy_commit_start(void)
{
	possible = true;
}

/* Whether a commit may be lazy at all. */
bool
qml_lazy_commit_possible(void)
{
	return possible;
}

/* Before the commit, when all else has been written. */
static void
decide(void)
{
	if (!possible || !qml_lazy_commit_wanted || synchronous_commit <= SYNCHRONOUS_COMMIT_OFF ||
		pgWalUsage.wal_bytes - wal_before != qml_lazy_commit_wal)
		return;
	is_lazy = true;
	setting = synchronous_commit;
	synchronous_commit = SYNCHRONOUS_COMMIT_OFF;
	records_expected = pgWalUsage.wal_records + 1;
}

/* The transaction has ended: the next one begins with nothing. */
static void
forget(void)
{
	if (is_lazy)
		synchronous_commit = setting;
	is_lazy = false;
	qml_lazy_commit_wal = 0;
	qml_lazy_commit_wanted = false;
	wal_before = pgWalUsage.wal_bytes;
}

/* It has committed. */
static void
finish(void)
{
	bool is_missed = is_lazy && pgWalUsage.wal_records > records_expected;

	forget();
	if (!is_missed)
		return;
	XLogFlush(XactLastCommitEnd);
	SyncRepWaitForLSN(XactLastCommitEnd, true);
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PRE_COMMIT)
		decide();
	else if (event == XACT_EVENT_COMMIT)
		finish();
	else if (event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		forget();
}

/*
 * Called when the library is loaded with the server, before others register callbacks: the one
 * that is registered first is called last.
 */
void
qml_lazy_commit_init(void)
{
	RegisterXactCallback(at_transaction_end, NULL);
}
