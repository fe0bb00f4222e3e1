/*
 * ring.h
 *		Tables that are used in turns, and emptied as a whole.
 */
#ifndef QML_RING_H
#define QML_RING_H

extern bool qml_ring_has_rows(Oid relid);
extern void qml_ring_empty(Oid relid, Oid owner, const char *whole);

#endif
