/*
 * method_set.h
 *		The methods that a worker names when it fetches or waits.
 */
#ifndef QML_METHOD_SET_H
#define QML_METHOD_SET_H

typedef struct QmlMethodSet
{
	int count;
	char **methods; /* in order, each once */
	uint64 *hashes; /* of each, in order: see common/hash_set.c */
	uint64 hash;	/* the same for the same methods, in whatever order they were named */
} QmlMethodSet;

extern QmlMethodSet *qml_method_set_make(char **methods, int count);
extern bool qml_method_set_has_hash(const QmlMethodSet *set, uint64 hash);
extern bool qml_method_set_has(const QmlMethodSet *set, Datum method);

#endif
