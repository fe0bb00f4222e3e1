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
#include "storage/bufmgr.h"
#include "utils/rel.h"

#include "common/sequence.h"

/* The latest value of a sequence, 0 if it was never called; lsn: where the WAL says so, or NULL. */
int
qml_sequence_read(Oid sequence, XLogRecPtr *lsn)
{
	Relation rel = relation_open(sequence, AccessShareLock);
	Buffer buffer = ReadBuffer(rel, 0);
	FormData_pg_sequence_data data;
	Page page;
	HeapTupleHeader tuple;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(buffer);
	tuple = (HeapTupleHeader) PageGetItem(page, PageGetItemId(page, FirstOffsetNumber));
	memcpy(&data, (char *) tuple + tuple->t_hoff, sizeof(data));
	if (lsn)
		*lsn = PageGetLSN(page);
	UnlockReleaseBuffer(buffer);
	relation_close(rel, AccessShareLock);
	return data.is_called ? (int) data.last_value : 0;
}
