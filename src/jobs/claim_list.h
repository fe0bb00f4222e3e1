/*
 * claim_list.h
 *		Claiming the ready jobs of a queue from its list in shared memory.
 */
#ifndef QML_CLAIM_LIST_H
#define QML_CLAIM_LIST_H

#include "ipc/ready_list.h"
#include "jobs/writer.h"

/* How a pass goes through a list. */
typedef enum QmlListPass
{
	/* Each job is wanted: entries are taken out before their rows are read. */
	QML_LIST_TAKE = 0,
	/* Some jobs may be left: entries leave the list when their rows are changed. */
	QML_LIST_CHOOSE,
	/* Nothing is claimed. */
	QML_LIST_PEEK
} QmlListPass;

/* A pass over the list of one queue. */
typedef struct QmlClaimList
{
	QmlWriter *writer;
	Relation ready; /* the index live_ready */
	int queue;
	QmlListPass pass;
	QmlReadyMatch match; /* NULL: all jobs */
	void *arg;
	bool has_end; /* the pass ends before a key: */
	QmlReadyKey end;

	QmlReadyEntry *entries; /* that were taken or looked at last */
	int room;
	int count;
	int next;
	bool is_taken;	   /* the entry that was read last */
	int claimed;	   /* jobs, of entries that were taken */
	QmlReadyKey after; /* the last of the entries */
	bool has_after;
	QmlReadyEntry *held; /* were taken, and go back */
	int nheld;
	int held_room;
	int looked; /* in a peek */

	bool has_moved;		 /* the jobs of the queue are in other tables: the pass is over */
	bool all;			 /* the list had all ready jobs of the queue, and is through */
	bool is_low;		 /* it had few, and more may be in the index */
	QmlReadyBound bound; /* it has nothing behind this */
} QmlClaimList;

extern bool qml_claim_list_read(QmlWriter *writer, int queue, const QmlReadyEntry *entry);
extern bool qml_claim_list_usable(const QmlWriter *writer);
extern void qml_claim_list_begin(QmlClaimList *list, QmlWriter *writer, Relation ready, int queue,
								 QmlListPass pass, QmlReadyMatch match, void *arg);
extern bool qml_claim_list_next(QmlClaimList *list, int wanted);
extern void qml_claim_list_look_once(QmlWriter *writer, Relation ready, int queue);
extern void qml_claim_list_judge(QmlClaimList *list, TM_Result result);
extern bool qml_claim_list_end(QmlClaimList *list);

#endif
