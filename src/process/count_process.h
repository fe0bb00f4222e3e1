/*
 * count_process.h
 *		The process that counts all jobs of a database.
 */
#ifndef QML_COUNT_PROCESS_H
#define QML_COUNT_PROCESS_H

extern bool qml_count_process_runs(void);
extern bool qml_count_process_start(void);

#endif
