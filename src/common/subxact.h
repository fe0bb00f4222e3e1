/*
 * subxact.h
 *		Work that may meet data which cannot be worked with.
 */
#ifndef QML_SUBXACT_H
#define QML_SUBXACT_H

/* What went wrong. */
typedef struct QmlFailure
{
	int sqlerrcode;
	char *message;
	char *hint; /* or NULL */
} QmlFailure;

extern bool qml_subxact_try(void (*work)(void *arg), void *arg, bool (*passes)(int sqlerrcode),
							QmlFailure *failure);
extern bool qml_subxact_run(void (*work)(void *arg), void *arg, QmlFailure *failure);

#endif
