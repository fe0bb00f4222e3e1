/*
 * life.c
 *		Lives: from one crash of the server to the next.
 *
 * A crash, and the promotion of a standby, leave the unlogged tables empty, and may lose the last
 * commits of queues that are async.  Two things have to be known of that: whether anything was written
 * to the unlogged tables since, because those who look for a job by its id need not look there as
 * long as they are empty; and where the attempts of a job begin whose caller brought its own id.
 * After a crash such a job can be enqueued again, and the number of an attempt that was given before
 * must not be given to it once more, or the late word of a worker from before the crash would
 * count.  (An id that qml has made cannot come back.)
 *
 * So each life has a number: one of the unlogged tables, drawn by the first transaction that writes
 * to them, and one of the async queues, drawn by the first one that writes a job of these.
 * qml.lives, a sequence as any other, has the last number that was given.  qml.unlogged_life and
 * qml.async_life, unlogged sequences, have those of these lives; a crash makes them as they were
 * created, and they were never called then.  A clean restart loses nothing, and ends no life.
 * The attempts of a job with a caller's own id begin behind the number times ATTEMPTS_OF_LIFE.  If a
 * job comes to the numbers of a life that was not drawn yet, that one will not be: qml.lives is
 * moved on before.
 *
 * A number is on the disk before anybody can see it.  Sequences know no transactions: a life
 * begins also if the transaction is rolled back.  All sessions are told at once that one of the
 * unlogged tables has begun (a relcache invalidation of the table), because others may write before
 * the transaction ends.  Of async queues nobody need be told: who writes looks at the sequence.  A
 * copy of a database begins lives of its own when it is adopted.
 *
 * Locks: ShareUpdateExclusiveLock on qml.lives, for a moment: it is given back at once.
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
#include "model/life.h"

/* Attempts of one life, and so many lives have numbers of their own. */
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
	Oid told; /* all sessions hear that this table has changed; InvalidOid: nobody is told */
	Oid owner;
} Place;

/* Makes a number the last one that was given, on the disk; the current user is the owner. */
static void
write_lives(Oid lives, int number)
{
	XLogRecPtr lsn;

	write_sequence(lives, number);
	(void) qml_sequence_read(lives, &lsn);
	XLogFlush(lsn);
}

/* Gives the next number to this life, as the owner of the sequences. */
static int
draw_number(const Place *place)
{
	int life = qml_sequence_read(place->lives, NULL) % MOST_LIVES + 1;
	Oid user;
	int security_context;

	GetUserIdAndSecContext(&user, &security_context);
	SetUserIdAndSecContext(place->owner, security_context | SECURITY_LOCAL_USERID_CHANGE);
	write_lives(place->lives, life);
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

/* Begins a life; unless anew, only if none has begun.  Returns its number. */
static int
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
		if (OidIsValid(place->told))
			tell_sessions(place->told);
		RESUME_INTERRUPTS();
	}
	UnlockRelationOid(place->lives, ShareUpdateExclusiveLock);
	return life;
}

static Place
place_of(Oid life, Oid told)
{
	const QmlCatalog *cat = qml_catalog();

	return (Place){.lives = cat->lives, .life = life, .told = told, .owner = cat->owner};
}

static Place
place_of_unlogged(void)
{
	const QmlCatalog *cat = qml_catalog();

	return place_of(cat->unlogged_life, cat->stores[QML_STORE_UNLOGGED].live);
}

static Place
place_of_async(void)
{
	return place_of(qml_catalog()->async_life, InvalidOid);
}

static void
begin_unlogged(const Place *place, bool anew)
{
	int life = begin(place, anew);

	qml_catalog_known_lives()->unlogged = life;
}

/* The unlogged tables are going to be written. */
void
qml_life_begin_unlogged(void)
{
	if (qml_catalog_known_lives()->unlogged == 0)
	{
		Place place = place_of_unlogged();

		begin_unlogged(&place, false);
	}
}

/*
 * SQL is going to write the table of unfinished jobs.  Tables may be altered so that qml refuses
 * them, and whoever repairs them must not be stopped: so this looks for the sequences by itself.
 */
void
qml_life_begin_unlogged_by_sql(Relation live)
{
	Oid schema = RelationGetNamespace(live);
	Place place = {.lives = get_relname_relid("lives", schema),
				   .life = get_relname_relid("unlogged_life", schema),
				   .told = RelationGetRelid(live),
				   .owner = live->rd_rel->relowner};

	if (get_rel_relkind(place.lives) == RELKIND_SEQUENCE &&
		get_rel_relkind(place.life) == RELKIND_SEQUENCE)
		(void) begin(&place, false);
}

/* What was written before came from another database. */
void
qml_life_begin_anew(void)
{
	Place unlogged = place_of_unlogged();
	Place async = place_of_async();
	int life;

	begin_unlogged(&unlogged, true);
	life = begin(&async, true);
	qml_catalog_known_lives()->async = life;
}

/* The number of this life of the unlogged tables, which has begun. */
int
qml_life_unlogged(void)
{
	Assert(qml_catalog_known_lives()->unlogged > 0);
	return qml_catalog_known_lives()->unlogged;
}

/*
 * The number of this life of async queues, which begins if it has not: one of their jobs is
 * written.
 */
int
qml_life_async(void)
{
	Place place;
	int life = qml_catalog_known_lives()->async;

	if (life != 0)
		return life;
	place = place_of_async();
	life = qml_sequence_read(place.life, NULL);
	if (life == 0)
		life = begin(&place, false);
	qml_catalog_known_lives()->async = life;
	return life;
}

/* The number behind which the attempts of a job begin that has its caller's own id. */
int
qml_life_first_attempt(int life)
{
	return life * ATTEMPTS_OF_LIFE;
}

/* A number of an attempt is going to be given: no life may begin with it, or before it. */
void
qml_life_reach(int attempt)
{
	int number = attempt / ATTEMPTS_OF_LIFE;
	QmlKnownLives *known = qml_catalog_known_lives();
	Place place;

	if (number <= known->unlogged || number <= known->async || number <= known->given)
		return;
	place = place_of_unlogged();
	LockRelationOid(place.lives, ShareUpdateExclusiveLock);
	if (qml_sequence_read(place.lives, NULL) < number)
	{
		Oid user;
		int security_context;

		GetUserIdAndSecContext(&user, &security_context);
		SetUserIdAndSecContext(place.owner, security_context | SECURITY_LOCAL_USERID_CHANGE);
		write_lives(place.lives, number);
		SetUserIdAndSecContext(user, security_context);
	}
	UnlockRelationOid(place.lives, ShareUpdateExclusiveLock);
	qml_catalog_known_lives()->given = number;
}
