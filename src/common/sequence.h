/*
 * sequence.h
 *		Reading a sequence below the executor.
 */
#ifndef QML_SEQUENCE_H
#define QML_SEQUENCE_H

#include "access/xlogdefs.h"

extern void qml_sequence_repair(Oid sequence, Oid model);
extern int qml_sequence_read(Oid sequence, XLogRecPtr *lsn);

#endif
