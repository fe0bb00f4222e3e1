/*
 * names.h
 *		Names in the detail of a check: the first ones, and how many there are.
 */
#ifndef QML_NAMES_H
#define QML_NAMES_H

#include "lib/stringinfo.h"

/* How many names a detail has. */
#define QML_NAMES_MOST 5

typedef struct QmlNameList
{
	StringInfoData text;
	int count; /* of all, also those that are not in the text */
} QmlNameList;

extern void qml_names_init(QmlNameList *names);
extern bool qml_names_is_full(const QmlNameList *names);
extern void qml_names_add(QmlNameList *names, const char *name, const char *comment);
extern const char *qml_names_text(QmlNameList *names);

#endif
