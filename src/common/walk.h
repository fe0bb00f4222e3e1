/*
 * walk.h
 *		Reading a whole table, if need be in pieces that each end soon.
 */
#ifndef QML_WALK_H
#define QML_WALK_H

#include "common/table.h"

/* How far a walk has come; all zero: it begins. */
typedef struct QmlWalk
{
	BlockNumber next; /* page that the next piece begins with */
	Oid storage;	  /* the file that it is a page of */
	int number;		  /* of the table, for who reads several one after the other */
} QmlWalk;

/* A piece of a walk, within one transaction. */
typedef struct QmlWalkPiece
{
	QmlTable *table;
	TableScanDesc scan;
	QmlWalk *walk;		/* NULL: the piece is the whole table */
	BlockNumber begin;	/* its first page */
	BlockNumber page;	/* that the rows come from, with some behind it */
	BlockNumber npages; /* so many in all */
	BlockNumber end;	/* of the table */
	int64 until;		/* when the piece is over, milliseconds; 0: it has no limit */
} QmlWalkPiece;

extern void qml_walk_open(QmlWalkPiece *piece, QmlWalk *walk, QmlTable *table, Snapshot snapshot);
extern bool qml_walk_next_row(QmlWalkPiece *piece);
extern bool qml_walk_close(QmlWalkPiece *piece);

#endif
