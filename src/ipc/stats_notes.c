/*
 * stats_notes.c
 *		What a transaction counts for the statistics of jobs.
 *
 * Whoever writes rows of jobs notes what becomes of them, by queue and method.  Equal notes are one.
 * What a subtransaction noted is forgotten when that is rolled back.  When the transaction has
 * committed, the notes are added to the numbers in shared memory (stats_store.c), before its client
 * hears of it.
 *
 * Notes are in the order of the subtransactions that they belong to, the innermost last.  When a
 * subtransaction is committed into its parent, its notes become those of the parent.
 *
 * A note names its series by the place in shared memory, which each session keeps for the queues
 * and methods that it has met last.
 *
 * The notes of a prepared transaction are kept by prepared.c.
 *
 * At and after the commit, nothing may raise an error: memory is reserved when something is noted.
 * There is room for as many notes as jobs of all series differ; if it is not enough all the same,
 * what finds none is counted as missed.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/memutils.h"

#include "common/fault.h"
#include "ipc/stats_notes.h"

/* Without an allocation; before they are put in order, so that equal ones meet; and at most. */
#define FEW_NOTES  16
#define SOME_NOTES 1024
#define MOST_NOTES QML_FAULT_LIMIT("stats.notes", 1024 * 1024)

/* So many of the last notes are looked at for one that is the same. */
#define LOOK_BACK 6

/* Series that a session keeps, by the queue and some bytes of the method; a power of 2. */
#define KEPT 256

typedef struct Note
{
	QmlStatNote note;
	SubTransactionId subxact;
} Note;

typedef struct Kept
{
	QmlStatPlace place;
	int queue; /* 0: free */
	int length;
	uint32 version; /* of the memory: later there may be room for the series */
	char *method;
} Kept;

static Note few[FEW_NOTES];
static Note *notes = few; /* or in TopTransactionContext */
static int nnotes = 0;
static int room = FEW_NOTES;
static uint64 missed = 0; /* events of the transaction, or of what of it was rolled back */

/* In TopMemoryContext, for the tables that qml.live is one of. */
static Kept *kept = NULL;
static Oid kept_live = InvalidOid;

static void
forget_notes(void)
{
	notes = few;
	room = FEW_NOTES;
	nnotes = 0;
	missed = 0;
}

/* Whether two notes differ at most in numbers. */
static bool
is_same(const QmlStatNote *a, const QmlStatNote *b)
{
	return a->place.number == b->place.number && a->place.generation == b->place.generation &&
		   a->counter == b->counter && a->histogram == b->histogram;
}

/* Adds to one of the last notes from `first` on; false: none is the same. */
static bool
add_to_last(const QmlStatNote *note, int first, int end)
{
	first = Max(first, end - LOOK_BACK);
	for (int i = end - 1; i >= first; i--)
	{
		if (is_same(&notes[i].note, note))
		{
			notes[i].note.count += note->count;
			notes[i].note.duration += note->duration;
			return true;
		}
	}
	return false;
}

static int
compare_int64(int64 a, int64 b)
{
	return a < b ? -1 : a > b;
}

/* By subtransaction, and then so that the same ones are neighbours. */
static int
compare_notes(const void *a, const void *b)
{
	const Note *one = a;
	const Note *other = b;
	int order = compare_int64(one->subxact, other->subxact);

	if (order == 0)
		order = compare_int64(one->note.place.number, other->note.place.number);
	if (order == 0)
		order = compare_int64(one->note.place.generation, other->note.place.generation);
	if (order == 0)
		order = one->note.counter - other->note.counter;
	if (order == 0)
		order = one->note.histogram - other->note.histogram;
	return order;
}

/* Makes one note of those that are the same. */
static void
join_notes(void)
{
	int last = 0;

	if (nnotes < 2)
		return;
	qsort(notes, nnotes, sizeof(Note), compare_notes);
	for (int i = 1; i < nnotes; i++)
	{
		if (notes[i].subxact == notes[last].subxact && is_same(&notes[i].note, &notes[last].note))
		{
			notes[last].note.count += notes[i].note.count;
			notes[last].note.duration += notes[i].note.duration;
		}
		else
			notes[++last] = notes[i];
	}
	nnotes = last + 1;
}

/* ----- callbacks of transactions ----- */

static void
at_transaction_end(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	if (event == XACT_EVENT_COMMIT && nnotes > 0)
	{
		if (nnotes > 2)
			join_notes();
		qml_stats_store_add(&notes[0].note, sizeof(Note), nnotes);
	}
	if (event == XACT_EVENT_COMMIT && missed > 0)
		qml_stats_store_miss(missed);
	/* Also if there are none any more: the memory of those that were rolled back is gone. */
	forget_notes();
}

/* The notes of a subtransaction, and of its own ones, which have ids above its own. */
static int
first_of(SubTransactionId mine)
{
	int first = nnotes;

	while (first > 0 && notes[first - 1].subxact >= mine)
		first--;
	return first;
}

/* They become those of the parent, and are added to its own where these are the same. */
static void
hand_up(SubTransactionId mine, SubTransactionId parent)
{
	int first = first_of(mine);
	int end = nnotes;
	int parents = first;

	while (parents > 0 && notes[parents - 1].subxact >= parent && parents > first - LOOK_BACK)
		parents--;
	nnotes = first;
	for (int i = first; i < end; i++)
	{
		Note note = notes[i];

		if (add_to_last(&note.note, parents, nnotes))
			continue;
		note.subxact = parent;
		notes[nnotes++] = note;
	}
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	if (nnotes == 0)
		return;
	if (event == SUBXACT_EVENT_ABORT_SUB)
		nnotes = first_of(mine);
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
		hand_up(mine, parent);
}

/* Called while the server loads its preloaded libraries: otherwise nothing is counted. */
void
qml_stats_notes_init(void)
{
	RegisterXactCallback(at_transaction_end, NULL);
	RegisterSubXactCallback(at_subtransaction_end, NULL);
}

/* ----- series ----- */

/* The tables are those of another installation of the extension. */
static void
forget_kept(Oid live)
{
	if (kept == NULL)
		kept = MemoryContextAllocZero(TopMemoryContext, sizeof(Kept) * KEPT);
	for (int i = 0; i < KEPT; i++)
		kept[i].queue = 0;
	kept_live = live;
}

/* Where the series of a queue and a method is kept. */
static Kept *
kept_place(int queue, const char *method, int length)
{
	uint32 hash = (uint32) queue * 31 + (uint32) length;

	/* Methods differ at their ends, if they do not everywhere. */
	for (int i = Max(length - 4, 0); i < length; i++)
		hash = hash * 31 + (unsigned char) method[i];
	if (length > 4)
		hash = hash * 31 + (unsigned char) method[length / 2];
	return &kept[(hash ^ (hash >> 8)) & (KEPT - 1)];
}

/* Looks the series up, and keeps it. */
static void
keep(Oid live, Kept *entry, int queue, const char *method, int length)
{
	uint32 version = qml_stats_store_version();

	entry->queue = 0;
	if (entry->method == NULL || entry->length < length)
	{
		char *copy = MemoryContextAlloc(TopMemoryContext, Max(length, 1));

		if (entry->method)
			pfree(entry->method);
		entry->method = copy;
	}
	memcpy(entry->method, method, length);
	entry->place = qml_stats_store_find(live, queue, method, length);
	entry->version = version;
	entry->length = length;
	entry->queue = queue;
}

static QmlStatPlace
find_series(Oid live, int queue, Datum method)
{
	text *name = DatumGetTextPP(method);
	const char *bytes = VARDATA_ANY(name);
	int length = (int) VARSIZE_ANY_EXHDR(name);
	Kept *entry;

	if (kept_live != live || kept == NULL)
		forget_kept(live);
	entry = kept_place(queue, bytes, length);
	if (entry->queue != queue || entry->length != length ||
		memcmp(entry->method, bytes, length) != 0 || entry->version != qml_stats_store_version() ||
		!qml_stats_store_is(entry->place))
		keep(live, entry, queue, bytes, length);
	return entry->place;
}

/* ----- noting ----- */

/* Makes room for one more note; false: there is none. */
static bool
grow_notes(void)
{
	int wanted = Min(room * 4, MOST_NOTES);
	Note *more;

	if (nnotes >= SOME_NOTES || wanted == room)
		join_notes();
	if (nnotes < room / 2)
		return true;
	if (wanted <= room)
		return nnotes < room;
	more = MemoryContextAllocHuge(TopTransactionContext, sizeof(Note) * wanted);
	memcpy(more, notes, sizeof(Note) * nnotes);
	if (notes != few)
		pfree(notes);
	notes = more;
	room = wanted;
	return true;
}

static void
add(const QmlStatNote *note)
{
	SubTransactionId mine = GetCurrentSubTransactionId();
	int first = nnotes;

	while (first > 0 && first > nnotes - LOOK_BACK && notes[first - 1].subxact >= mine)
		first--;
	if (add_to_last(note, first, nnotes))
		return;
	if (nnotes == room && !grow_notes())
	{
		missed += note->count;
		return;
	}
	notes[nnotes].note = *note;
	notes[nnotes++].subxact = mine;
}

/* Whether anything is counted. */
bool
qml_stats_notes_wanted(void)
{
	return qml_stats_store_exists();
}

/* So many jobs of a queue and method are counted, if the transaction commits. */
void
qml_stats_notes_count(Oid live, int queue, Datum method, int counter, int count)
{
	QmlStatNote note = {.place = find_series(live, queue, method),
						.count = (uint32) count,
						.counter = (int16) counter,
						.histogram = QML_STAT_NO_HISTOGRAM};

	Assert(IsTransactionState());
	add(&note);
}

/* A job has waited so long before it was started, or (ran) has run; counter: as well. */
void
qml_stats_notes_time(Oid live, int queue, Datum method, int counter, bool ran, int64 duration)
{
	int bin = qml_histogram_bin(duration);
	QmlStatNote note = {.place = find_series(live, queue, method),
						.count = 1,
						.counter = (int16) counter,
						.histogram = (int16) (ran ? QML_STAT_RUN(bin) : QML_STAT_WAIT(bin)),
						.duration = (uint64) Max(duration, 0)};

	Assert(IsTransactionState());
	add(&note);
}

/*
 * The notes of a transaction that is being prepared, and how many events are in none of them.  This
 * must not raise an error.
 */
int
qml_stats_notes_copy(QmlStatNote *copies, int most, uint64 *others)
{
	if (nnotes > 2)
		join_notes();
	*others = missed;
	for (int i = 0; i < nnotes; i++)
	{
		if (i < most)
			copies[i] = notes[i].note;
		else
			*others += notes[i].note.count;
	}
	return Min(nnotes, most);
}
