/*
 * holder.c
 *		Whose transaction has the row of a job.
 *
 * The row says which transactions have changed or locked it, by their ids, and the server whose
 * these are: a session's, by its pid, or that of a prepared transaction, by its name.  On a standby
 * it is only known that they run on the primary.
 */
#include "postgres.h"

#include "access/subtrans.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "storage/procarray.h"
#include "utils/builtins.h"

#include "common/spi.h"
#include "common/table.h"
#include "diagnosis/finding.h"
#include "diagnosis/holder.h"
#include "model/catalog.h"

static void
add_holder(QmlHolders *holders, TransactionId xid)
{
	for (int i = 0; i < holders->count; i++)
	{
		if (holders->xids[i] == xid)
			return;
	}
	if (holders->count < QML_HOLDERS_MOST)
		holders->xids[holders->count++] = xid;
	else
		holders->more = true;
}

/* Adds the other transactions that run and have the row in a slot; whether there is any. */
bool
qml_holder_note(QmlHolders *holders, TupleTableSlot *slot)
{
	TransactionId xids[QML_HOLDERS_MOST];
	int count = qml_table_row_holders(slot, xids, QML_HOLDERS_MOST);

	for (int i = 0; i < count; i++)
		add_holder(holders, SubTransGetTopmostTransaction(xids[i]));
	return count > 0;
}

/* The name of a prepared transaction; NULL: there is none of this id. */
static char *
find_prepared(TransactionId xid)
{
	MemoryContext context = CurrentMemoryContext;
	Oid type = XIDOID;
	Datum value = TransactionIdGetDatum(xid);
	List *names;
	QmlSpi spi;

	qml_spi_begin(&spi, qml_catalog()->owner);
	(void) qml_spi_execute_latest("SELECT p.gid FROM pg_catalog.pg_prepared_xact() p "
								  "WHERE p.transaction = $1",
								  1, &type, &value, NULL, SPI_OK_SELECT);
	names = qml_spi_strings(context);
	qml_spi_end(&spi);
	return names == NIL ? NULL : linitial(names);
}

static List *
add_group(List *groups, char *who, char *remedy)
{
	QmlHolderGroup *group = palloc(sizeof(QmlHolderGroup));

	group->who = who;
	group->remedy = remedy;
	return lappend(groups, group);
}

/* Whose they are, by what ends them: all sessions together, and each prepared transaction. */
List *
qml_holder_groups(const QmlHolders *holders)
{
	List *prepared = NIL;
	List *groups = NIL;
	StringInfoData sessions;
	StringInfoData calls;

	if (RecoveryInProgress())
		return add_group(NIL, pstrdup("an open transaction on the primary"), NULL);
	initStringInfo(&sessions);
	initStringInfo(&calls);
	for (int i = 0; i < holders->count; i++)
	{
		int pid = BackendXidGetPid(holders->xids[i]);
		char *name = pid == 0 ? find_prepared(holders->xids[i]) : NULL;

		if (name)
			prepared = add_group(prepared,
								 psprintf("the prepared transaction %s", qml_finding_quote(name)),
								 psprintf("ROLLBACK PREPARED %s;", qml_finding_quote(name)));
		if (pid == 0)
			continue;
		appendStringInfo(&sessions, "%sthe open transaction of pid %d",
						 sessions.len > 0 ? " and " : "", pid);
		appendStringInfo(&calls, "%spg_terminate_backend(%d)", calls.len > 0 ? ", " : "", pid);
	}
	if (sessions.len > 0 && holders->more)
		appendStringInfoString(&sessions, " and others");
	if (sessions.len > 0)
		groups = add_group(groups, sessions.data, psprintf("SELECT %s;", calls.data));
	groups = list_concat(groups, prepared);
	if (groups == NIL)
		groups = add_group(groups, pstrdup("a transaction that has just ended"), NULL);
	return groups;
}
