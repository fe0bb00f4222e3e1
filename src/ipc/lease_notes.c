/*
 * lease_notes.c
 *		What a transaction does to claims, for the table of leases (lease_table.c).
 *
 * Claims that begin, leases that get another end and attempts that end are noted, and written
 * into the table just before the transaction commits.  It has the rows of these jobs until it
 * has committed, so several transactions write about one job in the order in which they
 * changed its row.  The claims of attempts that end are taken out of the table when the commit can
 * be seen, which may take long: the disk, or a standby, is waited for.  What a subtransaction noted
 * is forgotten when that is rolled back.
 *
 * - If the commit fails after that, the claims are looked at at once: their rows say what
 *   counts.
 * - If it is prepared, it may be committed or rolled back by anybody: its claims are looked
 *   at when what they were before or what they will be is over, and one whose attempt it
 *   ends stays in the table.
 * - If the table has no room, or the transaction wrote rows by SQL, the database is not known
 *   any more: said after the commit, when the rows can be seen.
 *
 * A transaction that claims more than MAX_NOTES jobs is one that found no room.  That an
 * attempt has ended may be forgotten: its entry is dropped when it is looked at.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "common/fault.h"
#include "ipc/databases.h"
#include "ipc/due.h"
#include "ipc/lease_notes.h"
#include "qml.h"

/* Without an allocation, and at most. */
#define FEW_NOTES 16
#define MAX_NOTES QML_FAULT_LIMIT("leases.notes", 65536)

typedef struct LeaseNote
{
	QmlLease lease;
	bool ends; /* the attempt has ended; otherwise the claim is as `lease` says */
	SubTransactionId subxact;
} LeaseNote;

static LeaseNote few[FEW_NOTES];
static LeaseNote *notes = few; /* or in TopTransactionContext */
static int nnotes = 0;
static int size = FEW_NOTES;
static int nwritten = 0;	/* of them into the table */
static bool missed = false; /* something will be missing in the table */

static void
forget_notes(void)
{
	notes = few;
	size = FEW_NOTES;
	nnotes = 0;
	nwritten = 0;
	missed = false;
}

/* Whether a claim begins and ends in the transaction, as the next note says: nobody sees it. */
static bool
ends_at_once(int at)
{
	const LeaseNote *next = &notes[at + 1];

	return at + 1 < nnotes && next->ends && next->lease.attempt == notes[at].lease.attempt &&
		   memcmp(&next->lease.job, &notes[at].lease.job, sizeof(pg_uuid_t)) == 0;
}

/* The transaction commits, if nothing fails any more. */
static void
write_notes(void)
{
	/* A database that has no entry is not known; it may get one before this has committed. */
	if (qml_databases_find_own() == NULL)
	{
		missed = true;
		return;
	}
	for (; nwritten < nnotes; nwritten++)
	{
		const LeaseNote *note = &notes[nwritten];

		if (note->ends)
			qml_lease_table_note_end(&note->lease.job, note->lease.attempt);
		else if (!ends_at_once(nwritten) && !qml_lease_table_set(&note->lease))
			missed = true;
	}
}

/* It has committed, and can be seen. */
static void
remove_ended(void)
{
	for (int i = 0; i < nwritten; i++)
	{
		if (notes[i].ends)
			qml_lease_table_remove(&notes[i].lease.job, notes[i].lease.attempt);
	}
}

/* The transaction is prepared, if nothing fails any more. */
static void
write_prepared(void)
{
	if (qml_databases_find_own() == NULL)
		missed = true;
	for (int i = 0; i < nnotes && !missed; i++)
	{
		if (!notes[i].ends && !qml_lease_table_set_sooner(&notes[i].lease))
			missed = true;
	}
}

/* The commit has failed, but some of it is in the table already. */
static void
doubt_written(void)
{
	for (int i = 0; i < nwritten; i++)
	{
		QmlLease lease = notes[i].lease;

		if (notes[i].ends || ends_at_once(i))
			continue;
		lease.bound = false;
		lease.end = QML_NO_TIME;
		if (!qml_lease_table_set_sooner(&lease))
			qml_lease_table_miss();
	}
	if (nwritten > 0)
		qml_due_now(QML_WAKE_LEASE);
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			if (nnotes > 0)
				write_notes();
			break;
		case XACT_EVENT_PRE_PREPARE:
			if (nnotes > 0)
				write_prepared();
			break;
		case XACT_EVENT_COMMIT:
			remove_ended();
			/* Something that runs at the commit may have noted more. */
			if (missed || nwritten < nnotes)
				qml_lease_table_miss();
			forget_notes();
			break;
		case XACT_EVENT_PREPARE:
			if (missed)
				qml_lease_table_miss_prepared();
			forget_notes();
			break;
		case XACT_EVENT_ABORT:
			doubt_written();
			forget_notes();
			break;
		default:
			break;
	}
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	if (event != SUBXACT_EVENT_ABORT_SUB)
		return;
	/* Its own subtransactions have ids above its own, and end with it. */
	while (nnotes > 0 && notes[nnotes - 1].subxact >= mine)
		nnotes--;
	Assert(nwritten <= nnotes);
}

/* Called while the server loads its preloaded libraries: otherwise there is no table. */
void
qml_lease_notes_init(void)
{
	RegisterXactCallback(at_transaction_end, NULL);
	RegisterSubXactCallback(at_subtransaction_end, NULL);
}

/* Makes room for more notes; false: there are too many. */
static bool
grow_notes(void)
{
	int wanted = Min(size * 4, MAX_NOTES);
	LeaseNote *more;

	if (wanted <= size)
		return false;
	more = MemoryContextAlloc(TopTransactionContext, sizeof(LeaseNote) * wanted);
	memcpy(more, notes, sizeof(LeaseNote) * nnotes);
	notes = more;
	size = wanted;
	return true;
}

static LeaseNote *
add_note(void)
{
	LeaseNote *note;

	Assert(IsTransactionState());
	if (nnotes == size && !grow_notes())
		return NULL;
	note = &notes[nnotes++];
	note->subxact = GetCurrentSubTransactionId();
	return note;
}

/* A claim begins, or its lease gets another end, if the transaction commits. */
void
qml_lease_notes_claim(const QmlLease *lease)
{
	LeaseNote *note;

	if (qml_shmem == NULL)
		return;
	note = add_note();
	if (note)
	{
		note->lease = *lease;
		note->ends = false;
	}
	else
		missed = true;
}

/* An attempt ends, if the transaction commits. */
void
qml_lease_notes_end(const pg_uuid_t *job, int attempt)
{
	LeaseNote *note;

	if (qml_shmem == NULL)
		return;
	note = add_note();
	if (note == NULL)
		return;
	memset(&note->lease, 0, sizeof(note->lease));
	note->lease.job = *job;
	note->lease.attempt = attempt;
	note->ends = true;
}

/* The transaction has written rows of qml.live by SQL: nobody has noted what. */
void
qml_lease_notes_unknown(void)
{
	if (qml_shmem)
		missed = true;
}

/* Whether the transaction has done anything to claims that is not in the table yet. */
bool
qml_lease_notes_exist(void)
{
	return nnotes > 0 || missed;
}
