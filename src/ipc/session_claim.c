/*
 * session_claim.c
 *		Sessions that hold jobs for as long as they live.
 *
 * A claim without a lease is bound to the session that made it: the job's server is
 * the id of the session, "session:<start of the server>.<place>.<token>".  A session
 * is alive while its token is in its place in shared memory, of the same start of
 * the server; it takes it out in whatever way it ends, and tells the scheduler which
 * jobs it may have held.  After a crash all places are new.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "utils/memutils.h"

#include "ipc/session_claim.h"
#include "ipc/wakeup.h"

#define PREFIX "session:"

static uint32 token = 0; /* 0: this session holds nothing */

/* The last jobs that were claimed, round and round. */
static pg_uuid_t held[QML_MAX_LOST];
static uint64 nheld = 0;

/* The place of a process; of this one once it has a token. */
static pg_atomic_uint32 *
place(int number)
{
	return &qml_shmem->sessions[number];
}

/*
 * When the process ends, after its transaction was undone: the scheduler passes over
 * rows that are being changed.
 */
static void
leave(int code, Datum arg)
{
	pg_atomic_write_u32(place((int) (MyProc - ProcGlobal->allProcs)), 0);
	qml_wakeup_lost(held, (int) Min(nheld, QML_MAX_LOST), nheld > QML_MAX_LOST);
}

/* Only with shared memory is there anybody who notices its end. */
bool
qml_session_claim_can_hold(void)
{
	return qml_shmem != NULL;
}

/* The id of this session, in the current memory context. */
char *
qml_session_claim_id(void)
{
	int number = (int) (MyProc - ProcGlobal->allProcs);

	if (token == 0)
	{
		do
			token = pg_atomic_add_fetch_u32(&qml_shmem->next_token, 1);
		while (token == 0);
		on_shmem_exit(leave, (Datum) 0);
		pg_atomic_write_u32(place(number), token);
	}
	return psprintf(PREFIX "%08x.%d.%x", qml_shmem->boot, number, token);
}

/* This session claims a job. */
void
qml_session_claim_hold(const pg_uuid_t *job)
{
	held[nheld++ % QML_MAX_LOST] = *job;
}

/* All that it claimed is finished or given back. */
void
qml_session_claim_hold_none(void)
{
	nheld = 0;
}

typedef struct Id
{
	uint32 boot;
	int number;
	uint32 token;
} Id;

static bool
parse_id(const char *text, int length, Id *id)
{
	char copy[64];

	if (length < (int) strlen(PREFIX) || length >= (int) sizeof(copy) ||
		strncmp(text, PREFIX, strlen(PREFIX)) != 0)
		return false;
	memcpy(copy, text, length);
	copy[length] = '\0';
	return sscanf(copy, PREFIX "%x.%d.%x", &id->boot, &id->number, &id->token) == 3;
}

/* Whether a job's server is a session that is no longer there, as far as can be told. */
bool
qml_session_claim_is_gone(const char *server, int length)
{
	Id id;

	if (qml_shmem == NULL || !parse_id(server, length, &id))
		return false;
	return id.boot != qml_shmem->boot || id.number < 0 || id.number >= qml_shmem->nsessions ||
		   pg_atomic_read_u32(place(id.number)) != id.token;
}

/* Whether the session of this id ended with the whole server. */
bool
qml_session_claim_went_with_server(const char *server)
{
	Id id;

	return qml_shmem && parse_id(server, strlen(server), &id) && id.boot != qml_shmem->boot;
}

/*
 * This process ends under an attempt: those of the others that it holds have no part in
 * that.
 */
void
qml_session_claim_note_culprit(const pg_uuid_t *job, int attempt, QmlLoss loss)
{
	QmlCulprit culprit = {.place = (int) (MyProc - ProcGlobal->allProcs),
						  .token = token,
						  .job = *job,
						  .attempt = attempt,
						  .loss = loss};

	qml_shmem_note_culprit(&culprit);
}

/* How the session of this id, which is gone, lost a job. */
QmlLoss
qml_session_claim_loss_of(const char *server, const pg_uuid_t *job, int attempt)
{
	QmlCulprit culprit = {.job = *job, .attempt = attempt};
	Id id;

	if (qml_shmem == NULL || !parse_id(server, strlen(server), &id) || id.boot != qml_shmem->boot)
		return QML_LOST_SOMEHOW;
	culprit.place = id.number;
	culprit.token = id.token;
	if (!qml_shmem_find_culprit(&culprit))
		return QML_LOST_SOMEHOW;
	return culprit.loss == 0 ? QML_LOST_BESIDE : (QmlLoss) culprit.loss;
}
