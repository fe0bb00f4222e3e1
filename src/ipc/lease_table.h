/*
 * lease_table.h
 *		The claims that run, and when each ends by itself.
 */
#ifndef QML_LEASE_TABLE_H
#define QML_LEASE_TABLE_H

#include "ipc/shmem.h"

/* A claim, as the table knows it. */
typedef struct QmlLease
{
	pg_uuid_t job;
	int attempt;
	uint32 server;	   /* hash of its server's id; 0: it has none, or is bound to a session */
	bool bound;		   /* it ends with a session: */
	int session;	   /* - which one: see session_claim.c */
	uint32 token;	   /* - of that */
	TimestampTz end;   /* otherwise: of the lease, or when it is looked at next */
	QmlRowPlace place; /* a hint */
} QmlLease;

/* What claims are looked for. */
typedef struct QmlLeaseSearch
{
	/* Given by the caller. */
	TimestampTz now;
	bool put_off;		   /* also those that were put off until later */
	bool only_servers;	   /* only those of `servers` */
	int nservers;		   /* also those of these servers: */
	const uint32 *servers; /* - hashes of their ids */

	/* Results. */
	bool has_servers; /* some running claim has a server */
	TimestampTz next; /* when to look again; QML_WAKE_NEVER: it is not known */
} QmlLeaseSearch;

/* By transactions (lease_notes.c), and by whoever has read a claim's row. */
extern bool qml_lease_table_set(const QmlLease *lease);
extern bool qml_lease_table_set_sooner(const QmlLease *lease);
extern void qml_lease_table_note_end(const pg_uuid_t *job, int attempt);
extern void qml_lease_table_remove(const pg_uuid_t *job, int attempt);
extern void qml_lease_table_miss(void);
extern void qml_lease_table_miss_prepared(void);
extern uint32 qml_lease_table_hash_server(const char *server, int length);

/* By those who look for lost jobs, of their own database. */
extern uint64 qml_lease_table_begin_reading(TimestampTz *told_since);
extern void qml_lease_table_end_reading(uint64 mark);
extern bool qml_lease_table_is_known(void);
extern bool qml_lease_table_shows(const pg_uuid_t *job, TimestampTz now);
extern bool qml_lease_table_place(const pg_uuid_t *job, QmlRowPlace *place);
extern int qml_lease_table_count(void);
extern void qml_lease_table_count_ends(TimestampTz over, TimestampTz soon, int *nover, int *nsoon);
extern int qml_lease_table_jobs(pg_uuid_t *jobs, int max);
extern int qml_lease_table_find(QmlLeaseSearch *search, QmlLease *found, int max);
extern void qml_lease_table_renew(const QmlLease *seen, const QmlLease *row);
extern TimestampTz qml_lease_table_put_off(const QmlLease *seen, TimestampTz now);
extern void qml_lease_table_drop(const QmlLease *seen);

#endif
