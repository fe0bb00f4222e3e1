/*
 * init.c
 *		Entry of the library.
 *
 * Loaded by the first call of a function in a session, or at server start by
 * shared_preload_libraries: only then are there background processes and shared
 * memory.  pg_upgrade starts servers whose databases it must be alone in, so
 * nothing is registered there.
 *
 * A process has the library that the server was started with, or that it loaded first, also
 * when the file has been replaced since.  A second copy, loaded from another path, would
 * share nothing with the first: it is refused.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "common/fault.h"
#include "common/guc.h"
#include "common/lazy_commit.h"
#include "compat.h"
#include "ipc/counter_notes.h"
#include "ipc/counters.h"
#include "ipc/fetches.h"
#include "ipc/lease_notes.h"
#include "ipc/prepared.h"
#include "ipc/ready_note.h"
#include "ipc/ready_queues.h"
#include "ipc/shmem.h"
#include "ipc/stats_notes.h"
#include "ipc/stats_store.h"
#include "ipc/wakeup.h"
#include "ipc/watch.h"
#include "ipc/watch_notes.h"
#include "jobs/claim_skip.h"
#include "jobs/failure_log.h"
#include "jobs/history.h"
#include "jobs/watching.h"
#include "model/acl.h"
#include "model/catalog.h"
#include "model/queue.h"
#include "model/role_mark.h"
#include "model/search_index.h"
#include "process/launcher.h"
#include "qml.h"
#include "schedule/takeover.h"
#include "sql/schema_hint.h"
#include "userfn/callback.h"
#include "userfn/handler.h"
#include "userfn/retries.h"
#include "userfn/sandbox.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

/* Raises 55000 if another copy of the library is in this process. */
static void
refuse_second_copy(void)
{
	void **version = find_rendezvous_variable("qml library");

	if (*version != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("another copy of the library of extension \"qml\" is loaded"),
				 errdetail("Version %s is loaded; the other file has version %s.",
						   (const char *) *version, QML_VERSION),
				 errhint("Restart the server to load the new library, or reconnect if qml is not "
						 "preloaded.")));
	*version = QML_VERSION;
}

void
_PG_init(void)
{
	refuse_second_copy();
	qml_fault_init();
	qml_lazy_commit_init();
	qml_guc_init();
	qml_catalog_init();
	qml_search_index_init();
	qml_history_init();
	qml_queue_init();
	qml_handler_init();
	qml_retries_init();
	qml_callback_init();
	qml_sandbox_init();
	qml_role_mark_init();
	qml_acl_init();
	qml_claim_skip_init();
	qml_failure_log_init();
	qml_schema_hint_init();
	qml_takeover_init();
	qml_watching_init();
	if (process_shared_preload_libraries_in_progress && !IsBinaryUpgrade)
	{
		qml_shmem_init();
		qml_ready_queues_init();
		qml_counters_init();
		qml_fetches_init();
		qml_counter_notes_init();
		qml_lease_notes_init();
		qml_stats_store_init();
		qml_stats_notes_init();
		qml_wakeup_init();
		qml_watch_init();
		qml_watch_notes_init();
		qml_ready_note_init();
		qml_prepared_init();
		qml_launcher_register();
	}
}
