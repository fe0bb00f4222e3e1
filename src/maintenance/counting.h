/*
 * counting.h
 *		Counting all jobs, for the numbers in shared memory.
 */
#ifndef QML_COUNTING_H
#define QML_COUNTING_H

/* For the scheduler: when to count. */
extern bool qml_counting_is_due(void);
extern int64 qml_counting_pause(void);
extern int64 qml_counting_interval(void);
extern void qml_counting_note_start(void);
extern void qml_counting_note_no_process(void);

/* For the process that counts. */
extern void qml_counting_run(void (*leave)(void));
extern void qml_counting_note_error(void);

#endif
