/*
 * init.c
 *		Entry of the library.
 *
 * Loaded by the first call of a function in a session, or at server start by
 * shared_preload_libraries: only then are there background processes and shared
 * memory.  pg_upgrade starts servers whose databases it must be alone in, so
 * nothing is registered there.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "common/fault.h"
#include "common/guc.h"
#include "compat.h"
#include "ipc/prepared.h"
#include "ipc/shmem.h"
#include "ipc/wakeup.h"
#include "jobs/history.h"
#include "model/acl.h"
#include "model/catalog.h"
#include "model/queue.h"
#include "process/launcher.h"
#include "userfn/callback.h"
#include "userfn/handler.h"
#include "userfn/sandbox.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	qml_fault_init();
	qml_guc_init();
	qml_catalog_init();
	qml_history_init();
	qml_queue_init();
	qml_handler_init();
	qml_callback_init();
	qml_sandbox_init();
	qml_acl_init();
	if (process_shared_preload_libraries_in_progress && !IsBinaryUpgrade)
	{
		qml_shmem_init();
		qml_wakeup_init();
		qml_prepared_init();
		qml_launcher_register();
	}
}
