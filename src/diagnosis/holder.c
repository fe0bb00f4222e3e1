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

/*
 * Whose they are, for a sentence.  *pid: the session, if it is one alone; 0: it is not.
 */
char *
qml_holder_describe(const QmlHolders *holders, int *pid)
{
	StringInfoData text;

	*pid = 0;
	if (RecoveryInProgress())
		return pstrdup("an open transaction on the primary");
	initStringInfo(&text);
	for (int i = 0; i < holders->count; i++)
	{
		int process = BackendXidGetPid(holders->xids[i]);
		char *name = process == 0 ? find_prepared(holders->xids[i]) : NULL;

		if (i > 0)
			appendStringInfoString(&text, " and ");
		if (process != 0)
			appendStringInfo(&text, "the open transaction of pid %d", process);
		else if (name)
			appendStringInfo(&text, "the prepared transaction %s", qml_finding_quote(name));
		else
			appendStringInfoString(&text, "a transaction that has just ended");
		if (holders->count == 1)
			*pid = process;
	}
	return text.data;
}
