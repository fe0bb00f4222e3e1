/*
 * unlogged.c
 *		Lives of the unlogged tables: from one crash of the server to the next.
 *
 * A crash, and the promotion of a standby, leave the unlogged tables empty.  Two things have to be
 * known of that: whether anything was written to them since, because those who look for a job by its
 * id need not look there as long as they are empty; and where the attempts of a job begin whose
 * caller brought its own id.  After a crash such a job can be enqueued again, and the number of an
 * attempt that was given before must not be given to it once more, or the late word of a worker from
 * before the crash would count.  (An id that qml has made cannot come back.)
 *
 * So each life has a number, drawn by the first transaction that writes.  qml.unlogged_lives, a
 * sequence as any other, has the last one that was given.  qml.unlogged_life, an unlogged sequence,
 * has that of this life; a crash makes it as it was created, and it was never called then.
 * The attempts of a job with a caller's own id begin behind the number times ATTEMPTS_OF_LIFE.
 *
 * The number is on the disk before anybody can see it.  Sequences know no transactions: a life
 * begins also if the transaction is rolled back.  All sessions are told at once (a relcache
 * invalidation of the table), because others may write before it ends.  A copy of a database
 * begins a life of its own when it is adopted.
 *
 * Locks: ShareUpdateExclusiveLock on qml.unlogged_lives, for a moment: it is given back at once.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/sinval.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"

#include "common/sequence.h"
#include "model/catalog.h"
#include "model/unlogged.h"

/* More than a job is claimed in one life; and so many lives have numbers of their own. */
#define ATTEMPTS_OF_LIFE 65536
#define MOST_LIVES		 32000

static void
write_sequence(Oid sequence, int value)
{
	(void) DirectFunctionCall2(setval_oid, ObjectIdGetDatum(sequence), Int64GetDatum(value));
}

/* What a life is of. */
typedef struct Place
{
	Oid lives; /* the sequences */
	Oid life;
	Oid live; /* the table of unfinished jobs */
	Oid owner;
} Place;

/* Gives the next number to this life, as the owner of the sequences. */
static int
draw_number(const Place *place)
{
	int life = qml_sequence_read(place->lives, NULL) % MOST_LIVES + 1;
	XLogRecPtr lsn;
	Oid user;
	int security_context;

	GetUserIdAndSecContext(&user, &security_context);
	SetUserIdAndSecContext(place->owner, security_context | SECURITY_LOCAL_USERID_CHANGE);
	write_sequence(place->lives, life);
	(void) qml_sequence_read(place->lives, &lsn);
	XLogFlush(lsn);
	qml_sequence_repair(place->life, place->lives);
	write_sequence(place->life, life);
	SetUserIdAndSecContext(user, security_context);
	return life;
}

/* All sessions, and this one, look at the sequence again. */
static void
tell_sessions(Oid relid)
{
	SharedInvalidationMessage message;

	memset(&message, 0, sizeof(message));
	message.rc.id = SHAREDINVALRELCACHE_ID;
	message.rc.dbId = MyDatabaseId;
	message.rc.relId = relid;
	SendSharedInvalidMessages(&message, 1);
}

/* Begins a life; unless anew, only if none has begun. */
static void
begin(const Place *place, bool anew)
{
	int life;

	Assert(!RecoveryInProgress());
	LockRelationOid(place->lives, ShareUpdateExclusiveLock);
	life = anew ? 0 : qml_sequence_read(place->life, NULL);
	if (life == 0)
	{
		/* Nobody writes in a life of which the others are not told. */
		HOLD_INTERRUPTS();
		life = draw_number(place);
		tell_sessions(place->live);
		RESUME_INTERRUPTS();
	}
	UnlockRelationOid(place->lives, ShareUpdateExclusiveLock);
	qml_catalog_set_life(life);
}

static Place
known_place(void)
{
	const QmlCatalog *cat = qml_catalog();

	return (Place){.lives = cat->unlogged_lives,
				   .life = cat->unlogged_life,
				   .live = cat->stores[QML_STORE_UNLOGGED].live,
				   .owner = cat->owner};
}

/* The unlogged tables are going to be written. */
void
qml_unlogged_begin(void)
{
	if (qml_catalog()->life == 0)
	{
		Place place = known_place();

		begin(&place, false);
	}
}

/*
 * SQL is going to write the table of unfinished jobs.  Tables may be altered so that qml refuses
 * them, and whoever repairs them must not be stopped: so this looks for the sequences by itself.
 */
void
qml_unlogged_begin_sql(Relation live)
{
	Oid schema = RelationGetNamespace(live);
	Place place = {.lives = get_relname_relid("unlogged_lives", schema),
				   .life = get_relname_relid("unlogged_life", schema),
				   .live = RelationGetRelid(live),
				   .owner = live->rd_rel->relowner};

	if (get_rel_relkind(place.lives) == RELKIND_SEQUENCE &&
		get_rel_relkind(place.life) == RELKIND_SEQUENCE)
		begin(&place, false);
}

/* What was written before came from another database. */
void
qml_unlogged_begin_anew(void)
{
	Place place = known_place();

	begin(&place, true);
}

/* The number behind which the attempts of a job begin that has its caller's own id. */
int
qml_unlogged_first_attempt(void)
{
	Assert(qml_catalog()->life > 0);
	return qml_catalog()->life * ATTEMPTS_OF_LIFE;
}
