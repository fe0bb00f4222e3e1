/*
 * names.c
 *		Names in the detail of a check: the first ones, and how many there are.
 */
#include "postgres.h"

#include "diagnosis/names.h"

void
qml_names_init(QmlNameList *names)
{
	initStringInfo(&names->text);
	names->count = 0;
}

/* Whether names that are added are only counted. */
bool
qml_names_is_full(const QmlNameList *names)
{
	return names->count >= QML_NAMES_MOST;
}

/* comment: what is said of it, or NULL. */
void
qml_names_add(QmlNameList *names, const char *name, const char *comment)
{
	if (names->count++ >= QML_NAMES_MOST)
		return;
	appendStringInfo(&names->text, "%s\"%s\"", names->text.len > 0 ? ", " : "", name);
	if (comment)
		appendStringInfo(&names->text, " (%s)", comment);
}

/* The names, and how many others there are. */
const char *
qml_names_text(QmlNameList *names)
{
	if (names->count > QML_NAMES_MOST)
		appendStringInfo(&names->text, " and %d others", names->count - QML_NAMES_MOST);
	return names->text.data;
}
