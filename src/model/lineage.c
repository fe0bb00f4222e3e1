/*
 * lineage.c
 *		Numbers of attempts, of which none is given twice for a job.
 *
 * The number is the token of a claim, and a worker outside of the database may name it
 * at any time.  A number whose claim is durable is in the job's row, and the next one is
 * higher.  But rows can be older than what workers were told: a standby that is promoted
 * may lack the last claims, and a backup that is restored lacks all that came after it.
 * The numbers of those claims are not known here, and a worker may hold one of them.
 *
 * So each row says where its number was given: the server, the database, the table, and
 * the server's timeline, which a promotion and a recovery to a point in time change.
 * Where that is another place than here, the first claim skips SKIPPED numbers, and
 * counts them as attempts that do not count against the retries.  The row keeps its
 * lineage through all other changes, however often it is written before it is claimed.
 *
 * A crash loses no claim of a durable queue, but it may lose one of those whose commits do not
 * wait for the disk (common/lazy_commit.c).  The lineage of their rows names their life, too:
 * from one crash to the next (life.c).  A crash leaves no unlogged job.
 *
 * The lineage is a hash, plus the timeline and the life.  Neither of these falls in the history of a
 * database, so those of two timelines, or lives, of a server differ.  Those of two other places are
 * the same once in 65536.  Two bytes are what the row has to spare: any more would make it eight
 * bytes larger.
 *
 * Two servers that are promoted apart from each other may be on timelines of the same
 * number.  A snapshot of the disk that is started again, without a recovery, is on the
 * timeline that it had.  Both cannot be told from here.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "common/hashfn.h"
#include "common/int.h"
#include "miscadmin.h"

#include "common/lazy_commit.h"
#include "model/catalog.h"
#include "model/life.h"
#include "model/lineage.h"
#include "model/queue.h"

/* More than a job can be claimed between the last WAL that is here and the last that was. */
#define SKIPPED 65536

/* Whether commits of jobs of this queue may be lost, which leaves others. */
static bool
is_lazy(int queue_id)
{
	return qml_queue_storage(queue_id) == QML_ASYNC && qml_lazy_commit_possible();
}

/* The lineage of what is written now of a job of this queue; not on a standby. */
int16
qml_lineage(int queue_id)
{
	uint64 system = GetSystemIdentifier();
	uint32 hash = hash_bytes((const unsigned char *) &system, sizeof(system));

	Assert(!RecoveryInProgress());
	hash = hash_combine(hash, hash_bytes_uint32(MyDatabaseId));
	/* A dump may be restored into the database that it was made of. */
	hash = hash_combine(hash, hash_bytes_uint32(qml_store(QML_STORE_LOGGED)->live));
	if (is_lazy(queue_id))
		hash = hash_combine(hash, QML_ASYNC) + (uint32) qml_life_async();
	return (int16) (hash + GetWALInsertionTimeLine());
}

/*
 * The number after which a new job of this queue begins whose id is the caller's own, and which is
 * written to this store.  A job of the id may have been lost with a crash, and its claims with it:
 * so the numbers of each life lie apart.
 */
int
qml_lineage_first(int queue_id, QmlStoreId store)
{
	if (store == QML_STORE_UNLOGGED)
		return qml_life_first_attempt(qml_life_unlogged());
	return is_lazy(queue_id) ? qml_life_first_attempt(qml_life_async()) : 0;
}

/* The next number of the job in *next; false: there is none, numbers are used up. */
static bool
find_next(const QmlJob *job, int16 lineage, int *next)
{
	int first = 1 + (job->lineage == lineage ? 0 : SKIPPED);

	return !pg_add_s32_overflow(job->attempt, first, next);
}

/* Whether another attempt of the job can begin. */
bool
qml_lineage_has_next(const QmlJob *job)
{
	int next;

	/* Of nearly all, without a look at where they were claimed. */
	return job->attempt < PG_INT32_MAX - SKIPPED ||
		   find_next(job, qml_lineage(job->queue_id), &next);
}

/* Another attempt of the job begins. */
void
qml_lineage_next_attempt(QmlJob *job)
{
	int16 lineage = qml_lineage(job->queue_id);
	int next;

	if (!find_next(job, lineage, &next))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("job %s has no attempt numbers left", qml_job_id_string(&job->id)),
				 errdetail("Its latest attempt is %d.", job->attempt),
				 errhint("Enqueue the job anew.")));
	if (qml_queue_storage(job->queue_id) != QML_DURABLE)
		qml_life_reach(next);
	job->uncounted += next - job->attempt - 1;
	job->attempt = next;
	job->lineage = lineage;
}
