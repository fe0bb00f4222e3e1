/*
 * concurrency.h
 *		The concurrency slots that the jobs in hand of a worker hold.
 */
#ifndef QML_CONCURRENCY_H
#define QML_CONCURRENCY_H

#include "ipc/shmem.h"

/*
 * In place of the hash of a method: the one slot that a database has for poison suspects.
 * A method whose hash is 0 shares it.
 */
#define QML_CONCURRENCY_SUSPECT 0

/* Of a batch of jobs. */
typedef struct QmlConcurrency
{
	QmlSlot *worker; /* this process's */
	int nheld;		 /* methods that it holds a concurrency slot of */
	uint32 held[QML_MAX_CONCURRENCY_SLOTS];
	int nrefused; /* methods that had none left when the batch was filled */
	uint32 refused[QML_MAX_CONCURRENCY_SLOTS];
} QmlConcurrency;

extern uint32 qml_concurrency_hash(const char *method);
extern bool qml_concurrency_holds(const QmlConcurrency *concurrency, uint32 method);
extern bool qml_concurrency_is_refused(const QmlConcurrency *concurrency, uint32 method);
extern bool qml_concurrency_acquire(QmlConcurrency *concurrency, uint32 method, int limit);
extern bool qml_concurrency_may_acquire_suspect(QmlConcurrency *concurrency);
extern bool qml_concurrency_has_room(QmlConcurrency *concurrency, uint32 method, int limit);
extern bool qml_concurrency_release_unneeded(QmlConcurrency *concurrency,
											 bool (*needs)(uint32 method, void *arg), void *arg,
											 Oid *role);
extern void qml_concurrency_release(QmlConcurrency *concurrency);

#endif
