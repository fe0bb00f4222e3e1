/*
 * sql_script.c
 *		Functions that the scripts of the extension create, call and drop:
 *		qml.begin_script, qml.revoke_default_privileges and qml.check_service.
 *
 * A script may run where an older library is loaded than the one that came with it: in a
 * server that was not started again after the files were installed.  A script that needs
 * more than that library has says so by qml.begin_script, rather than by a symbol that is
 * not found.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "commands/extension.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"

#include "common/default_acl.h"
#include "common/spi.h"
#include "compat.h"
#include "ipc/wakeup.h"
#include "maintenance/idle.h"
#include "model/catalog.h"

QML_FUNCTION(qml_begin_script);
QML_FUNCTION(qml_revoke_default_privileges);
QML_FUNCTION(qml_check_service);

/* Raises 0A000 outside of a script of an extension. */
static void
require_script(const char *function)
{
	if (!creating_extension)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s can only be called from an SQL script executed by CREATE EXTENSION "
						"or ALTER EXTENSION",
						function)));
}

/*
 * For the rest of the script: what is made must not depend on the session's settings.  They
 * are in the script's nest level of settings, which the server ends with the script.
 *
 * library: the oldest one that can run the script and serve what it makes; 55000 if this
 * one is older.  When the script commits, all sessions look at the tables anew, and the
 * launcher at the database: there may be processes that could not work in it.
 */
Datum
qml_begin_script(PG_FUNCTION_ARGS)
{
	Oid schema = get_namespace_oid(QML_SCHEMA, true);
	Oid live = OidIsValid(schema) ? get_relname_relid("live", schema) : InvalidOid;

	require_script("qml.begin_script()");
	qml_catalog_require_library(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	qml_spi_pin_for_script();
	if (OidIsValid(live))
		CacheInvalidateRelcacheByRelid(live);
	qml_wakeup_launcher(true);
	PG_RETURN_VOID();
}

/*
 * The script that creates the extension calls this and drops it: an update would
 * revoke what has been granted since.
 */
Datum
qml_revoke_default_privileges(PG_FUNCTION_ARGS)
{
	QmlSpi spi;

	require_script("qml.revoke_default_privileges()");
	qml_spi_begin(&spi, GetUserId());
	qml_default_acl_close_extension(CurrentExtensionObject);
	qml_spi_end(&spi);
	PG_RETURN_VOID();
}

/* Called by the script that creates the extension: warns if nothing will work here. */
Datum
qml_check_service(PG_FUNCTION_ARGS)
{
	require_script("qml.check_service()");
	qml_idle_warn(QML_IDLE_INSTALL);
	PG_RETURN_VOID();
}
