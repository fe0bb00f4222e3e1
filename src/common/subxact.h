/*
 * subxact.h
 *		Work in a subtransaction, which may meet data that cannot be processed.
 */
#ifndef QML_SUBXACT_H
#define QML_SUBXACT_H

/* The error that the work ended with. */
typedef struct QmlFailure
{
	int sqlerrcode;
	char *message;
	char *detail; /* or NULL */
	char *hint;	  /* or NULL */
} QmlFailure;

extern bool qml_subxact_ends_call(int sqlerrcode);
extern bool qml_subxact_try(void (*work)(void *arg), void *arg,
							bool (*must_reraise)(int sqlerrcode), QmlFailure *failure);
extern bool qml_subxact_run(void (*work)(void *arg), void *arg, QmlFailure *failure);

#endif
