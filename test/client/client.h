/*-------------------------------------------------------------------------
 *
 * client.h
 *	  What the parts of the stress-test client share.
 *
 * The client is one process with one connection.  It writes down what it
 * asked and what it was told, and never what it concludes: the checker
 * (test/t/QmlChecker.pm) holds these records against the database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QML_CLIENT_H
#define QML_CLIENT_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

#define UUID_TEXT_LEN 37 /* with the terminating zero */
#define SQLSTATE_LEN  6
#define LINE_MAX_LEN  1024

typedef struct Options
{
	/* all subcommands */
	const char *conninfo;
	const char *first_options; /* for the first connection's backend */
	const char *name;
	const char *log_dir;
	const char *stop_file;
	const char *queues; /* comma separated, NULL: all */
	uint64_t seed;
	double max_seconds;
	bool prepared;

	/* work: fractions are of the jobs claimed */
	int batch;
	const char *lease;
	double fail;
	double fail_final;
	double release;
	double heartbeat;
	double overstay; /* keep the job until after its lease */
	double abandon;	 /* say nothing more about the job */
	double stale;	 /* send an acknowledgement that must be refused */
	double hold_ms;
	double retry_ms;	/* < 0: leave it to the retry policy */
	double maintain_ms; /* < 0: no maintenance */
	bool many;
	bool drain;
	int idle;

	/* produce: fractions are of the units, each one or many jobs */
	const char *methods; /* comma separated, NULL: client.job and client.many */
	int jobs;
	int many_size;
	int priorities;
	int max_retries; /* < 0: the queue's */
	double many_fraction;
	double transaction;
	double rollback;
	double delayed;
	double delay_ms;
	double pace_ms; /* sleep between units, twice that at most */

	/*
	 * transact: fractions are of the transactions, that of heartbeats of the steps; also queues,
	 * methods, batch, lease, heartbeat, rollback, pace_ms
	 */
	double row;		/* write a row of a user's table */
	double prepare; /* are prepared first */
	int id_series;	/* of the ids that are the session's own */
	int first_id;
	const char *handler_queues; /* jobs of the methods are made there, and not claimed */
	bool claim_in_blocks;		/* no claim is a transaction by itself */
} Options;

typedef enum Outcome
{
	OUTCOME_OK,
	OUTCOME_ERROR, /* the server refused; nothing was done */
	OUTCOME_LOST   /* no answer: done or not done */
} Outcome;

typedef struct Statement
{
	const char *name; /* NULL: never prepared */
	const char *sql;
	int nparams;
	unsigned prepared_in; /* Session.generation, 0: none */
} Statement;

typedef struct Counters
{
	long enqueued;
	long rolledback;
	long claimed;
	long acked;
	long refused;
	long unknown;
	long lost;
	long errors;
} Counters;

typedef struct Session
{
	const Options *opt;
	PGconn *conn;		 /* NULL: not connected */
	unsigned generation; /* counts the connections */
	PGresult *result;	 /* of the last statement */
	char sqlstate[SQLSTATE_LEN];
	int log_fd;
	uint64_t random; /* state of the generator */
	double deadline;
	Counters count;
} Session;

/* session.c */
extern double now_seconds(void);
extern void sleep_ms(double ms);
extern uint64_t random_next(Session *session);
extern double random_fraction(Session *session);
extern int random_below(Session *session, int limit);
extern void choose_from(Session *session, const char *list, char *chosen, size_t size);
extern void session_open(Session *session, const Options *opt);
extern bool session_over(Session *session);
extern bool session_connect(Session *session);
extern Outcome session_run(Session *session, Statement *stmt, const char *const *values);
extern const char *session_value(Session *session, int row, int column);
extern void session_close(Session *session);
extern void log_event(Session *session, const char *event, const char *id, const char *attempt,
					  const char *state, const char *detail, ...)
	__attribute__((format(printf, 6, 7)));

/* produce.c */
extern int produce(Session *session);

/* transact.c */
extern int transact(Session *session);

/* work.c */
extern int work(Session *session);

#endif /* QML_CLIENT_H */
