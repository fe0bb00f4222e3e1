/*
 * beats.c
 *		Heartbeats that could not be written into their job's row.
 *
 * Another transaction may have the row for long, such as one that reports progress
 * and goes on.  A heartbeat must not wait for it: the worker's other jobs would lose their
 * leases meanwhile.  So it leaves the new end of the lease here, by database, job and
 * attempt, and a lease ends at the later of the two ends: that in the row, and the one
 * here.  Both are asked for by reclaim, by views, and by the next heartbeat.
 *
 * An entry means nothing once its time is over or its attempt has ended, because no number
 * of an attempt is given twice.  Its place is free when its time is over, or when the
 * transaction that ended the attempt commits (but not if it was prepared).  It is not part of a
 * transaction: a heartbeat that is rolled back has extended the lease all the same.  A crash of
 * the server clears the table: the end in the row counts then, also if a prepared transaction,
 * which a crash does not end, still has the row.
 *
 * An end that is promised here is kept.  Reclaim takes a job whose lease is over by its
 * clock, and asks here after it has read the clock.  A heartbeat first shows that there is
 * something to ask for, then reads the clock under the lock, and promises an end only if the
 * lease is not over.  So if reclaim does not find it, reclaim asked before the heartbeat
 * read the clock: the lease was over by then, and the heartbeat promises nothing.
 *
 * The table is an array of buckets, so that each access looks at few entries; a full
 * bucket takes no more, and the heartbeat is told so.
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"

#include "ipc/beats.h"

static QmlBeat *
bucket_of(const pg_uuid_t *job)
{
	uint32 hash = hash_bytes(job->data, UUID_LEN) ^ (uint32) MyDatabaseId;

	return qml_shmem->beats[hash % QML_BEAT_BUCKETS];
}

/* The entry of an attempt; NULL: there is none. */
static QmlBeat *
find_beat(QmlBeat *bucket, const pg_uuid_t *job, int attempt)
{
	Assert(LWLockHeldByMe(qml_shmem->lock));
	for (int i = 0; i < QML_BUCKET_BEATS; i++)
	{
		QmlBeat *beat = &bucket[i];

		if (beat->database == MyDatabaseId && beat->attempt == attempt &&
			memcmp(&beat->job, job, sizeof(pg_uuid_t)) == 0)
			return beat;
	}
	return NULL;
}

/* An entry that may be used for something else; NULL: there is none. */
static QmlBeat *
find_free(QmlBeat *bucket, TimestampTz now)
{
	for (int i = 0; i < QML_BUCKET_BEATS; i++)
	{
		if (bucket[i].end <= now)
			return &bucket[i];
	}
	return NULL;
}

/*
 * Keeps the end of a lease, whose end in the row is row_end, and makes *end the one that
 * counts.  False: nothing is promised, because qml is not preloaded, the table is full, or
 * the lease was over, so that the job may be lost already.
 */
bool
qml_beats_keep(const pg_uuid_t *job, int attempt, TimestampTz row_end, TimestampTz *end)
{
	QmlBeat *bucket;
	QmlBeat *beat;
	TimestampTz now;
	bool in_time;
	bool kept; /* also if it ends later anyway */

	if (qml_shmem == NULL)
		return false;
	bucket = bucket_of(job);
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	if (*end > (TimestampTz) pg_atomic_read_u64(&qml_shmem->last_beat_end))
		pg_atomic_write_u64(&qml_shmem->last_beat_end, (uint64) *end);
	pg_memory_barrier();
	now = GetCurrentTimestamp();
	beat = find_beat(bucket, job, attempt);
	if (beat)
		row_end = Max(row_end, beat->end);
	in_time = now < row_end;
	kept = *end <= row_end;
	if (kept)
		*end = row_end;
	else
	{
		if (beat == NULL && (beat = find_free(bucket, now)) != NULL)
		{
			beat->database = MyDatabaseId;
			beat->job = *job;
			beat->attempt = attempt;
		}
		kept = beat != NULL;
		if (kept)
			beat->end = *end;
	}
	LWLockRelease(qml_shmem->lock);
	return kept && in_time;
}

/* Whether there may be entries whose time is not over. */
bool
qml_beats_exist(void)
{
	/* The time of the statement needs no system call, and may be too early. */
	return qml_shmem != NULL && (TimestampTz) pg_atomic_read_u64(&qml_shmem->last_beat_end) >
									GetCurrentStatementStartTimestamp();
}

/* The attempt has ended for good: its place is free.  Runs after the commit. */
void
qml_beats_forget(const pg_uuid_t *job, int attempt)
{
	QmlBeat *beat;

	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	beat = find_beat(bucket_of(job), job, attempt);
	if (beat)
		memset(beat, 0, sizeof(*beat));
	LWLockRelease(qml_shmem->lock);
}

/* When the lease of an attempt ends, whose end in the row is row_end. */
TimestampTz
qml_beats_end(const pg_uuid_t *job, int attempt, TimestampTz row_end)
{
	const QmlBeat *beat;

	if (qml_shmem == NULL)
		return row_end;
	/* The caller has read the clock before. */
	pg_memory_barrier();
	if ((TimestampTz) pg_atomic_read_u64(&qml_shmem->last_beat_end) <= row_end)
		return row_end;
	LWLockAcquire(qml_shmem->lock, LW_SHARED);
	beat = find_beat(bucket_of(job), job, attempt);
	if (beat)
		row_end = Max(row_end, beat->end);
	LWLockRelease(qml_shmem->lock);
	return row_end;
}
