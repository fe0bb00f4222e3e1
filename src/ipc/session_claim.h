/*
 * session_claim.h
 *		Sessions that hold jobs for as long as they live.
 */
#ifndef QML_SESSION_CLAIM_H
#define QML_SESSION_CLAIM_H

#include "utils/uuid.h"

/* How a job was lost with its session. */
typedef enum QmlLoss
{
	QML_LOST_SOMEHOW = 0,
	QML_LOST_RUNNING,  /* it ran when the session ended */
	QML_LOST_OVERDUE,  /* so it did, after its timeout */
	QML_LOST_IN_GROUP, /* so it did, for longer than its group could wait: alone it may */
	QML_LOST_BESIDE	   /* another one did */
} QmlLoss;

extern bool qml_session_claim_can_hold(void);
extern char *qml_session_claim_id(void);
extern void qml_session_claim_hold(const pg_uuid_t *job);
extern void qml_session_claim_hold_none(void);
extern bool qml_session_claim_is_gone(const char *server, int length);
extern bool qml_session_claim_went_with_server(const char *server);
extern void qml_session_claim_note_culprit(const pg_uuid_t *job, int attempt, QmlLoss loss);
extern QmlLoss qml_session_claim_loss_of(const char *server, const pg_uuid_t *job, int attempt);

#endif
