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

#include "callback.h"
#include "catalog.h"
#include "compat.h"
#include "fault.h"
#include "guc.h"
#include "handler.h"
#include "history.h"
#include "launcher.h"
#include "lobject.h"
#include "queue.h"
#include "rights.h"
#include "shmem.h"
#include "wakeup.h"

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
	qml_lobject_init();
	qml_rights_init();
	if (process_shared_preload_libraries_in_progress && !IsBinaryUpgrade)
	{
		qml_shmem_init();
		qml_wakeup_init();
		qml_launcher_register();
	}
}
