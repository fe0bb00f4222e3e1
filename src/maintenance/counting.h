/*
 * counting.h
 *		Counting all jobs, for the numbers in shared memory.
 */
#ifndef QML_COUNTING_H
#define QML_COUNTING_H

extern int64 qml_counting_run(bool (*needs_database)(void));
extern int64 qml_counting_interval(void);

#endif
