/*
 * table.h
 *		Reading and writing rows of qml's tables below the executor.
 */
#ifndef QML_TABLE_H
#define QML_TABLE_H

#include "access/genam.h"
#include "access/tableam.h"
#include "nodes/execnodes.h"
#include "utils/snapshot.h"
#include "utils/timestamp.h"

/* An index whose entries qml makes itself. */
typedef struct QmlTableIndex
{
	Oid oid;
	int kind;	  /* of QmlTableIndexes */
	Relation rel; /* NULL: not opened yet */
} QmlTableIndex;

/* An open table.  `indexes` is opened by the first write that needs it. */
typedef struct QmlTable
{
	MemoryContext context; /* what is opened later lives there too */
	Relation rel;
	TupleTableSlot *slot; /* the row read last; pins its page */
	TupleTableSlot *row;  /* virtual, for a row to be written */
	EState *estate;
	ResultRelInfo *indexes; /* those whose entries the executor makes */
	QmlTableIndex *own;		/* the others */
	int nown;

	/* What the indexes have for the row read last, if that was found by one: see below. */
	ItemPointerData root;
	ItemPointerData member; /* the row of which it is the root */
	bool is_hot;			/* the row written last took the place of that in `slot` */
	bool is_lazy;			/* what is written next, and only that, needs no commit that waits */
	Buffer page;			/* fetched from last, and pinned */
	BlockNumber blocks;		/* of the table, at least */
} QmlTable;

/*
 * Checks a table that has been opened, and is locked; write: rows are going to be written.
 * Raises an error if it is not as the library needs it.
 */
typedef void (*QmlTableCheck)(Relation rel, bool write);

/*
 * Indexes whose entries need no executor, because it is known what is in them.  Expressions and
 * conditions are costly to prepare, and most rows have no entry in most of these indexes.
 */
typedef struct QmlTableIndexes
{
	/* What an index of a table is; 0: one that the executor must see to. */
	int (*kind)(Relation table, Oid index);

	/* The values of the entry of a row; how many, and 0: it has none. */
	int (*entry)(int kind, TupleTableSlot *row, Datum *values);
} QmlTableIndexes;

/* Most values of such an entry. */
#define QML_TABLE_MAX_KEYS 3

extern void qml_table_init(QmlTableCheck check);
extern void qml_table_set_indexes(const QmlTableIndexes *indexes);
extern void qml_table_check(Relation rel, bool write);
extern void qml_table_require_write(void);
extern void qml_table_open(QmlTable *table, Oid relid, LOCKMODE lockmode);
extern bool qml_table_try_open(QmlTable *table, Oid relid, LOCKMODE lockmode);
extern void qml_table_close(QmlTable *table);

extern void qml_table_insert(QmlTable *table, TupleTableSlot *row);
extern bool qml_table_try_insert(QmlTable *table, TupleTableSlot *row, Oid key);
extern void qml_table_insert_many(QmlTable *table, TupleTableSlot **rows, int count);
extern TM_Result qml_table_update(QmlTable *table, ItemPointer tid, TupleTableSlot *row,
								  Snapshot snapshot, bool wait);
extern TM_Result qml_table_delete(QmlTable *table, ItemPointer tid, Snapshot snapshot, bool wait);

extern bool qml_table_next(QmlTable *table, IndexScanDesc scan);
extern bool qml_table_fetch(QmlTable *table, const ItemPointerData *root, Snapshot snapshot,
							Size room);
extern ItemPointerData qml_table_read_root(const QmlTable *table);
extern ItemPointerData qml_table_row_root(QmlTable *table);
extern TM_Result qml_table_row_fate(TupleTableSlot *slot);
extern bool qml_table_row_is_own(TupleTableSlot *slot);
extern bool qml_table_row_is_replaced(TupleTableSlot *slot);
extern int qml_table_row_holders(TupleTableSlot *slot, TransactionId *xids, int most);
extern TimestampTz qml_table_first_after(Oid relid, Oid indexid, TimestampTz after);
extern Snapshot qml_table_snapshot(void);
extern Snapshot qml_table_latest_snapshot(void);

#endif
