/*
 * waiters.c
 *		Sessions that wait for a ready job, or for the end of one.
 *
 * A session that waits (jobs/wait.c) publishes in shared memory what it waits for, looks,
 * and sleeps on its latch.  A session that commits reads the entries and wakes others.  No
 * wake-up is lost: the first one publishes, or takes the last wake-up, and then looks; the
 * other one's commit is visible before it reads, with full barriers between.
 *
 * For n ready jobs of a queue and a method, n sessions are woken and no more: if all were,
 * all would fetch, and all but n get nothing.  What is made ready in one go is handed on: the
 * committing session wakes a few, and each of them its share of the rest.
 *
 * So a woken session answers for a job.  It may not be able to, and then the wake-up must
 * reach another one, or that one would sleep beside a ready job:
 *	 - It ends, is canceled, or its time is over: it passes the wake-up on, on its way out
 *	   (qml_waiters_end).
 *	 - It looks and finds nothing.  Mostly somebody else has fetched the job, and nothing is
 *	   left to do.  But the job may be one that only others may have: it waits for all
 *	   queues and may not work this one, or two names have the same hash.  Then it passes the
 *	   wake-up on, to each other session at most once.
 *	 - It finds the job and returns, and its client does not fetch, or has gone.  So on
 *	   return it makes another session the guard of such jobs, which looks after
 *	   GUARD_TIME whether one is still ready.  The guard passes its duty on like a wake-up.
 *	 - Its client fetches in this session, and gets no job of that queue: the wake-up is
 *	   passed on at once.
 *
 * Sessions that come later look before they sleep, so they need no wake-up for what is ready.
 *
 * Woken is the one that began to wait last, if that is less than WARM_TIME ago: its process is
 * still in the caches of the processor, and a fetch takes up to a third less time than in one
 * that has slept for long.  Where none is warm, it is the one that has waited longest.  What
 * that costs in fairness is bounded:
 *	 - A session is warm only if it has fetched since it waited before, and has ended all that
 *	   it fetched.  One that waits again while its jobs run elsewhere in its program, or that
 *	   leaves the fetch to another session, is woken in its turn.
 *	 - For TURN_TIME after a session was woken in its turn; when it waits again after that, it
 *	   is behind all others.
 * A session that waits again keeps its place, if its wait ended without a job, so that the length
 * of its timeout does not matter.
 *
 * Whoever commits wakes the last one that was warm, or looks through the signs of all
 * sessions, a few bytes each.  It asks the entries of those alone whom it wakes, or nearly so.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/proc.h"

#include "common/clock.h"
#include "ipc/waiters.h"

/* Sessions that a session wakes itself; these wake the others. */
#define WAKE_AT_ONCE 8

/* Milliseconds: how long a client has to fetch before another session looks. */
#define GUARD_TIME 200

/* Milliseconds: a session that has waited for so long is as cold as one can be. */
#define WARM_TIME 1000

/* So long ago those begin that are not warm; a clock that was read earlier makes them no warmer. */
#define COLD_TIME (WARM_TIME + 100)

/* Milliseconds: for so long a session may be woken before others that have waited longer. */
#define TURN_TIME 2000

/* Milliseconds: who waits again so soon keeps its place. */
#define PLACE_TIME 5000

/* Milliseconds: by no more the times of two sessions cross. */
#define SKEW_TIME 60000

/* Wake-ups that this session has taken, and that are not settled. */
static QmlWakeUp held[2];
static int nheld = 0;

/* The session was told of such a job, and has not fetched since. */
static bool told = false;
static QmlReadyJobs told_of;

/* Whether this session has fetched since it waited last. */
static bool has_fetched = false;

/*
 * Jobs that it has fetched and not ended.  One that it has lost, or whose fetch was rolled back,
 * counts on: then the session is woken in its turn, and that is never wrong.
 */
static int jobs_open = 0;

/* When its turn is over, monotonic and in milliseconds. */
static int64 turn_end = 0;

/*
 * Its place, which outlives a wait that ends without a job: since when it has waited, or 0, for
 * which names, and when the last wait ended.  Else one with short timeouts would stay behind one
 * with a long timeout for ever.
 */
static int64 waiting_since = 0;
static uint32 waiting_for = 0;
static int64 left_at = 0;

static int
my_number(void)
{
	int number = (int) (MyProc - ProcGlobal->allProcs);

	Assert(number < qml_shmem->nsessions);
	return number;
}

static QmlWaiter *
my_entry(void)
{
	return &qml_shmem->waiters[my_number()];
}

/* What others write and read without the mutex. */
static volatile QmlWaitSign *
sign_of(int number)
{
	return &qml_shmem->signs[number];
}

/* ----- what a session waits for ----- */

/* The bit of a hash in a set of them, as a word and a mask. */
#define WORD_OF(hash) ((hash) / 32 % QML_MAX_WAIT_NAMES)
#define MASK_OF(hash) (UINT32_C(1) << (hash) % 32)

static void
fill_names(QmlNames *names, const uint32 *hashes, int count)
{
	names->count = count;
	memset(names->hashes, 0, sizeof(names->hashes));
	for (int i = 0; i < count; i++)
	{
		if (count <= QML_MAX_WAIT_NAMES)
			names->hashes[i] = hashes[i];
		else
			names->hashes[WORD_OF(hashes[i])] |= MASK_OF(hashes[i]);
	}
}

/* Whether a set has a name, or seems to. */
static bool
has_name(const QmlNames *names, uint32 hash)
{
	if (names->count > QML_MAX_WAIT_NAMES)
		return (names->hashes[WORD_OF(hash)] & MASK_OF(hash)) != 0;
	for (int i = 0; i < names->count; i++)
	{
		if (names->hashes[i] == hash)
			return true;
	}
	return names->count == 0;
}

/* Whether a session waits for some jobs of the queue, or perhaps does. */
static bool
waits_in(int number, const QmlReadyJobs *ready)
{
	const QmlWaiter *waiter = &qml_shmem->waiters[number];

	return sign_of(number)->kind == QML_WAITS_READY && waiter->database == MyDatabaseId &&
		   has_name(&waiter->queues, ready->name);
}

/* Whether it waits for such jobs, or perhaps does. */
static bool
waits_for(int number, const QmlReadyJobs *ready)
{
	const QmlWaiter *waiter = &qml_shmem->waiters[number];

	return waits_in(number, ready) && has_name(&waiter->methods, ready->method) &&
		   !(ready->handled && waiter->methods.count == 0);
}

/* ----- signs ----- */

/* The bit beside those of queues. */
#define HAS_NO_WAKEUP (UINT32_C(1) << 31)

/* In signs: who waits for any queue of its database, or any method without a handler. */
#define ANY_QUEUE  0
#define ANY_METHOD UINT32_C(1)

static uint32
queue_sign(uint32 name)
{
	return UINT32_C(1) << hash_combine(murmurhash32(MyDatabaseId), name) % 31;
}

static uint32
method_sign(uint32 method)
{
	return UINT32_C(2) << method % 31;
}

/* What the signs of sessions have in common with those that wait for such jobs. */
typedef struct Wanted
{
	uint32 queues;
	uint32 methods;
} Wanted;

static Wanted
wanted_for(const QmlReadyJobs *ready)
{
	return (Wanted){.queues = queue_sign(ready->name) | queue_sign(ANY_QUEUE),
					.methods = method_sign(ready->method) | (ready->handled ? 0 : ANY_METHOD)};
}

/* Whether a session waits for such jobs, by its sign: it may be for others. */
static inline bool
seems_to_wait_for(int number, Wanted wanted)
{
	volatile const QmlWaitSign *sign = sign_of(number);

	return (sign->queues & wanted.queues) != 0 && (sign->methods & wanted.methods) != 0;
}

/* Whether others have woken a session that waits, and it has not noticed yet. */
static inline bool
is_woken(int number)
{
	return (sign_of(number)->queues & HAS_NO_WAKEUP) == 0;
}

/* ----- whom to wake ----- */

/*
 * The place of a session in the order in which they are woken, by a clock in milliseconds,
 * modulo 2^32: the warm ones, the last one first, then the others, the first one first.
 */
static uint32
rank_of(uint32 began, uint32 now)
{
	uint32 waited = now - began;

	/* It may have begun after this one read the clock. */
	if (waited > UINT32_MAX - SKEW_TIME)
		waited = 0;
	return waited < WARM_TIME ? waited + 1 : UINT32_MAX - waited;
}

/*
 * Fills `chosen` with the sessions but this one that seem to wait for such jobs and have no
 * wake-up, in the order in which they are to be woken: rank and number.  At most so many, of
 * those behind one; returns how many.  exact: asks their entries, too.
 */
static int
choose(const QmlReadyJobs *ready, uint32 now, uint64 behind, bool exact, uint64 *chosen, int most)
{
	const Wanted wanted = wanted_for(ready);
	const int nsessions = qml_shmem->nsessions;
	const int me = my_number();
	uint64 last = PG_UINT64_MAX; /* of the chosen ones, once there are so many */
	int count = 0;

	for (int number = 0; number < nsessions; number++)
	{
		volatile const QmlWaitSign *sign = sign_of(number);
		const uint32 queues = sign->queues;
		uint64 place;
		int i;

		if ((queues & wanted.queues) == 0 || (queues & HAS_NO_WAKEUP) == 0 ||
			(sign->methods & wanted.methods) == 0)
			continue;
		place = (uint64) rank_of(sign->began, now) << 32 | (uint32) number;
		if (place >= last || place <= behind || number == me)
			continue;
		if (exact && !waits_for(number, ready))
			continue;
		if (count < most)
			count++;
		for (i = count - 1; i > 0 && chosen[i - 1] > place; i--)
			chosen[i] = chosen[i - 1];
		chosen[i] = place;
		if (count == most)
			last = chosen[most - 1];
	}
	return count;
}

/* ----- waking ----- */

/* Leaves a wake-up for a session that waits for such jobs and has none. */
static bool
offer(int number, const QmlWakeUp *wakeup)
{
	QmlWaiter *waiter = &qml_shmem->waiters[number];
	bool accepted;

	/* Most do not wait for it. */
	if (is_woken(number) || !waits_for(number, &wakeup->ready))
		return false;
	SpinLockAcquire(&waiter->mutex);
	accepted = !is_woken(number) && waits_for(number, &wakeup->ready);
	if (accepted)
	{
		waiter->wakeup = *wakeup;
		if (wakeup->first < 0)
			waiter->wakeup.first = number;
		sign_of(number)->queues &= ~HAS_NO_WAKEUP;
	}
	SpinLockRelease(&waiter->mutex);
	if (accepted)
		SetLatch(&ProcGlobal->allProcs[number].procLatch);
	return accepted;
}

/*
 * Wakes the session that began to wait last, of those that were warm; false: it is not the one
 * to wake any more.  Mostly it is, and then nobody looks through all signs.
 */
static bool
wake_last_warm(const QmlReadyJobs *ready, uint32 clock)
{
	int number = (int) pg_atomic_read_u32(&qml_shmem->last_warm);
	QmlWakeUp wakeup = {.ready = *ready, .first = -1};

	Assert(ready->count == 1);
	return number != my_number() && seems_to_wait_for(number, wanted_for(ready)) &&
		   rank_of(sign_of(number)->began, clock) <= WARM_TIME && offer(number, &wakeup);
}

/* Wakes a session for each of the jobs, but not this one; or some, which then wake the others. */
static void
wake_for(const QmlReadyJobs *ready)
{
	int now = Min(ready->count, WAKE_AT_ONCE);
	int rest = ready->count - now;
	uint32 clock = (uint32) qml_clock_monotonic_ms();
	uint64 chosen[2 * WAKE_AT_ONCE];
	int most = 2 * now;
	int nchosen = most;
	int woken = 0;
	uint64 behind = 0;

	Assert(ready->count > 0);
	if (ready->count == 1 && wake_last_warm(ready, clock))
		return;
	/*
	 * So many seem to wait for it, and do not, where sessions wait for many names: those have
	 * most of the bits.  Then the second pass asks them all, so that a third one is rare.
	 */
	for (bool exact = false; nchosen == most && woken < now; exact = true)
	{
		nchosen = choose(ready, clock, behind, exact, chosen, most);
		for (int i = 0; i < nchosen && woken < now; i++)
		{
			QmlWakeUp wakeup = {.ready = *ready, .first = -1};

			wakeup.ready.count = 1 + rest / now + (woken < rest % now ? 1 : 0);
			if (offer((int) (uint32) chosen[i], &wakeup))
				woken++;
		}
		if (nchosen == most)
			behind = chosen[most - 1];
	}
}

/*
 * Another session gets a wake-up that this one has had: of those that have not had it, the
 * next one by number, so that it comes to its end at the first one.
 */
static void
pass_on(const QmlWakeUp *wakeup)
{
	Wanted wanted = wanted_for(&wakeup->ready);
	int number = my_number();

	if (wakeup->ready.count == 0)
		return;
	if (wakeup->first < 0)
	{
		wake_for(&wakeup->ready);
		return;
	}
	for (int i = 1; i < qml_shmem->nsessions; i++)
	{
		if (++number == qml_shmem->nsessions)
			number = 0;
		if (number == wakeup->first || (seems_to_wait_for(number, wanted) && offer(number, wakeup)))
			return;
	}
}

/* Wakes a session, whatever it waits for: it looks, and answers for nothing. */
static void
wake_to_look(int number)
{
	QmlWaiter *waiter = &qml_shmem->waiters[number];

	SpinLockAcquire(&waiter->mutex);
	if (!is_woken(number))
	{
		waiter->wakeup.ready.count = 0;
		sign_of(number)->queues &= ~HAS_NO_WAKEUP;
	}
	SpinLockRelease(&waiter->mutex);
	SetLatch(&ProcGlobal->allProcs[number].procLatch);
}

/* Jobs are finished: wakes those who wait for the end of one of them. */
static void
wake_for_end(const pg_uuid_t *finished, int nfinished)
{
	for (int number = 0; number < qml_shmem->nsessions; number++)
	{
		const QmlWaiter *waiter = &qml_shmem->waiters[number];

		if (sign_of(number)->kind != QML_WAITS_FINISHED || waiter->database != MyDatabaseId)
			continue;
		for (int i = 0; i < nfinished; i++)
		{
			if (memcmp(&waiter->job, &finished[i], sizeof(pg_uuid_t)) == 0)
			{
				wake_to_look(number);
				break;
			}
		}
	}
}

/* Anything may have happened: wakes all sessions of this database. */
void
qml_waiters_wake_all(void)
{
	pg_memory_barrier();
	if (pg_atomic_read_u32(&qml_shmem->nready) == 0 &&
		pg_atomic_read_u32(&qml_shmem->nfinished) == 0)
		return;
	for (int number = 0; number < qml_shmem->nsessions; number++)
	{
		if (sign_of(number)->kind != QML_WAITS_NOT &&
			qml_shmem->waiters[number].database == MyDatabaseId)
			wake_to_look(number);
	}
}

/* These jobs are ready, and these are finished. */
void
qml_waiters_wake(const QmlReadyJobs *ready, int nready, const pg_uuid_t *finished, int nfinished)
{
	pg_memory_barrier();
	if (pg_atomic_read_u32(&qml_shmem->nready) > 0)
	{
		for (int i = 0; i < nready; i++)
			wake_for(&ready[i]);
	}
	if (nfinished > 0 && pg_atomic_read_u32(&qml_shmem->nfinished) > 0)
		wake_for_end(finished, nfinished);
}

/* ----- guards ----- */

/* Tells one kind of ready jobs from others. */
static uint64
guard_key(const QmlReadyJobs *ready)
{
	return (uint64) ready->queue << 32 | ready->method;
}

/*
 * Another session that waits for such jobs is to look at this time, in milliseconds, whether
 * one is still ready.  One that is to do so already will be early enough.  If all who could
 * have other duties, one of them looks now.
 */
static void
set_guard(const QmlReadyJobs *ready, int64 at)
{
	uint64 key = guard_key(ready);
	Wanted wanted = wanted_for(ready);
	int me = my_number();
	/* From one place for each kind, so that a guard who is there is mostly the first one met. */
	int number = (int) (key % qml_shmem->nsessions);
	QmlWakeUp wakeup = {.ready = *ready, .first = -1};

	wakeup.ready.count = 1;
	for (int i = 0; i < qml_shmem->nsessions; i++)
	{
		QmlWaiter *waiter;
		bool is_guard = false;
		bool is_new = false;

		if (++number == qml_shmem->nsessions)
			number = 0;
		if (number == me || !seems_to_wait_for(number, wanted) || !waits_for(number, ready))
			continue;
		waiter = &qml_shmem->waiters[number];
		SpinLockAcquire(&waiter->mutex);
		if (waits_for(number, ready))
		{
			is_new = waiter->guard_at == 0;
			is_guard = is_new || guard_key(&waiter->guarded) == key;
		}
		if (is_new)
		{
			waiter->guarded = wakeup.ready;
			waiter->guard_at = at;
		}
		SpinLockRelease(&waiter->mutex);
		if (is_new)
			SetLatch(&ProcGlobal->allProcs[number].procLatch);
		if (is_guard)
			return;
	}
	pass_on(&wakeup);
}

/* ----- by a session that waits ----- */

/* The entry is filled; the session must look after this, and before it sleeps. */
static void
publish(const QmlWaitSign *sign)
{
	QmlWaiter *entry = my_entry();

	Assert(nheld == 0);
	Assert(sign_of(my_number())->kind == QML_WAITS_NOT);
	pg_atomic_fetch_add_u32(sign->kind == QML_WAITS_READY ? &qml_shmem->nready :
															&qml_shmem->nfinished,
							1);
	SpinLockAcquire(&entry->mutex);
	entry->database = MyDatabaseId;
	entry->guard_at = 0;
	*sign_of(my_number()) = *sign;
	SpinLockRelease(&entry->mutex);
	pg_memory_barrier();
}

/* Tells names from others. */
static uint32
hash_names(const uint32 *queues, int nqueues, const uint32 *methods, int nmethods)
{
	uint32 hash = hash_combine(murmurhash32((uint32) nqueues), (uint32) nmethods);

	for (int i = 0; i < nqueues; i++)
		hash = hash_combine(hash, queues[i]);
	for (int i = 0; i < nmethods; i++)
		hash = hash_combine(hash, methods[i]);
	return hash;
}

/* Since when this session, which begins to wait for such names, counts as waiting. */
static int64
take_place(int64 now, uint32 names, bool warm)
{
	if (names != waiting_for || now - left_at > PLACE_TIME)
		waiting_since = 0;
	waiting_for = names;
	if (waiting_since == 0)
		waiting_since = warm ? now : now - COLD_TIME;
	return warm ? now : Min(waiting_since, now - COLD_TIME);
}

/*
 * This session waits, until qml_waiters_end(), for a ready job of queues and methods of these
 * names, by hash; none: of any.
 */
void
qml_waiters_begin_ready(const uint32 *queues, int nqueues, const uint32 *methods, int nmethods)
{
	QmlWaiter *entry = my_entry();
	QmlWaitSign sign = {.kind = QML_WAITS_READY};
	int64 now = qml_clock_monotonic_ms();
	bool warm = has_fetched && jobs_open == 0 && now < turn_end;

	fill_names(&entry->queues, queues, nqueues);
	fill_names(&entry->methods, methods, nmethods);
	sign.began = (uint32) take_place(now, hash_names(queues, nqueues, methods, nmethods), warm);
	sign.queues = HAS_NO_WAKEUP | (nqueues == 0 ? queue_sign(ANY_QUEUE) : 0);
	for (int i = 0; i < nqueues; i++)
		sign.queues |= queue_sign(queues[i]);
	sign.methods = nmethods == 0 ? ANY_METHOD : 0;
	for (int i = 0; i < nmethods; i++)
		sign.methods |= method_sign(methods[i]);
	/* It looks again: what it was told before does not count. */
	told = false;
	has_fetched = false;
	publish(&sign);
	if (warm)
		pg_atomic_write_u32(&qml_shmem->last_warm, (uint32) my_number());
}

/* The same for the end of a job. */
void
qml_waiters_begin_finished(const pg_uuid_t *job)
{
	QmlWaitSign sign = {.kind = QML_WAITS_FINISHED, .queues = HAS_NO_WAKEUP};

	my_entry()->job = *job;
	publish(&sign);
}

/* The time, in milliseconds, at which this session is to look as a guard; else very late. */
int64
qml_waiters_next_look(void)
{
	QmlWaiter *entry = my_entry();
	int64 at;

	SpinLockAcquire(&entry->mutex);
	at = entry->guard_at;
	SpinLockRelease(&entry->mutex);
	return at == 0 ? PG_INT64_MAX : at;
}

static void
hold(const QmlWakeUp *wakeup)
{
	if (nheld < (int) lengthof(held))
		held[nheld++] = *wakeup;
	else
		pass_on(wakeup);
}

/*
 * Takes what others have left for this session, which then must look: true if there is
 * anything.  Wakes those that were left to it.
 */
bool
qml_waiters_take(int64 now)
{
	QmlWaiter *entry = my_entry();
	volatile QmlWaitSign *sign = sign_of(my_number());
	QmlWakeUp wakeup = {.ready = {.count = 0}};
	QmlWakeUp duty = {.ready = {.count = 0}, .first = -1};
	bool woken;
	bool is_due;

	SpinLockAcquire(&entry->mutex);
	woken = is_woken(my_number());
	if (woken)
		wakeup = entry->wakeup;
	sign->queues |= HAS_NO_WAKEUP;
	is_due = entry->guard_at != 0 && entry->guard_at <= now;
	if (is_due)
	{
		duty.ready = entry->guarded;
		entry->guard_at = 0;
	}
	SpinLockRelease(&entry->mutex);
	pg_memory_barrier();

	if (wakeup.ready.count > 0 && (uint32) now - sign->began >= WARM_TIME)
		turn_end = now + TURN_TIME;
	if (wakeup.ready.count > 1)
	{
		QmlReadyJobs others = wakeup.ready;

		others.count--;
		wakeup.ready.count = 1;
		wake_for(&others);
	}
	if (wakeup.ready.count > 0)
		hold(&wakeup);
	if (is_due)
		hold(&duty);
	return woken || is_due;
}

/* This session found a ready job, and returns to its client, which may fetch it or not. */
void
qml_waiters_found(int64 now)
{
	if (nheld > 0)
	{
		told = true;
		told_of = held[0].ready;
	}
	waiting_since = 0;
	while (nheld > 0)
		set_guard(&held[--nheld].ready, now + GUARD_TIME);
}

/* This session cannot use its turn: it goes behind all others. */
static void
leave_place(void)
{
	QmlWaiter *entry = my_entry();

	waiting_since = qml_clock_monotonic_ms() - COLD_TIME;
	SpinLockAcquire(&entry->mutex);
	sign_of(my_number())->began = (uint32) waiting_since;
	SpinLockRelease(&entry->mutex);
}

/*
 * This session found no ready job.  is_for_others: whether there is one of this kind, which
 * it must not have.
 */
void
qml_waiters_found_nothing(bool (*is_for_others)(const QmlReadyJobs *ready, void *arg), void *arg)
{
	while (nheld > 0)
	{
		/* It is held until it is passed on: looking may fail. */
		bool pass = is_for_others(&held[nheld - 1].ready, arg);

		nheld--;
		if (pass)
		{
			leave_place();
			pass_on(&held[nheld]);
		}
	}
}

/* This session no longer waits; it may not have waited.  Others get what it leaves. */
void
qml_waiters_end(void)
{
	QmlWaiter *entry = my_entry();
	volatile QmlWaitSign *sign = sign_of(my_number());
	QmlWaitKind kind = (QmlWaitKind) sign->kind;
	QmlWakeUp wakeup = {.ready = {.count = 0}};
	QmlReadyJobs guarded = {.count = 0};
	int64 guard_at;

	if (kind == QML_WAITS_NOT)
		return;
	if (kind == QML_WAITS_READY)
		left_at = qml_clock_monotonic_ms();
	SpinLockAcquire(&entry->mutex);
	if (is_woken(my_number()))
		wakeup = entry->wakeup;
	sign->kind = QML_WAITS_NOT;
	sign->queues = 0;
	guard_at = entry->guard_at;
	if (guard_at != 0)
		guarded = entry->guarded;
	SpinLockRelease(&entry->mutex);
	pg_atomic_fetch_sub_u32(kind == QML_WAITS_READY ? &qml_shmem->nready : &qml_shmem->nfinished,
							1);
	pg_memory_barrier();

	while (nheld > 0)
	{
		QmlWakeUp unsettled = held[--nheld];

		unsettled.first = -1;
		pass_on(&unsettled);
	}
	wakeup.first = -1;
	pass_on(&wakeup);
	if (guard_at != 0)
		set_guard(&guarded, guard_at);
}

/* ----- by a session that fetches ----- */

/* A job of this queue was claimed. */
void
qml_waiters_claimed(int queue)
{
	has_fetched = true;
	jobs_open++;
	waiting_since = 0;
	if (told && told_of.queue == queue)
		told = false;
}

/* The attempt of a job has ended, by the word of its worker. */
void
qml_waiters_ended(void)
{
	if (jobs_open > 0)
		jobs_open--;
}

/* All is claimed: if a job that this session was told of is not among it, others hear of it. */
void
qml_waiters_fetched(void)
{
	QmlWakeUp wakeup = {.first = -1};

	if (!told)
		return;
	told = false;
	wakeup.ready = told_of;
	pass_on(&wakeup);
}

/* ----- by whoever explains why a job does not run ----- */

/* Whether a session waits for such jobs, or seems to; any_method: whatever their methods are. */
bool
qml_waiters_expect(const QmlReadyJobs *ready, bool any_method)
{
	const int nsessions = qml_shmem->nsessions;
	bool found = false;

	for (int number = 0; !found && number < nsessions; number++)
	{
		if (sign_of(number)->kind != QML_WAITS_READY)
			continue;
		SpinLockAcquire(&qml_shmem->waiters[number].mutex);
		found = waits_for(number, ready) || (any_method && waits_in(number, ready) &&
											 qml_shmem->waiters[number].methods.count > 0);
		SpinLockRelease(&qml_shmem->waiters[number].mutex);
	}
	return found;
}
