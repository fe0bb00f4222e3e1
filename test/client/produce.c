/*-------------------------------------------------------------------------
 *
 * produce.c
 *	  The producer side of the stress-test client.
 *
 * Single jobs carry an id made here, so that the checker can ask about one
 * whose answer was lost; the jobs of one qml_enqueue_many() carry the name
 * of their batch in the payload for the same purpose.  Delayed jobs tell in
 * their payload when they are due.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"

#define BATCH_NAME_LEN	  64
#define TRANSACTION_LIMIT 8

static Statement enqueue_stmt = {"enqueue",
								 "SELECT qml_enqueue(method => $7,"
								 " payload => $1::jsonb || jsonb_build_object('run_at', t),"
								 " queue => $2, priority => $3::int, run_at => t,"
								 " max_retries => $5::int, id => $6::uuid)"
								 " FROM (SELECT clock_timestamp() + $4::interval AS t) due",
								 7, 0};
static Statement enqueue_many_stmt =
	{"enqueue_many",
	 "SELECT qml_enqueue_many(method => $7,"
	 " payloads => ARRAY(SELECT jsonb_build_object('batch', $1::text, 'n', n, 'run_at', t)"
	 "                   FROM generate_series(1, $2::int) n),"
	 " queue => $3, priority => $4::int, run_at => t, max_retries => $6::int)"
	 " FROM (SELECT clock_timestamp() + $5::interval AS t) due",
	 7, 0};
static Statement begin_stmt = {NULL, "BEGIN", 0, 0};
static Statement commit_stmt = {NULL, "COMMIT", 0, 0};
static Statement rollback_stmt = {NULL, "ROLLBACK", 0, 0};
static Statement savepoint_stmt = {NULL, "SAVEPOINT undone", 0, 0};
static Statement undo_stmt = {NULL, "ROLLBACK TO undone", 0, 0};

/* Parameters of the next call; the pointers are NULL or into the buffers. */
typedef struct Choice
{
	char method_buf[64];
	char queue_buf[64];
	char priority[16];
	char delay_buf[32];
	char retries_buf[16];
	const char *delay;
	const char *retries;
} Choice;

static void
choose(Session *session, Choice *choice, const char *method)
{
	const Options *opt = session->opt;

	memset(choice, 0, sizeof(*choice));
	choose_from(session, opt->methods ? opt->methods : method, choice->method_buf,
				sizeof(choice->method_buf));
	choose_from(session, opt->queues ? opt->queues : "default", choice->queue_buf,
				sizeof(choice->queue_buf));
	snprintf(choice->priority, sizeof(choice->priority), "%d",
			 random_below(session, opt->priorities));
	if (random_fraction(session) < opt->delayed)
	{
		snprintf(choice->delay_buf, sizeof(choice->delay_buf), "%.3f ms",
				 random_fraction(session) * opt->delay_ms);
		choice->delay = choice->delay_buf;
	}
	if (opt->max_retries >= 0)
	{
		snprintf(choice->retries_buf, sizeof(choice->retries_buf), "%d", opt->max_retries);
		choice->retries = choice->retries_buf;
	}
}

/* A version 7 uuid: milliseconds, then randomness. */
static void
make_id(Session *session, char *id)
{
	uint64_t ms = (uint64_t) (now_seconds() * 1000);
	uint64_t a = random_next(session);
	uint64_t b = random_next(session);

	snprintf(id, UUID_TEXT_LEN, "%08x-%04x-7%03x-%04x-%012llx", (unsigned) (ms >> 16),
			 (unsigned) (ms & 0xffff), (unsigned) (a & 0xfff),
			 (unsigned) (0x8000 | ((a >> 12) & 0x3fff)),
			 (unsigned long long) (b & UINT64_C(0xffffffffffff)));
}

static void
log_job(Session *session, const char *event, const char *id)
{
	if (strcmp(event, "enqueued") == 0)
		session->count.enqueued++;
	else if (strcmp(event, "rolledback") == 0)
		session->count.rolledback++;
	else if (strcmp(event, "unknown") == 0)
		session->count.unknown++;
	log_event(session, event, id, NULL, NULL, "op=enqueue");
}

static void
log_failure(Session *session, const char *op)
{
	session->count.errors++;
	log_event(session, "error", NULL, NULL, NULL, "op=%s sqlstate=%s", op, session->sqlstate);
}

static Outcome
send_enqueue(Session *session, const char *id)
{
	Choice choice;
	const char *values[7];

	choose(session, &choice, "client.job");
	values[0] = "{\"from\": \"client\"}";
	values[1] = choice.queue_buf;
	values[2] = choice.priority;
	values[3] = choice.delay;
	values[4] = choice.retries;
	values[5] = id;
	values[6] = choice.method_buf;
	return session_run(session, &enqueue_stmt, values);
}

static Outcome
send_enqueue_many(Session *session, const char *batch, int size)
{
	Choice choice;
	char size_text[16];
	const char *values[7];

	choose(session, &choice, "client.many");
	snprintf(size_text, sizeof(size_text), "%d", size);
	values[0] = batch;
	values[1] = size_text;
	values[2] = choice.queue_buf;
	values[3] = choice.priority;
	values[4] = choice.delay;
	values[5] = choice.retries;
	values[6] = choice.method_buf;
	return session_run(session, &enqueue_many_stmt, values);
}

/* As the other two, returns the number of jobs that may have been kept. */
static int
produce_single(Session *session)
{
	char id[UUID_TEXT_LEN];

	make_id(session, id);
	log_job(session, "enqueuing", id);
	switch (send_enqueue(session, id))
	{
		case OUTCOME_OK:
			log_job(session, "enqueued", id);
			return 1;
		case OUTCOME_LOST:
			log_job(session, "unknown", id);
			return 1;
		case OUTCOME_ERROR:
			break;
	}
	log_failure(session, "enqueue");
	log_job(session, "rolledback", id);
	return 0;
}

static void
log_batch(Session *session, const char *event, const char *batch, int size)
{
	log_event(session, event, NULL, NULL, NULL, "op=enqueue_many batch=%s count=%d", batch, size);
}

static int
produce_many(Session *session, int size)
{
	static int serial = 0;
	char batch[BATCH_NAME_LEN];

	snprintf(batch, sizeof(batch), "%s-%d", session->opt->name, ++serial);
	log_batch(session, "enqueuing", batch, size);
	switch (send_enqueue_many(session, batch, size))
	{
		case OUTCOME_OK:
			for (int i = 0; i < PQntuples(session->result); i++)
				log_job(session, "enqueued", session_value(session, i, 0));
			log_batch(session, "enqueued", batch, size);
			return size;
		case OUTCOME_LOST:
			session->count.unknown++;
			log_batch(session, "unknown", batch, size);
			return size;
		case OUTCOME_ERROR:
			break;
	}
	log_failure(session, "enqueue_many");
	log_batch(session, "rolledback", batch, size);
	return 0;
}

/*
 * Enqueues n jobs within the transaction; they are known as "enqueuing"
 * before they are sent.
 */
static Outcome
enqueue_some(Session *session, char (*ids)[UUID_TEXT_LEN], int n)
{
	Outcome outcome = OUTCOME_OK;

	for (int i = 0; i < n; i++)
	{
		make_id(session, ids[i]);
		log_job(session, "enqueuing", ids[i]);
	}
	for (int i = 0; i < n && outcome == OUTCOME_OK; i++)
		outcome = send_enqueue(session, ids[i]);
	return outcome;
}

static void
log_jobs(Session *session, const char *event, char (*ids)[UUID_TEXT_LEN], int n)
{
	for (int i = 0; i < n; i++)
		log_job(session, event, ids[i]);
}

/*
 * A transaction that enqueues n jobs, then enqueues and undoes some in a
 * savepoint, and commits or rolls back.  Until COMMIT is sent, nothing can
 * have remained.
 */
static int
produce_transaction(Session *session, int n)
{
	char ids[TRANSACTION_LIMIT][UUID_TEXT_LEN];
	char undone[TRANSACTION_LIMIT][UUID_TEXT_LEN];
	bool commit = random_fraction(session) >= session->opt->rollback;
	int nundone = 0;
	Outcome outcome;

	outcome = session_run(session, &begin_stmt, NULL);
	if (outcome != OUTCOME_OK)
		return 0;

	outcome = enqueue_some(session, ids, n);
	if (outcome == OUTCOME_OK && random_below(session, 2) == 0)
	{
		outcome = session_run(session, &savepoint_stmt, NULL);
		if (outcome == OUTCOME_OK)
		{
			nundone = 1 + random_below(session, TRANSACTION_LIMIT);
			outcome = enqueue_some(session, undone, nundone);
		}
		if (outcome == OUTCOME_OK)
			outcome = session_run(session, &undo_stmt, NULL);
	}

	if (outcome == OUTCOME_ERROR)
		log_failure(session, "transaction");
	if (outcome != OUTCOME_OK)
		commit = false;
	if (outcome != OUTCOME_LOST)
		outcome = session_run(session, commit ? &commit_stmt : &rollback_stmt, NULL);

	log_jobs(session, "rolledback", undone, nundone);
	if (commit && outcome != OUTCOME_ERROR)
	{
		log_jobs(session, outcome == OUTCOME_OK ? "enqueued" : "unknown", ids, n);
		return n;
	}
	log_jobs(session, "rolledback", ids, n);
	return 0;
}

/* Kept jobs count, so a run makes as many as it was told to. */
int
produce(Session *session)
{
	const Options *opt = session->opt;
	int left = opt->jobs;

	while (left > 0 && session_connect(session) && !session_over(session))
	{
		double kind = random_fraction(session);
		int n;

		if (kind < opt->many_fraction)
		{
			n = 1 + random_below(session, opt->many_size);
			left -= produce_many(session, n < left ? n : left);
		}
		else if (kind - opt->many_fraction < opt->transaction)
		{
			n = 1 + random_below(session, TRANSACTION_LIMIT);
			left -= produce_transaction(session, n < left ? n : left);
		}
		else
			left -= produce_single(session);
		sleep_ms(random_fraction(session) * 2 * opt->pace_ms);
	}
	return left > 0 && now_seconds() >= session->deadline ? 1 : 0;
}
