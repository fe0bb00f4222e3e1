/*
 * stats_notes.c
 *		What a transaction counts for the statistics of jobs.
 *
 * Whoever writes rows of jobs notes what becomes of them, by queue and method (common/note_list.c).
 * When the transaction has committed, the notes are added to the numbers in shared memory
 * (stats_store.c), before its client hears of it.
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
#include "common/note_list.h"
#include "compat.h"
#include "ipc/stats_notes.h"

#define MOST_NOTES QML_FAULT_LIMIT("stats.notes", 1024 * 1024)

/* Series that a session keeps, by the queue and some bytes of the method; a power of 2. */
#define KEPT 256

typedef struct Note
{
	SubTransactionId subxact;
	QmlStatNote note;
} Note;

typedef struct Kept
{
	QmlStatPlace place;
	int queue; /* 0: free */
	int length;
	uint32 version; /* of the memory: later there may be room for the series */
	char *method;
} Kept;

static uint64 missed = 0; /* events of the transaction, or of what of it was rolled back */

/* In TopMemoryContext, for the tables that qml.live is one of. */
static Kept *kept = NULL;
static Oid kept_live = InvalidOid;

/* Whether two notes differ at most in numbers. */
static bool
is_same(const void *note, const void *other)
{
	const QmlStatNote *a = &((const Note *) note)->note;
	const QmlStatNote *b = &((const Note *) other)->note;

	return a->place.number == b->place.number && a->place.generation == b->place.generation &&
		   a->counter == b->counter && a->histogram == b->histogram;
}

static void
add_numbers(void *note, const void *other)
{
	((Note *) note)->note.count += ((const Note *) other)->note.count;
	((Note *) note)->note.duration += ((const Note *) other)->note.duration;
}

static int
compare_int64(int64 a, int64 b)
{
	return a < b ? -1 : a > b;
}

static int
compare_notes(const void *note, const void *other)
{
	const QmlStatNote *a = &((const Note *) note)->note;
	const QmlStatNote *b = &((const Note *) other)->note;
	int order = compare_int64(a->place.number, b->place.number);

	if (order == 0)
		order = compare_int64(a->place.generation, b->place.generation);
	if (order == 0)
		order = a->counter - b->counter;
	if (order == 0)
		order = a->histogram - b->histogram;
	return order;
}

static const QmlNoteKind kind = {.size = sizeof(Note),
								 .part = 1,
								 .is_same = is_same,
								 .add = add_numbers,
								 .compare = compare_notes};
static Note few[QML_FEW_NOTES];
static QmlNoteList list = QML_NOTE_LIST(&kind, few);

static Note *
note_at(int i)
{
	return (Note *) list.notes + i;
}

/* ----- callbacks of transactions ----- */

static void
at_transaction_end(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	if (event == XACT_EVENT_COMMIT && list.count > 0)
	{
		if (list.count > 2)
			qml_note_list_join(&list);
		qml_stats_store_add(&note_at(0)->note, sizeof(Note), list.count);
	}
	if (event == XACT_EVENT_COMMIT && missed > 0)
		qml_stats_store_miss(missed);
	qml_note_list_forget(&list);
	missed = 0;
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	qml_note_list_end_subxact(&list, event, mine, parent);
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

static void
add(const QmlStatNote *counted)
{
	Note note = {.note = *counted};

	if (!qml_note_list_add(&list, &note, MOST_NOTES))
		missed += counted->count;
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
	if (list.count > 2)
		qml_note_list_join(&list);
	*others = missed;
	for (int i = 0; i < list.count; i++)
	{
		if (i < most)
			copies[i] = note_at(i)->note;
		else
			*others += note_at(i)->note.count;
	}
	return Min(list.count, most);
}
