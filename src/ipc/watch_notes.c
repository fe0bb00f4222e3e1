/*
 * watch_notes.c
 *		What a transaction changes, for sessions that watch the database.
 *
 * It is told at the very end of the commit, after the invalidation messages were sent, as others
 * are woken (wakeup.c): whoever is told and looks then sees it, also through the caches of its
 * session.
 *
 * What becomes of jobs is not noted here while the transaction runs: counter_notes.c knows it,
 * and says it when the transaction has committed.  What a subtransaction noted before it was
 * rolled back is told all the same; that costs a needless look.
 *
 * Of a prepared transaction it is kept that it has noted anything (prepared.c).
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/resowner.h"

#include "ipc/shmem.h"
#include "ipc/watch.h"
#include "ipc/watch_notes.h"

static QmlWatchSet noted;
static bool noted_any = false;
static bool noted_everything = false;
static bool committed = false; /* and nothing is told yet */

static void
forget(void)
{
	if (noted_any)
		memset(&noted, 0, sizeof(noted));
	noted_any = false;
	noted_everything = false;
	committed = false;
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	/* Others may note something at this event, too: see after_commit(). */
	if (event == XACT_EVENT_COMMIT)
		committed = true;
	else if (event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		forget();
}

/* The last thing that a commit does; as there, nothing may raise an error. */
static void
after_commit(ResourceReleasePhase phase, bool commit, bool top_level, void *arg)
{
	if (!committed || phase != RESOURCE_RELEASE_AFTER_LOCKS || !top_level)
		return;
	committed = false;
	if (!noted_any)
		return;
	START_CRIT_SECTION();
	if (noted_everything)
		qml_watch_tell_everything(MyDatabaseId);
	else
		qml_watch_tell(&noted);
	END_CRIT_SECTION();
	forget();
}

/* Called while the server loads its preloaded libraries, before qml_prepared_init(). */
void
qml_watch_notes_init(void)
{
	RegisterXactCallback(at_transaction_end, NULL);
	RegisterResourceReleaseCallback(after_commit, NULL);
}

/* A queue has changed, or its jobs. */
void
qml_watch_note_queue(int queue)
{
	if (qml_shmem == NULL)
		return;
	qml_watch_add_queue(&noted, queue);
	noted_any = true;
}

/* The same for one that there is not yet: who sees some queues only does not see it. */
void
qml_watch_note_unknown_queue(void)
{
	if (qml_shmem == NULL)
		return;
	qml_watch_add(&noted, QML_WATCH_ALL);
	noted_any = true;
}

/* Something that belongs to no queue has changed: servers, handlers. */
void
qml_watch_note_common(void)
{
	if (qml_shmem == NULL)
		return;
	qml_watch_add(&noted, QML_WATCH_ALL);
	qml_watch_add(&noted, QML_WATCH_COMMON);
	noted_any = true;
}

/* Who may see which queues has changed, or a queue has come into being. */
void
qml_watch_note_rights(void)
{
	if (qml_shmem == NULL)
		return;
	qml_watch_add(&noted, QML_WATCH_ALL);
	qml_watch_add(&noted, QML_WATCH_RIGHTS);
	noted_any = true;
}

/* Nobody knows what has changed. */
void
qml_watch_note_everything(void)
{
	if (qml_shmem == NULL)
		return;
	noted_everything = true;
	noted_any = true;
}

/* Whether the transaction has noted anything. */
bool
qml_watch_notes_exist(void)
{
	return noted_any;
}
