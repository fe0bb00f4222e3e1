/*
 * lazy_commit.h
 *		Commits that do not wait for the disk.
 */
#ifndef QML_LAZY_COMMIT_H
#define QML_LAZY_COMMIT_H

#include "executor/instrument.h"

extern uint64 qml_lazy_commit_wal;
extern bool qml_lazy_commit_wanted;

extern void qml_lazy_commit_init(void);
extern void qml_lazy_commit_start(void);
extern bool qml_lazy_commit_possible(void);

/* What this session has put into the WAL so far, for qml_lazy_commit_end_read() or _end_write(). */
static inline uint64
qml_lazy_commit_begin(void)
{
	return pgWalUsage.wal_bytes;
}

/* What was put into it since then, by reading, needs no commit that waits. */
static inline void
qml_lazy_commit_end_read(uint64 begun)
{
	qml_lazy_commit_wal += pgWalUsage.wal_bytes - begun;
}

/* The same by writing what need not be on the disk at the commit. */
static inline void
qml_lazy_commit_end_write(uint64 begun)
{
	qml_lazy_commit_wal += pgWalUsage.wal_bytes - begun;
	qml_lazy_commit_wanted = true;
}

#endif
