/*
 * session_claim.h
 *		Sessions that hold jobs for as long as they live.
 */
#ifndef QML_SESSION_CLAIM_H
#define QML_SESSION_CLAIM_H

#include "ipc/shmem.h"

extern void qml_session_claim_set_background(void);
extern void qml_session_claim_begin_job(void);
extern void qml_session_claim_end_job(void);
extern bool qml_session_claim_can_hold(void);
extern char *qml_session_claim_id(void);
extern void qml_session_claim_holder(int *number, uint32 *token);
extern void qml_session_claim_hold(const pg_uuid_t *job);
extern void qml_session_claim_hold_none(void);
extern void qml_session_claim_begin_search(void);
extern bool qml_session_claim_is_gone(const char *server, int length);
extern bool qml_session_claim_find(const char *server, int length, int *number, uint32 *token);
extern int qml_session_claim_pid(const char *server, int length);
extern bool qml_session_claim_has_ended(int number, uint32 token);
extern bool qml_session_claim_went_with_server(const char *server);
extern bool qml_session_claim_is_of_job(const char *server);
extern int qml_session_claim_take_lost(QmlSlot *scheduler, pg_uuid_t *jobs, bool *any);
extern void qml_session_claim_give_back_lost(const pg_uuid_t *jobs, int count);
extern void qml_session_claim_hand_over(QmlSlot *scheduler);
extern void qml_session_claim_note_last_job(const pg_uuid_t *job, int attempt, QmlLoss loss);
extern void qml_session_claim_note_none(void);
extern QmlLoss qml_session_claim_loss_of(const char *server, const pg_uuid_t *job, int attempt);
extern bool qml_session_claim_held_up_group(const pg_uuid_t *job);

#endif
