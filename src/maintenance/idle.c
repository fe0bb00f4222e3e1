/*
 * idle.c
 *		Warnings where background work is asked for that nothing will do.
 *
 * Without background processes a delayed job stays delayed, a schedule never fires and no
 * handler runs, and nothing says so.  Who asks for any of it is warned, once in a session for
 * each kind, with what helps.  pg_cron may do the work of the scheduler; whether it does is looked
 * up once in a session.  The setting qml.warn_idle is for those who call qml_maintain() by other
 * means.
 *
 * Where background processes serve the database, this costs some comparisons, and only in
 * the calls that ask for such work.
 */
#include "postgres.h"

#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/varlena.h"

#include "common/guc.h"
#include "ipc/shmem.h"
#include "maintenance/idle.h"
#include "model/catalog.h"
#include "schedule/pgcron.h"

/* Why nothing will do the work. */
typedef struct Reason
{
	const char *detail; /* NULL: it will be done */
	const char *hint;
} Reason;

static bool warned[QML_IDLE_WORKS];

#define RESTART "Add qml to shared_preload_libraries and restart the server"
#define RELOAD	"Change it in postgresql.conf and reload the configuration."

/* Whether qml.databases names this database; the setting is a list. */
static bool
find_in_list(void)
{
	char *name;
	List *names;
	ListCell *lc;

	if (!SplitIdentifierString(pstrdup(qml_databases), ',', &names))
		return true; /* the setting was checked */
	name = get_database_name(MyDatabaseId);
	foreach(lc, names)
	{
		if (name && strcmp(name, lfirst(lc)) == 0)
			return true;
	}
	return false;
}

/*
 * Whether the setting names this database, or all.  The list is read again only when it has
 * changed.
 */
bool
qml_idle_is_listed(void)
{
	static char *setting = NULL; /* what the answer is for */
	static bool listed;

	if (strcmp(qml_databases, "*") == 0)
		return true;
	if (setting == NULL || strcmp(setting, qml_databases) != 0)
	{
		char *old = setting;

		listed = find_in_list();
		setting = MemoryContextStrdup(TopMemoryContext, qml_databases);
		if (old)
			pfree(old);
	}
	return listed;
}

static Reason
no_reason(void)
{
	return (Reason){NULL, NULL};
}

/* Why no process works in this database. */
static Reason
find_common_reason(QmlIdleWork work)
{
	if (qml_shmem == NULL)
		return (Reason){"qml is not in shared_preload_libraries.",
						work == QML_IDLE_HANDLER ? RESTART "." :
						work == QML_IDLE_BULK ? RESTART ", or call qml_maintain() now and then." :
												RESTART
							", or let pg_cron do it: see qml_pg_cron_schedule()."};
	if (!qml_enabled)
		return (Reason){"The setting qml.enabled is off.", RELOAD};
	if (!qml_idle_is_listed())
		return (Reason){"This database is not named in qml.databases.", RELOAD};
	return no_reason();
}

/* Why the processes would not do this kind of work. */
static Reason
find_special_reason(QmlIdleWork work)
{
	if ((work == QML_IDLE_DELAYED || work == QML_IDLE_BULK) && !qml_scheduler_enabled)
		return (Reason){"The setting qml.enable_scheduler is off.", RELOAD};
	if (work == QML_IDLE_RECURRING && !qml_recurring_enabled)
		return (Reason){"The setting qml.enable_recurring is off.", RELOAD};
	if (work == QML_IDLE_HANDLER && qml_workers == 0)
		return (Reason){"The setting qml.workers is 0.", RELOAD};
	return no_reason();
}

/* Whether pg_cron does it instead. */
static bool
is_done_by_pg_cron(QmlIdleWork work)
{
	return (work == QML_IDLE_DELAYED || work == QML_IDLE_RECURRING) &&
		   qml_pgcron_may_serve(work == QML_IDLE_RECURRING);
}

static Reason
find_reason(QmlIdleWork work)
{
	Reason reason = find_common_reason(work);

	if (reason.detail == NULL)
		reason = find_special_reason(work);
	if (reason.detail && is_done_by_pg_cron(work))
		reason = no_reason();
	/* While the extension is being made, its rows are not there yet. */
	if (reason.detail == NULL && work != QML_IDLE_INSTALL && !qml_catalog()->adopted)
		reason = (Reason){"The jobs in this database are a copy from another one.",
						  "Call qml_adopt() to run the jobs of this copy."};
	return reason;
}

/* Work of a kind is asked for: warns if nothing will do it. */
void
qml_idle_warn(QmlIdleWork work)
{
	static const char *const messages[QML_IDLE_WORKS] = {
		[QML_IDLE_INSTALL] = gettext_noop(
			"no background process of qml will work in this database"),
		[QML_IDLE_DELAYED] = gettext_noop("nothing will make delayed jobs ready in this database"),
		[QML_IDLE_RECURRING] = gettext_noop("nothing will fire recurring jobs in this database"),
		[QML_IDLE_HANDLER] = gettext_noop("nothing will run handlers in this database"),
		[QML_IDLE_BULK] = gettext_noop("nothing will do bulk operations in this database"),
	};
	Reason reason;

	Assert(work >= 0 && work < QML_IDLE_WORKS);
	if (!qml_warn_idle || warned[work])
		return;
	reason = find_reason(work);
	if (reason.detail == NULL)
		return;
	warned[work] = true;
	ereport(WARNING,
			(errmsg("%s", _(messages[work])), errdetail("%s", _(reason.detail)),
			 errhint("%s", _(reason.hint))));
}
