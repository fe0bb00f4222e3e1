/*-------------------------------------------------------------------------
 *
 * transact.c
 *	  A session that runs transactions of all kinds, one after the other, until the server is
 *	  gone: what a crash leaves of them is judged by test/t/QmlStorage.pm.
 *
 * Each transaction has a name and consists of pieces: jobs that it makes, claims, ends of claims,
 * and perhaps a row of a user's table.  Jobs with an id of the session's own and ends of claims are
 * logged before they are sent, because the statement may be a transaction by itself whose answer is
 * lost; what the server chooses is logged when the answer is there.  The end of a transaction is
 * logged before it is sent ("committing", "preparing") and when the answer is there ("committed",
 * "prepared", "undone").
 *
 * With --lease claims are lost in the end, because others take what was not ended in time, and the
 * server ends what a terminated session had begun.  A refusal is logged then ("refused"), and is
 * no error.  "beat" tells until when a heartbeat has made the claim hold.  With --claim-in-blocks no
 * claim is a transaction by itself: whatever is claimed is logged before it is committed.
 *
 * The ids that are the session's own are numbered.  After a crash the next session of the same
 * series makes the jobs that were lost anew.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <string.h>

#include "client.h"

#define HELD_LIMIT	500
#define MOST_STEPS	4
#define TX_NAME_LEN 64

typedef struct Token
{
	char id[UUID_TEXT_LEN];
	char attempt[16];
	bool is_refused;
} Token;

typedef struct Tokens
{
	Token all[HELD_LIMIT];
	int count;
} Tokens;

typedef struct Transaction
{
	char name[TX_NAME_LEN];
	bool is_single; /* a statement by itself */
	bool is_failed;
	bool is_lost;
} Transaction;

static Statement begin_stmt = {NULL, "BEGIN", 0, 0};
static Statement commit_stmt = {NULL, "COMMIT", 0, 0};
static Statement rollback_stmt = {NULL, "ROLLBACK", 0, 0};
static Statement row_stmt = {"row", "INSERT INTO user_row VALUES ($1)", 1, 0};
static Statement make_stmt = {"make",
							  "SELECT qml_enqueue($4, jsonb_build_object('tx', $1::text),"
							  " queue => $2, id => $3::uuid)",
							  4, 0};
static Statement make_many_stmt =
	{"make_many",
	 "SELECT qml_enqueue_many($4, array_fill(jsonb_build_object('tx', $1::text),"
	 " ARRAY[$3::int]), $2)",
	 4, 0};
static Statement fetch_stmt =
	{"fetch",
	 "SELECT id, attempt, queue, extract(epoch FROM lease_expires_at)"
	 " FROM qml_fetch($1, string_to_array($2, ','), $3::int, $4::interval)",
	 4, 0};
static Statement heartbeat_stmt = {"heartbeat",
								   "SELECT extract(epoch FROM qml_heartbeat($1::uuid, $2::int,"
								   " $3::interval))",
								   3, 0};
static Statement succeed_stmt = {"succeed", "SELECT qml_succeed($1::uuid, $2::int)", 2, 0};
static Statement succeed_many_stmt = {"succeed_many",
									  "SELECT qml_succeed_many($1::uuid[], $2::int[])", 2, 0};
static Statement release_stmt = {"release", "SELECT qml_release($1::uuid, $2::int)", 2, 0};
static Statement fail_stmt =
	{"fail", "SELECT qml_fail($1::uuid, $2::int, 'made to fail', retry_at => clock_timestamp())", 2,
	 0};

/* Claims that were committed, and those that the transaction takes and ends. */
static Tokens held;
static Tokens taken;
static Tokens ended;

static int next_id;

static void
log_tx(Session *session, const char *event, const Transaction *tx)
{
	log_event(session, event, NULL, NULL, NULL, "tx=%s", tx->name);
}

static void
log_piece(Session *session, const Transaction *tx, const char *event, const char *id,
		  const char *attempt, const char *state, const char *queue)
{
	log_event(session, event, id, attempt, state, "tx=%s queue=%s", tx->name, queue);
}

static void
add_token(Tokens *tokens, const char *id, const char *attempt)
{
	Token *token = &tokens->all[tokens->count++];

	snprintf(token->id, sizeof(token->id), "%s", id);
	snprintf(token->attempt, sizeof(token->attempt), "%s", attempt);
	token->is_refused = false;
}

/* Those that were refused are gone. */
static void
move_tokens(Tokens *from, Tokens *to)
{
	while (from->count > 0)
	{
		const Token *token = &from->all[--from->count];

		if (!token->is_refused)
			add_token(to, token->id, token->attempt);
	}
}

static void
log_refused(Session *session, const Transaction *tx, const char *op, Token *token)
{
	session->count.refused++;
	token->is_refused = true;
	log_event(session, "refused", token->id, token->attempt, NULL, "tx=%s op=%s", tx->name, op);
}

/* Claims end by themselves, so that a worker may be told that it has lost one. */
static bool
may_be_refused(const Session *session)
{
	return session->opt->lease != NULL;
}

static bool
is_refusal(const Session *session)
{
	return strcmp(session->sqlstate, "QM001") == 0 || strcmp(session->sqlstate, "QM003") == 0;
}

/*
 * Runs a step, which is about a claim if token is given.  False: the transaction is not to go on.
 */
static bool
run_step(Session *session, Transaction *tx, const char *op, Statement *stmt,
		 const char *const *values, Token *token)
{
	/* It is committed when it has been run. */
	if (tx->is_single)
		log_tx(session, "committing", tx);
	switch (session_run(session, stmt, values))
	{
		case OUTCOME_OK:
			return true;
		case OUTCOME_ERROR:
			tx->is_failed = true;
			if (token != NULL && may_be_refused(session) && is_refusal(session))
			{
				log_refused(session, tx, op, token);
				return false;
			}
			session->count.errors++;
			log_event(session, "error", NULL, NULL, NULL, "op=%s sqlstate=%s", op,
					  session->sqlstate);
			return false;
		case OUTCOME_LOST:
			break;
	}
	tx->is_lost = true;
	return false;
}

static void
make_step(Session *session, Transaction *tx)
{
	const Options *opt = session->opt;
	char queue[64];
	char text[UUID_TEXT_LEN];
	char method[64] = "client.job";
	const char *values[4] = {tx->name, queue, text, method};

	if (opt->handler_queues != NULL && random_below(session, 2) == 0)
	{
		choose_from(session, opt->handler_queues, queue, sizeof(queue));
		choose_from(session, opt->methods, method, sizeof(method));
	}
	else
		choose_from(session, opt->queues, queue, sizeof(queue));
	if (random_below(session, 4) > 0)
	{
		snprintf(text, sizeof(text), "00000000-0000-4000-8%03d-%012d", opt->id_series, next_id++);
		log_piece(session, tx, "made", text, NULL, NULL, queue);
		if (run_step(session, tx, "enqueue", &make_stmt, values, NULL))
			session->count.enqueued++;
		return;
	}
	snprintf(text, sizeof(text), "%d", 1 + random_below(session, 20));
	if (!run_step(session, tx, "enqueue_many", &make_many_stmt, values, NULL))
		return;
	for (int i = 0; i < PQntuples(session->result); i++)
		log_piece(session, tx, "made", session_value(session, i, 0), NULL, NULL, queue);
	session->count.enqueued += PQntuples(session->result);
}

static void
claim_step(Session *session, Transaction *tx)
{
	const Options *opt = session->opt;
	char batch[16];
	char queue[64];
	const char *values[4] = {opt->name, opt->queues, batch, opt->lease};
	int most = 1 + random_below(session, opt->batch);

	if (held.count + taken.count + ended.count + most > HELD_LIMIT)
		return;
	if (random_below(session, 2) == 0)
	{
		choose_from(session, session->opt->queues, queue, sizeof(queue));
		values[1] = queue;
	}
	snprintf(batch, sizeof(batch), "%d", most);
	if (!run_step(session, tx, "fetch", &fetch_stmt, values, NULL))
		return;
	for (int i = 0; i < PQntuples(session->result); i++)
	{
		const char *id = session_value(session, i, 0);
		const char *attempt = session_value(session, i, 1);

		log_event(session, "claimed", id, attempt, "processing", "tx=%s queue=%s lease=%s",
				  tx->name, session_value(session, i, 2), session_value(session, i, 3));
		add_token(&taken, id, attempt);
	}
	session->count.claimed += PQntuples(session->result);
}

/* Takes one of the committed claims, any of them. */
static Token *
end_one(Session *session)
{
	int n = random_below(session, held.count);
	Token token = held.all[n];

	held.all[n] = held.all[--held.count];
	add_token(&ended, token.id, token.attempt);
	return &ended.all[ended.count - 1];
}

static void
beat_step(Session *session, Transaction *tx)
{
	int n = random_below(session, held.count);
	Token *token = &held.all[n];
	const char *values[3] = {token->id, token->attempt, session->opt->lease};

	if (run_step(session, tx, "heartbeat", &heartbeat_stmt, values, token))
		log_event(session, "beat", token->id, token->attempt, "processing", "tx=%s lease=%s",
				  tx->name, session_value(session, 0, 0));
	else if (token->is_refused)
		held.all[n] = held.all[--held.count];
}

/* What a call that ends several claims has not ended. */
static void
log_not_ended(Session *session, const Transaction *tx, int first)
{
	for (int i = first; i < ended.count; i++)
	{
		bool is_ended = false;

		for (int j = 0; j < PQntuples(session->result) && !is_ended; j++)
			is_ended = strcmp(session_value(session, j, 0), ended.all[i].id) == 0;
		if (!is_ended)
			log_refused(session, tx, "succeed_many", &ended.all[i]);
	}
}

/* Whether the last claim that is being ended is of the same job as one before it, from first on. */
static bool
is_same_job(int first)
{
	for (int i = first; i < ended.count - 1; i++)
		if (strcmp(ended.all[i].id, ended.all[ended.count - 1].id) == 0)
			return true;
	return false;
}

/*
 * Several at once, in any order.  The answer names jobs, not claims: of a job that was lost and
 * claimed again only one claim is ended.
 */
static void
end_many(Session *session, Transaction *tx)
{
	static char ids[HELD_LIMIT * UUID_TEXT_LEN + 2];
	static char attempts[HELD_LIMIT * 16 + 2];
	const char *values[2] = {ids, attempts};
	char *id_end = ids;
	char *attempt_end = attempts;
	int first = ended.count;
	int most = 1 + random_below(session, 10);

	while (held.count > 0 && ended.count - first < most)
	{
		const Token *token = end_one(session);
		char separator = ended.count == first + 1 ? '{' : ',';

		if (is_same_job(first))
		{
			add_token(&held, token->id, token->attempt);
			ended.count--;
			break;
		}
		id_end += sprintf(id_end, "%c%s", separator, token->id);
		attempt_end += sprintf(attempt_end, "%c%s", separator, token->attempt);
	}
	strcpy(id_end, "}");
	strcpy(attempt_end, "}");
	for (int i = first; i < ended.count; i++)
		log_piece(session, tx, "ended", ended.all[i].id, ended.all[i].attempt, "succeeded", "-");
	if (!run_step(session, tx, "succeed_many", &succeed_many_stmt, values, NULL))
		return;
	/* All are its own: none may be refused, but for one that was lost with its lease. */
	if (may_be_refused(session))
		log_not_ended(session, tx, first);
	else if (PQntuples(session->result) != ended.count - first)
		log_event(session, "error", NULL, NULL, NULL, "op=succeed_many sqlstate=refused");
	session->count.acked += ended.count - first;
}

static void
end_step(Session *session, Transaction *tx)
{
	const char *values[2];
	Token *token;
	int kind = random_below(session, 6);
	bool is_done;

	if (held.count == 0)
		return;
	if (kind < 2)
	{
		end_many(session, tx);
		return;
	}
	token = end_one(session);
	values[0] = token->id;
	values[1] = token->attempt;
	log_piece(session, tx, "ended", token->id, token->attempt,
			  kind < 4 ? "succeeded" : "given_back", "-");
	if (kind < 4)
		is_done = run_step(session, tx, "succeed", &succeed_stmt, values, token);
	else if (kind == 4)
		is_done = run_step(session, tx, "release", &release_stmt, values, token);
	else
		is_done = run_step(session, tx, "fail", &fail_stmt, values, token);
	session->count.acked += is_done;
}

static void
any_step(Session *session, Transaction *tx)
{
	int kind = random_below(session, 10);

	if (held.count > 0 && random_fraction(session) < session->opt->heartbeat)
		beat_step(session, tx);
	else if (kind < 4)
		make_step(session, tx);
	else if (kind < 7 && !(tx->is_single && session->opt->claim_in_blocks))
		claim_step(session, tx);
	else
		end_step(session, tx);
}

/* Asks for the end of the transaction; false: there was no answer. */
static bool
ask_for(Session *session, Transaction *tx, const char *asked, Statement *stmt, const char *told)
{
	log_tx(session, asked, tx);
	if (session_run(session, stmt, NULL) != OUTCOME_OK)
	{
		if (session->conn == NULL)
			return false;
		session->count.errors++;
		log_event(session, "error", NULL, NULL, NULL, "op=%s sqlstate=%s", asked,
				  session->sqlstate);
		told = "undone";
		tx->is_failed = true;
	}
	log_tx(session, told, tx);
	return true;
}

static bool
prepare(Session *session, Transaction *tx)
{
	char text[TX_NAME_LEN + 32];
	Statement stmt = {NULL, text, 0, 0};

	snprintf(text, sizeof(text), "PREPARE TRANSACTION '%s'", tx->name);
	if (!ask_for(session, tx, "preparing", &stmt, "prepared"))
		return false;
	if (tx->is_failed)
		return true;
	snprintf(text, sizeof(text), "COMMIT PREPARED '%s'", tx->name);
	return ask_for(session, tx, "committing", &stmt, "committed");
}

static void
run_steps(Session *session, Transaction *tx)
{
	int nsteps = 1 + random_below(session, MOST_STEPS);
	int row_at = random_fraction(session) < session->opt->row ? random_below(session, nsteps + 1) :
																-1;
	const char *values[1] = {tx->name};

	for (int i = 0; i <= nsteps && !tx->is_failed && !tx->is_lost; i++)
	{
		if (i == row_at && run_step(session, tx, "row", &row_stmt, values, NULL))
			log_piece(session, tx, "row", NULL, NULL, NULL, "-");
		else if (i < nsteps && i != row_at)
			any_step(session, tx);
	}
}

/* False: the server is gone. */
static bool
run_transaction(Session *session, Transaction *tx)
{
	if (session_run(session, &begin_stmt, NULL) != OUTCOME_OK)
		return false;
	run_steps(session, tx);
	if (tx->is_lost)
		return false;
	if (tx->is_failed || random_fraction(session) < session->opt->rollback)
	{
		tx->is_failed = true;
		return ask_for(session, tx, "undoing", &rollback_stmt, "undone");
	}
	if (random_fraction(session) < session->opt->prepare)
		return prepare(session, tx);
	return ask_for(session, tx, "committing", &commit_stmt, "committed");
}

static bool
run_single(Session *session, Transaction *tx)
{
	tx->is_single = true;
	any_step(session, tx);
	if (!tx->is_lost)
		log_tx(session, tx->is_failed ? "undone" : "committed", tx);
	return !tx->is_lost;
}

/* Ends with the server: the next session has another name, and its own tokens. */
int
transact(Session *session)
{
	const Options *opt = session->opt;
	long serial = 0;

	next_id = opt->first_id;
	if (!session_connect(session))
		return 1;
	while (!session_over(session))
	{
		Transaction tx = {.is_single = false};

		snprintf(tx.name, sizeof(tx.name), "%s-%ld", opt->name, ++serial);
		if (!(random_below(session, 3) == 0 ? run_single(session, &tx) :
											  run_transaction(session, &tx)))
			return 0;
		/* What was undone is as before. */
		if (tx.is_failed)
		{
			taken.count = 0;
			move_tokens(&ended, &held);
		}
		else
		{
			ended.count = 0;
			move_tokens(&taken, &held);
		}
		sleep_ms(random_fraction(session) * 2 * opt->pace_ms);
	}
	return 1;
}
