/*
 * drain.h
 *		Runs the jobs of queues in the session and the transaction of the caller.
 */
#ifndef QML_DRAIN_H
#define QML_DRAIN_H

extern int qml_drain_jobs(char **queues, int nqueues, int most, bool scheduled);

#endif
