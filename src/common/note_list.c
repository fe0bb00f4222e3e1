/*
 * note_list.c
 *		What a transaction notes for the end of it, by subtransaction.
 *
 * Notes that are the same are one.  What a subtransaction noted is forgotten when that is rolled
 * back.  Notes are in the order of the subtransactions that they belong to, the innermost last.
 * When a subtransaction is committed into its parent, its notes become those of the parent.
 *
 * Memory is reserved when something is noted, so that nothing else raises an error: the owner of a
 * list uses it at and after the commit.  He calls qml_note_list_forget() at the end of each
 * transaction, also if there are no notes: the memory of those that were rolled back is gone.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "common/note_list.h"

/* So many notes are put in order, so that equal ones meet, before there is room for more. */
#define SOME_NOTES 1024

/* So many of the last notes are looked at for one that is the same. */
#define LOOK_BACK 6

static void *
note_at(const QmlNoteList *list, int i)
{
	return list->notes + list->kind->size * i;
}

static SubTransactionId
subxact_at(const QmlNoteList *list, int i)
{
	return *(SubTransactionId *) note_at(list, i);
}

/* Adds to one of the last notes from `first` on; false: none is the same. */
static bool
add_to_last(QmlNoteList *list, const void *note, int first)
{
	const QmlNoteKind *kind = list->kind;

	first = Max(first, list->count - LOOK_BACK);
	for (int i = list->count - 1; i >= first; i--)
	{
		if (kind->is_same(note_at(list, i), note))
		{
			kind->add(note_at(list, i), note);
			return true;
		}
	}
	return false;
}

/* By subtransaction, and then so that the same ones are neighbours. */
static int
compare_notes(const void *a, const void *b, void *arg)
{
	const QmlNoteKind *kind = arg;
	SubTransactionId one = *(const SubTransactionId *) a;
	SubTransactionId other = *(const SubTransactionId *) b;

	if (one != other)
		return one < other ? -1 : 1;
	return kind->compare(a, b);
}

/* Makes one note of those that are the same. */
void
qml_note_list_join(QmlNoteList *list)
{
	const QmlNoteKind *kind = list->kind;
	int last = 0;

	if (list->count < 2)
		return;
	qsort_arg(list->notes, list->count, kind->size, compare_notes, unconstify(QmlNoteKind *, kind));
	for (int i = 1; i < list->count; i++)
	{
		if (subxact_at(list, i) == subxact_at(list, last) &&
			kind->is_same(note_at(list, i), note_at(list, last)))
			kind->add(note_at(list, last), note_at(list, i));
		else if (++last != i)
			memcpy(note_at(list, last), note_at(list, i), kind->size);
	}
	list->count = last + 1;
}

/* The transaction is over. */
void
qml_note_list_forget(QmlNoteList *list)
{
	list->notes = list->few;
	list->room = QML_FEW_NOTES;
	list->count = 0;
}

/* The notes of a subtransaction, and of its own ones, which have ids above its own. */
static int
first_of(const QmlNoteList *list, SubTransactionId mine)
{
	int first = list->count;

	while (first > 0 && subxact_at(list, first - 1) >= mine)
		first--;
	return first;
}

/* They become those of the parent, and are added to its own where these are the same. */
static void
hand_up(QmlNoteList *list, SubTransactionId mine, SubTransactionId parent)
{
	int first = first_of(list, mine);
	int end = list->count;
	int parents = first;

	while (parents > 0 && subxact_at(list, parents - 1) >= parent && parents > first - LOOK_BACK)
		parents--;
	list->count = first;
	for (int i = first; i < end; i++)
	{
		if (add_to_last(list, note_at(list, i), parents))
			continue;
		if (list->count != i)
			memcpy(note_at(list, list->count), note_at(list, i), list->kind->size);
		*(SubTransactionId *) note_at(list, list->count++) = parent;
	}
}

/* For the owner's SubXactCallback. */
void
qml_note_list_end_subxact(QmlNoteList *list, SubXactEvent event, SubTransactionId mine,
						  SubTransactionId parent)
{
	if (list->count == 0)
		return;
	if (event == SUBXACT_EVENT_ABORT_SUB)
		list->count = first_of(list, mine);
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
		hand_up(list, mine, parent);
}

/* Makes room for one more note; false: there is none. */
static bool
grow(QmlNoteList *list, int most)
{
	int wanted = Min(list->room * 4, most);
	char *more;

	if (list->count >= SOME_NOTES || wanted == list->room)
		qml_note_list_join(list);
	if (list->count < list->room / 2)
		return true;
	if (wanted <= list->room)
		return list->count < list->room / list->kind->part;
	more = MemoryContextAllocHuge(TopTransactionContext, list->kind->size * wanted);
	memcpy(more, list->notes, list->kind->size * list->count);
	if (list->notes != list->few)
		pfree(list->notes);
	list->notes = more;
	list->room = wanted;
	return true;
}

/* Notes something for the current subtransaction; false: there are `most` notes already. */
bool
qml_note_list_add(QmlNoteList *list, void *note, int most)
{
	SubTransactionId mine = GetCurrentSubTransactionId();
	int first = list->count;

	while (first > 0 && first > list->count - LOOK_BACK && subxact_at(list, first - 1) >= mine)
		first--;
	if (add_to_last(list, note, first))
		return true;
	if (list->count == list->room && !grow(list, most))
		return false;
	*(SubTransactionId *) note = mine;
	memcpy(note_at(list, list->count++), note, list->kind->size);
	return true;
}
