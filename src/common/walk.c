/*
 * walk.c
 *		Reading a whole table, if need be in pieces that each end soon.
 *
 * What reads a table that can have any number of rows must not do so in one transaction
 * of a background process: it would hold up all else that the process does, and with
 * enough rows run into the time limit, be undone, and begin again for ever.  So a walk is
 * made in pieces.  A piece ends after PIECE_MS, and the next one, in another
 * transaction, goes on with the page where it ended.
 *
 * A row that is updated meanwhile can move behind the walk, and is not seen by it then;
 * whoever changes rows must see to it that this is not needed, or that another walk
 * follows.  When the table was rewritten, the walk begins again.
 *
 * Pages are read as by a sequential scan, through a small ring of buffers.  A walk that
 * is lost with its process costs another one.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/rel.h"

#include "common/clock.h"
#include "common/fault.h"
#include "common/walk.h"

/*
 * How long a piece may take, how many pages lie between two looks at the clock, and, for
 * tests, how many pages a piece may have, however quickly they are read.
 */
#define PIECE_MS	QML_FAULT_LIMIT("walk.piece_ms", 100)
#define CHUNK_PAGES QML_FAULT_LIMIT("walk.chunk_pages", 256)
#define PIECE_PAGES QML_FAULT_LIMIT("walk.piece_pages", INT_MAX)

/* Where the scan goes on: the next pages of the table. */
static void
scan_pages(QmlWalkPiece *piece)
{
	piece->npages = Min(piece->end - piece->page, CHUNK_PAGES);
	table_rescan(piece->scan, NULL);
	heap_setscanlimits(piece->scan, piece->page, piece->npages);
}

/*
 * Begins a piece; walk: NULL to read the whole table.  Rows come in table->slot, which the
 * caller may read and use until the next one.
 */
void
qml_walk_open(QmlWalkPiece *piece, QmlWalk *walk, QmlTable *table, Snapshot snapshot)
{
	Assert(table->rel->rd_tableam == GetHeapamTableAmRoutine());
	piece->table = table;
	piece->walk = walk;
	piece->page = 0;
	piece->npages = 0;
	piece->until = 0;
	if (walk)
	{
		piece->page = walk->storage == table->rel->rd_rel->relfilenode ? walk->next : 0;
		piece->until = qml_clock_monotonic_ms() + PIECE_MS;
	}
	piece->begin = piece->page;
	/* Not from where another scan is: the pages are ours to choose. */
	piece->scan = table_beginscan_strat(table->rel, snapshot, 0, NULL, true, false);
	piece->end = RelationGetNumberOfBlocks(table->rel);
	if (piece->page < piece->end)
		scan_pages(piece);
}

/* Reads the next row of the piece into table->slot; false: the piece is over. */
bool
qml_walk_next_row(QmlWalkPiece *piece)
{
	while (piece->page < piece->end)
	{
		if (table_scan_getnextslot(piece->scan, ForwardScanDirection, piece->table->slot))
			return true;
		piece->page += piece->npages;
		piece->npages = 0;
		CHECK_FOR_INTERRUPTS();
		/* At least one chunk a piece, so that every walk ends. */
		if (piece->until != 0 && (qml_clock_monotonic_ms() >= piece->until ||
								  piece->page - piece->begin >= (BlockNumber) PIECE_PAGES))
			break;
		if (piece->page < piece->end)
			scan_pages(piece);
	}
	return false;
}

/*
 * Ends the piece, and keeps in its walk where the next one begins; pages that were not
 * read to their end are read again.  Returns whether the walk is over; then it is as if
 * it had not begun.
 */
bool
qml_walk_close(QmlWalkPiece *piece)
{
	bool over = piece->page >= piece->end;

	if (piece->walk)
	{
		piece->walk->next = over ? 0 : piece->page;
		piece->walk->storage = piece->table->rel->rd_rel->relfilenode;
	}
	table_endscan(piece->scan);
	return over;
}
