/*
 * listed.c
 *		The names in qml.databases that lead to no database that can be worked in.
 *
 * While the launcher reads pg_database, the names that it meets are struck from the list.
 * What is left is told in the log, each name once until it is found or no longer listed,
 * and shown by the view qml.database.
 *
 * Called by the launcher only, whose memory it is in.
 */
#include "postgres.h"

#include "nodes/pg_list.h"
#include "utils/memutils.h"

#include "common/guc.h"
#include "ipc/databases.h"
#include "process/listed.h"
#include "process/process.h"

/* A name in the list. */
typedef struct Listed
{
	char name[NAMEDATALEN];
	QmlDatabaseState state; /* QML_DATABASE_FREE: it is a database that can be worked in */
	QmlDatabaseState told;	/* in the log */
	int entry;				/* in shared memory; -1: none */
} Listed;

static MemoryContext context = NULL; /* holds all of this, and is made anew each time */
static char *setting = NULL;		 /* value of qml.databases that was read last */
static List *names = NIL;			 /* of Listed */
static List *old_names = NIL;		 /* the same, from the time before */
static MemoryContext old_context = NULL;

/* Whether qml.databases differs from what it was when the names were compared last. */
bool
qml_listed_has_changed(void)
{
	return setting == NULL || strcmp(setting, qml_databases) != 0;
}

static Listed *
find_name(List *list, const char *name)
{
	ListCell *lc;

	foreach(lc, list)
	{
		Listed *listed = lfirst(lc);

		if (strcmp(listed->name, name) == 0)
			return listed;
	}
	return NULL;
}

/* Before pg_database is read: no name is known to be one of a database. */
void
qml_listed_start(void)
{
	MemoryContext oldcontext;
	ListCell *lc;

	/* An error may have ended the last time. */
	if (old_context == NULL)
	{
		old_context = context;
		old_names = names;
	}
	else if (context)
		MemoryContextDelete(context);
	context = AllocSetContextCreate(TopMemoryContext, "qml databases", ALLOCSET_SMALL_SIZES);
	oldcontext = MemoryContextSwitchTo(context);
	names = NIL;
	setting = pstrdup(qml_databases);
	foreach(lc, qml_process_works_all_databases() ? NIL : qml_process_listed_databases())
	{
		Listed *listed;
		const Listed *old = find_name(old_names, lfirst(lc));

		if (find_name(names, lfirst(lc)))
			continue;
		listed = palloc0(sizeof(Listed));
		strlcpy(listed->name, lfirst(lc), NAMEDATALEN);
		listed->state = QML_DATABASE_UNKNOWN;
		listed->told = old ? old->told : QML_DATABASE_FREE;
		listed->entry = -1;
		names = lappend(names, listed);
	}
	MemoryContextSwitchTo(oldcontext);
}

/* A database of that name is there; refused: it is a template, or closed to connections. */
void
qml_listed_note(const char *name, bool refused)
{
	Listed *listed = find_name(names, name);

	if (listed)
		listed->state = refused ? QML_DATABASE_REFUSED : QML_DATABASE_FREE;
}

static void
tell(Listed *listed)
{
	if (listed->state == listed->told)
		return;
	listed->told = listed->state;
	if (listed->state == QML_DATABASE_UNKNOWN)
		ereport(WARNING,
				(errcode(ERRCODE_UNDEFINED_DATABASE),
				 errmsg("database \"%s\" in qml.databases does not exist", listed->name),
				 errhint("Names with upper-case or special characters must be quoted there.")));
	else if (listed->state == QML_DATABASE_REFUSED)
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("database \"%s\" in qml.databases is not worked in", listed->name),
				 errdetail("It is a template, or does not allow connections.")));
}

/* pg_database was read: tells and shows which names have led to none. */
void
qml_listed_end(void)
{
	ListCell *lc;

	foreach(lc, old_names)
		qml_databases_remove(((Listed *) lfirst(lc))->entry);
	old_names = NIL;
	if (old_context)
		MemoryContextDelete(old_context);
	old_context = NULL;
	foreach(lc, names)
	{
		Listed *listed = lfirst(lc);

		tell(listed);
		if (listed->state == QML_DATABASE_FREE)
			continue;
		listed->entry = qml_databases_add(InvalidOid, listed->name);
		qml_databases_set(listed->entry, listed->name, listed->state, 0, 0);
	}
}

/* How many of these names found no place to be shown. */
int
qml_listed_count_hidden(void)
{
	int count = 0;
	ListCell *lc;

	foreach(lc, names)
	{
		const Listed *listed = lfirst(lc);

		if (listed->state != QML_DATABASE_FREE && listed->entry < 0)
			count++;
	}
	return count;
}
