/*
 * sequence.c
 *		Reading a sequence below the executor.
 *
 * It is a table of one row in one page, which every transaction sees as it is.  AccessShareLock is
 * given back at once.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "commands/sequence.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/rel.h"

#include "common/sequence.h"

/*
 * An unlogged sequence that came to a standby by replication has no page, or an empty one, if the
 * standby is promoted before the page has been written there: servers do not flush the pages that a
 * crash begins with.
 */
static bool
has_page(Relation rel)
{
	return RelationGetNumberOfBlocks(rel) > 0;
}

/* Reads the page of a sequence, and locks it. */
static Buffer
lock_page(Relation rel, BlockNumber number, int mode)
{
	Buffer buffer = ReadBuffer(rel, number);

	LockBuffer(buffer, mode);
	return buffer;
}

/* The latest value of a sequence, 0 if it was never called; lsn: where the WAL says so, or NULL. */
int
qml_sequence_read(Oid sequence, XLogRecPtr *lsn)
{
	Relation rel = relation_open(sequence, AccessShareLock);
	FormData_pg_sequence_data data = {.is_called = false};

	if (has_page(rel))
	{
		Buffer buffer = lock_page(rel, 0, BUFFER_LOCK_SHARE);
		Page page = BufferGetPage(buffer);

		if (!PageIsNew(page))
		{
			HeapTupleHeader tuple = (HeapTupleHeader) PageGetItem(page,
																  PageGetItemId(page,
																				FirstOffsetNumber));

			memcpy(&data, (char *) tuple + tuple->t_hoff, sizeof(data));
		}
		if (lsn)
			*lsn = PageGetLSN(page);
		UnlockReleaseBuffer(buffer);
	}
	relation_close(rel, AccessShareLock);
	return data.is_called ? (int) data.last_value : 0;
}

/*
 * An unlogged sequence that has no page, as said above, becomes as another one is; nobody else may
 * write either.
 */
void
qml_sequence_repair(Oid sequence, Oid model)
{
	Relation rel = relation_open(sequence, AccessShareLock);
	Relation from = relation_open(model, AccessShareLock);
	Buffer buffer = lock_page(rel, has_page(rel) ? 0 : P_NEW, BUFFER_LOCK_EXCLUSIVE);

	Assert(!RelationNeedsWAL(rel));
	if (PageIsNew(BufferGetPage(buffer)))
	{
		Buffer source = lock_page(from, 0, BUFFER_LOCK_SHARE);

		START_CRIT_SECTION();
		memcpy(BufferGetPage(buffer), BufferGetPage(source), BLCKSZ);
		MarkBufferDirty(buffer);
		END_CRIT_SECTION();
		UnlockReleaseBuffer(source);
	}
	UnlockReleaseBuffer(buffer);
	relation_close(from, AccessShareLock);
	relation_close(rel, AccessShareLock);
}
