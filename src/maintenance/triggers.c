/*
 * triggers.c
 *		The triggers by which qml learns of what SQL writes.
 *
 * note_sql tells of jobs, and invalidate of what backends cache.  They are to fire in each session,
 * whatever its replication role.  pg_restore --disable-triggers enables them in another way than
 * they were, and anybody who owns the tables may have disabled or dropped them.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_trigger.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "common/cache.h"
#include "common/spi.h"
#include "ipc/counter_notes.h"
#include "ipc/ready_note.h"
#include "maintenance/triggers.h"
#include "model/catalog.h"

#define NOTED                                                                                \
	(TRIGGER_TYPE_BEFORE | TRIGGER_TYPE_INSERT | TRIGGER_TYPE_UPDATE | TRIGGER_TYPE_DELETE | \
	 TRIGGER_TYPE_TRUNCATE)
#define CHANGED (TRIGGER_TYPE_ROW | TRIGGER_TYPE_INSERT | TRIGGER_TYPE_UPDATE | TRIGGER_TYPE_DELETE)

/* What the triggers of a table are. */
typedef struct Wanted
{
	const char *name;
	const char *function;
	int16 type;
	const char *when; /* the same in SQL */
} Wanted;

static const Wanted note_sql = {"note_sql", "note_sql", NOTED,
								"BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s FOR EACH "
								"STATEMENT"};
static const Wanted invalidate = {"invalidate", "invalidate", CHANGED,
								  "AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW"};
static const Wanted invalidate_all = {"invalidate_all", "invalidate", TRIGGER_TYPE_TRUNCATE,
									  "AFTER TRUNCATE ON %s FOR EACH STATEMENT"};

/* Whether a trigger, of whichever name, does what is wanted. */
static bool
does(const Trigger *trigger, const Wanted *wanted, Oid function)
{
	return trigger->tgfoid == function && trigger->tgtype == wanted->type &&
		   trigger->tgenabled == TRIGGER_FIRES_ALWAYS && trigger->tgnattr == 0 &&
		   trigger->tgqual == NULL;
}

static List *
add_silent(List *silent, Relation rel, const Wanted *wanted)
{
	Oid function = qml_catalog_trigger_function(wanted->function);
	const TriggerDesc *triggers = rel->trigdesc;
	QmlSilentTrigger *found;
	bool is_missing = true;
	char *table = psprintf("%s.%s", QML_SCHEMA, quote_identifier(RelationGetRelationName(rel)));

	for (int i = 0; triggers && i < triggers->numtriggers; i++)
	{
		if (does(&triggers->triggers[i], wanted, function))
			return silent;
		if (strcmp(triggers->triggers[i].tgname, wanted->name) == 0)
			is_missing = false;
	}
	found = palloc(sizeof(QmlSilentTrigger));
	found->table = RelationGetRelid(rel);
	found->name = wanted->name;
	found->table_name = table;
	found->is_missing = is_missing;
	found->create = psprintf("CREATE TRIGGER %s %s EXECUTE FUNCTION %s.%s()", wanted->name,
							 psprintf(wanted->when, table), QML_SCHEMA, wanted->function);
	return lappend(silent, found);
}

/* Those of a table; none, if somebody has locked it. */
static List *
add_table(List *silent, Oid relid, bool is_of_jobs)
{
	Relation rel;

	if (!ConditionalLockRelationOid(relid, AccessShareLock))
		return silent;
	rel = table_open(relid, NoLock);
	if (is_of_jobs)
		silent = add_silent(silent, rel, &note_sql);
	else
		silent = add_silent(add_silent(silent, rel, &invalidate), rel, &invalidate_all);
	table_close(rel, AccessShareLock);
	return silent;
}

/* The triggers that do not tell of everything, as QmlSilentTrigger. */
List *
qml_triggers_silent(void)
{
	const QmlCatalog *cat = qml_catalog();
	Oid cached[] = {cat->queue, cat->handler,  cat->hook, cat->middleware,
					cat->acl,	cat->instance, cat->pause};
	List *silent = NIL;

	for (int i = 0; i < QML_STORES; i++)
	{
		silent = add_table(silent, cat->stores[i].live, true);
		silent = add_table(silent, cat->stores[i].history, true);
	}
	for (int i = 0; i < (int) lengthof(cached); i++)
		silent = add_table(silent, cached[i], false);
	return silent;
}

/* Whether all those of jobs do. */
bool
qml_triggers_tell_of_jobs(void)
{
	ListCell *lc;

	foreach(lc, qml_triggers_silent())
	{
		if (((const QmlSilentTrigger *) lfirst(lc))->name == note_sql.name)
			return false;
	}
	return true;
}

/*
 * Makes them as they were when qml was installed, but for one of another kind under the same name.
 * What was written without them is heard of now.
 */
void
qml_triggers_mend(void)
{
	List *silent = qml_triggers_silent();
	ListCell *lc;
	QmlSpi spi;

	if (silent == NIL)
		return;
	qml_spi_begin(&spi, qml_catalog()->owner);
	foreach(lc, silent)
	{
		const QmlSilentTrigger *trigger = lfirst(lc);

		if (trigger->is_missing)
			qml_spi_utility(trigger->create);
		qml_spi_utility(psprintf("ALTER TABLE %s ENABLE ALWAYS TRIGGER %s", trigger->table_name,
								 trigger->name));
	}
	qml_spi_end(&spi);
	qml_ready_note_sql();
	qml_counter_notes_sql();
	foreach(lc, silent)
		qml_cache_changed(((const QmlSilentTrigger *) lfirst(lc))->table);
}
