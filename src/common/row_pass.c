/*
 * row_pass.c
 *		Passes over rows, some of which may be broken.
 *
 * A row that cannot be changed (somebody edited it by hand, its queue is missing)
 * must not hide the rows behind it, and looking for it must not slow down the
 * usual case, in which there is none.  So a pass is one subtransaction for all
 * rows.  Only if that fails is it undone, and the rows are walked over again, now
 * with a subtransaction for each: those that fail again are left out.
 *
 * Errors that do not lie in the data (cancellation, lack of resources, a deadlock:
 * see subxact.c) end the pass at once; the caller's transaction undoes all of it.
 * Nothing is committed here, so a crash leaves every row as it was.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "common/row_pass.h"

/* A row in a subtransaction of its own. */
typedef struct RowAlone
{
	QmlRowPass *pass;
	ItemPointerData tid;
	bool changed;
} RowAlone;

/* Goes over all rows. */
void
qml_row_pass_run(QmlRowPass *pass)
{
	QmlFailure failure;

	Assert(IsTransactionState());
	Assert(pass->walk && pass->change && pass->change_alone && pass->failed);
	pass->row_context = AllocSetContextCreate(CurrentMemoryContext, "qml row",
											  ALLOCSET_DEFAULT_SIZES);
	pass->row_by_row = false;
	if (!qml_subxact_run(pass->walk, pass->arg, &failure))
	{
		MemoryContextReset(pass->row_context);
		pass->row_by_row = true;
		pass->walk(pass->arg);
	}
	MemoryContextDelete(pass->row_context);
}

/* Work of qml_subxact_run(). */
static void
change_row_alone(void *arg)
{
	RowAlone *row = arg;

	row->changed = row->pass->change_alone(row->pass->arg, &row->tid);
}

/*
 * Changes one row; slot holds it as the walk has read it.  False: it was left as it
 * is, because somebody else is changing it or because it failed.
 */
bool
qml_row_pass_visit(QmlRowPass *pass, TupleTableSlot *slot)
{
	MemoryContext oldcontext;
	bool changed;

	CHECK_FOR_INTERRUPTS();
	Assert(!TTS_EMPTY(slot) && ItemPointerIsValid(&slot->tts_tid));
	oldcontext = MemoryContextSwitchTo(pass->row_context);
	if (!pass->row_by_row)
		changed = pass->change(pass->arg);
	else
	{
		/* A copy of the tid: the slot may be read further meanwhile. */
		RowAlone row = {.pass = pass, .tid = slot->tts_tid, .changed = false};
		QmlFailure failure;

		if (!qml_subxact_run(change_row_alone, &row, &failure))
		{
			row.changed = false;
			pass->failed(pass->arg, slot, &failure);
		}
		changed = row.changed;
	}
	MemoryContextSwitchTo(oldcontext);
	MemoryContextReset(pass->row_context);
	return changed;
}
