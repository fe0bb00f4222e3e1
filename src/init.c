/*
 * init.c
 *		Entry of the library.
 *
 * Loaded by the first call of a function in a session, or at server start by
 * shared_preload_libraries; nothing here needs the latter.
 */
#include "postgres.h"

#include "fmgr.h"

#include "catalog.h"
#include "compat.h"
#include "fault.h"
#include "guc.h"
#include "history.h"
#include "queue.h"
#include "rights.h"

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
	qml_rights_init();
}
