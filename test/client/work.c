/*-------------------------------------------------------------------------
 *
 * work.c
 *	  The worker side of the stress-test client: fetch, work, acknowledge.
 *
 * Every acknowledgement is logged before it is sent ("acking") and after the
 * answer ("acked", "refused", "unknown" or "error").  One whose answer was
 * lost is sent once more with the same token after the next connect, as a
 * careful worker would do.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"

#define BATCH_LIMIT 1000
#define IDLE_NAP_MS 20

typedef struct Claim
{
	char id[UUID_TEXT_LEN];
	char attempt[16];
	double lease_end; /* server's clock, seconds */
} Claim;

static Statement fetch_stmt =
	{"fetch",
	 "SELECT id, attempt, state, extract(epoch FROM lease_expires_at),"
	 " queue, priority, max_retries"
	 " FROM qml_fetch($1, string_to_array($2, ','), $3::int, $4::interval)",
	 4, 0};
static Statement heartbeat_stmt =
	{"heartbeat", "SELECT extract(epoch FROM qml_heartbeat($1::uuid, $2::int, $3::interval))", 3,
	 0};
static Statement progress_stmt = {"progress",
								  "SELECT qml_progress($1::uuid, $2::int, '{\"percent\": 50}')", 2,
								  0};
static Statement succeed_stmt =
	{"succeed",
	 "SELECT 'succeeded' FROM (SELECT qml_succeed($1::uuid, $2::int, '{\"done\": true}')) q", 2, 0};
static Statement succeed_many_stmt = {"succeed_many",
									  "SELECT qml_succeed_many($1::uuid[], $2::int[])", 2, 0};
static Statement fail_stmt =
	{"fail",
	 "SELECT qml_fail($1::uuid, $2::int, 'made to fail', 'qml_client', NULL,"
	 " $3::boolean, clock_timestamp() + $4::interval)",
	 4, 0};
static Statement release_stmt = {"release",
								 "SELECT 'enqueued' FROM (SELECT qml_release($1::uuid, $2::int)) q",
								 2, 0};
static Statement promote_stmt = {"promote", "SELECT qml_promote_due()", 0, 0};
static Statement reclaim_stmt = {"reclaim", "SELECT qml_reclaim()", 0, 0};
static Statement nothing_live_stmt = {"nothing_live", "SELECT NOT EXISTS (SELECT FROM qml.live)", 0,
									  0};

/* The answer to a token that is not the current claim's. */
static bool
is_refusal(const char *sqlstate)
{
	return strcmp(sqlstate, "QM003") == 0 || strcmp(sqlstate, "QM001") == 0;
}

static void
log_error(Session *session, const char *op, const Claim *claim)
{
	session->count.errors++;
	log_event(session, "error", claim ? claim->id : NULL, claim ? claim->attempt : NULL, NULL,
			  "op=%s sqlstate=%s", op, session->sqlstate);
}

/* For statements whose outcome changes nothing that the checker follows. */
static Outcome
run_plain(Session *session, const char *op, Statement *stmt, const char *const *values)
{
	Outcome outcome = session_run(session, stmt, values);

	if (outcome == OUTCOME_ERROR)
		log_error(session, op, NULL);
	else if (outcome == OUTCOME_LOST)
		log_event(session, "lost", NULL, NULL, NULL, "op=%s", op);
	return outcome;
}

static void
maintain(Session *session)
{
	if (run_plain(session, "promote_due", &promote_stmt, NULL) != OUTCOME_LOST)
		run_plain(session, "reclaim", &reclaim_stmt, NULL);
}

static bool
nothing_live(Session *session)
{
	return run_plain(session, "count", &nothing_live_stmt, NULL) == OUTCOME_OK &&
		   strcmp(session_value(session, 0, 0), "t") == 0;
}

/* Returns the number of jobs claimed; with a lost connection 0, too. */
static int
fetch(Session *session, Claim *claims)
{
	const Options *opt = session->opt;
	char batch[16];
	const char *values[4] = {opt->name, opt->queues, batch, opt->lease};
	int n;

	snprintf(batch, sizeof(batch), "%d", opt->batch);
	switch (session_run(session, &fetch_stmt, values))
	{
		case OUTCOME_OK:
			break;
		case OUTCOME_ERROR:
			log_error(session, "fetch", NULL);
			return 0;
		case OUTCOME_LOST:
			session->count.unknown++;
			log_event(session, "unknown", NULL, NULL, NULL, "op=fetch batch=%s", batch);
			return 0;
	}

	n = PQntuples(session->result);
	for (int i = 0; i < n; i++)
	{
		Claim *claim = &claims[i];

		if (i == BATCH_LIMIT)
		{
			fprintf(stderr, "fetch returned %d jobs\n", n);
			exit(2);
		}
		snprintf(claim->id, sizeof(claim->id), "%s", session_value(session, i, 0));
		snprintf(claim->attempt, sizeof(claim->attempt), "%s", session_value(session, i, 1));
		claim->lease_end = atof(session_value(session, i, 3));
		log_event(session, "claimed", claim->id, claim->attempt, session_value(session, i, 2),
				  "lease=%s queue=%s priority=%s max_retries=%s batch=%d/%s",
				  session_value(session, i, 3), session_value(session, i, 4),
				  session_value(session, i, 5), session_value(session, i, 6), n, batch);
	}
	session->count.claimed += n;
	return n;
}

/*
 * Sends one acknowledgement.  note ends the detail of its events.  False: the
 * answer was lost.
 */
static bool
acknowledge_once(Session *session, const char *op, Statement *stmt, const char *const *values,
				 const Claim *claim, const char *note)
{
	log_event(session, "acking", claim->id, values[1], NULL, "op=%s%s", op, note);
	switch (session_run(session, stmt, values))
	{
		case OUTCOME_OK:
			session->count.acked++;
			log_event(session, "acked", claim->id, values[1], session_value(session, 0, 0),
					  "op=%s%s", op, note);
			break;
		case OUTCOME_ERROR:
			if (is_refusal(session->sqlstate))
			{
				session->count.refused++;
				log_event(session, "refused", claim->id, values[1], NULL, "op=%s sqlstate=%s%s", op,
						  session->sqlstate, note);
			}
			else
				log_error(session, op, claim);
			break;
		case OUTCOME_LOST:
			session->count.unknown++;
			log_event(session, "unknown", claim->id, values[1], NULL, "op=%s%s", op, note);
			return false;
	}
	return true;
}

static void
acknowledge(Session *session, const char *op, Statement *stmt, const char *const *values,
			const Claim *claim)
{
	if (!session_connect(session))
		return;
	if (!acknowledge_once(session, op, stmt, values, claim, "") && session_connect(session))
		acknowledge_once(session, op, stmt, values, claim, " again=1");
}

/* A token of an earlier attempt, which can never be right. */
static void
acknowledge_stale(Session *session, const Claim *claim)
{
	char attempt[16];
	const char *values[2] = {claim->id, attempt};

	snprintf(attempt, sizeof(attempt), "%d", atoi(claim->attempt) - 1);
	if (session_connect(session))
		acknowledge_once(session, "succeed", &succeed_stmt, values, claim, " stale=1");
}

/* False: the claim is gone, or the answer is. */
static bool
heartbeat(Session *session, Claim *claim)
{
	const char *values[3] = {claim->id, claim->attempt, session->opt->lease};

	if (!session_connect(session))
		return false;
	log_event(session, "beating", claim->id, claim->attempt, NULL, "op=heartbeat");
	switch (session_run(session, &heartbeat_stmt, values))
	{
		case OUTCOME_OK:
			claim->lease_end = atof(session_value(session, 0, 0));
			log_event(session, "beat", claim->id, claim->attempt, "processing",
					  "op=heartbeat lease=%s", session_value(session, 0, 0));
			break;
		case OUTCOME_ERROR:
			if (is_refusal(session->sqlstate))
			{
				session->count.refused++;
				log_event(session, "refused", claim->id, claim->attempt, NULL,
						  "op=heartbeat sqlstate=%s", session->sqlstate);
			}
			else
				log_error(session, "heartbeat", claim);
			return false;
		case OUTCOME_LOST:
			log_event(session, "lost", claim->id, claim->attempt, NULL, "op=heartbeat");
			return false;
	}

	switch (session_run(session, &progress_stmt, values))
	{
		case OUTCOME_OK:
			return true;
		case OUTCOME_ERROR:
			/* the lease may have ended since, and another taken the job */
			if (!is_refusal(session->sqlstate))
				log_error(session, "progress", claim);
			return is_refusal(session->sqlstate);
		case OUTCOME_LOST:
			log_event(session, "lost", claim->id, claim->attempt, NULL, "op=progress");
			break;
	}
	return false;
}

static void
fail(Session *session, const Claim *claim, bool retry)
{
	char delay[32];
	const char *values[4] = {claim->id, claim->attempt, retry ? "true" : "false", NULL};

	if (session->opt->retry_ms >= 0)
	{
		snprintf(delay, sizeof(delay), "%.3f ms", session->opt->retry_ms);
		values[3] = delay;
	}
	acknowledge(session, "fail", &fail_stmt, values, claim);
}

/*
 * Works on one job.  True: it has succeeded, and the caller is to say so.
 */
static bool
perform(Session *session, Claim *claim)
{
	const Options *opt = session->opt;
	const char *values[2] = {claim->id, claim->attempt};
	double fate;

	if (random_fraction(session) < opt->heartbeat && !heartbeat(session, claim))
		return false;
	if (random_fraction(session) < opt->stale)
		acknowledge_stale(session, claim);

	if (random_fraction(session) < opt->overstay)
		sleep_ms((claim->lease_end - now_seconds()) * 1000 + 500);
	else
		sleep_ms(random_fraction(session) * opt->hold_ms);
	if (random_fraction(session) < opt->abandon)
		return false;

	fate = random_fraction(session);
	if (fate < opt->fail)
		fail(session, claim, true);
	else if ((fate -= opt->fail) < opt->fail_final)
		fail(session, claim, false);
	else if ((fate -= opt->fail_final) < opt->release)
		acknowledge(session, "release", &release_stmt, values, claim);
	else
		return true;
	return false;
}

static bool
accepted(Session *session, const char *id)
{
	for (int i = 0; i < PQntuples(session->result); i++)
		if (strcmp(session_value(session, i, 0), id) == 0)
			return true;
	return false;
}

/* False: the answer was lost. */
static bool
succeed_many_once(Session *session, const Claim *claims, int n, const char *note)
{
	static char ids[BATCH_LIMIT * UUID_TEXT_LEN + 2];
	static char attempts[BATCH_LIMIT * 16 + 2];
	const char *values[2] = {ids, attempts};
	char *id_end = ids;
	char *attempt_end = attempts;
	Outcome outcome;

	for (int i = 0; i < n; i++)
	{
		id_end += sprintf(id_end, "%c%s", i == 0 ? '{' : ',', claims[i].id);
		attempt_end += sprintf(attempt_end, "%c%s", i == 0 ? '{' : ',', claims[i].attempt);
		log_event(session, "acking", claims[i].id, claims[i].attempt, NULL, "op=succeed_many%s",
				  note);
	}
	strcpy(id_end, "}");
	strcpy(attempt_end, "}");

	outcome = session_run(session, &succeed_many_stmt, values);
	if (outcome == OUTCOME_ERROR)
		log_error(session, "succeed_many", NULL);
	for (int i = 0; i < n; i++)
	{
		const char *event = "error";

		if (outcome == OUTCOME_LOST)
		{
			session->count.unknown++;
			event = "unknown";
		}
		else if (outcome == OUTCOME_OK && accepted(session, claims[i].id))
		{
			session->count.acked++;
			event = "acked";
		}
		else if (outcome == OUTCOME_OK)
		{
			session->count.refused++;
			event = "refused";
		}
		log_event(session, event, claims[i].id, claims[i].attempt,
				  strcmp(event, "acked") == 0 ? "succeeded" : NULL, "op=succeed_many sqlstate=%s%s",
				  session->sqlstate, note);
	}
	return outcome != OUTCOME_LOST;
}

static void
succeed_many(Session *session, const Claim *claims, int n)
{
	if (n == 0 || !session_connect(session))
		return;
	if (!succeed_many_once(session, claims, n, "") && session_connect(session))
		succeed_many_once(session, claims, n, " again=1");
}

static void
perform_batch(Session *session, Claim *claims, int n)
{
	int done = 0;

	for (int i = 0; i < n; i++)
	{
		const char *values[2] = {claims[i].id, claims[i].attempt};

		if (!perform(session, &claims[i]))
			continue;
		if (session->opt->many)
			claims[done++] = claims[i];
		else
			acknowledge(session, "succeed", &succeed_stmt, values, &claims[i]);
	}
	succeed_many(session, claims, done);
}

/*
 * The exit code: 1 when jobs were still unfinished at the deadline of a drain.
 */
int
work(Session *session)
{
	static Claim claims[BATCH_LIMIT];
	const Options *opt = session->opt;
	double maintain_at = 0;
	int empty = 0;

	while (session_connect(session) && !session_over(session))
	{
		int n;

		if (opt->maintain_ms >= 0 && now_seconds() >= maintain_at)
		{
			maintain(session);
			maintain_at = now_seconds() + opt->maintain_ms / 1000;
			continue;
		}

		n = fetch(session, claims);
		if (n > 0)
		{
			empty = 0;
			perform_batch(session, claims, n);
			continue;
		}
		if (session->conn == NULL)
			continue;
		if (opt->drain && ++empty >= opt->idle && nothing_live(session))
			return 0;
		sleep_ms(IDLE_NAP_MS);
	}
	return opt->drain && now_seconds() >= session->deadline ? 1 : 0;
}
