/*
 * errcodes.h
 *		SQLSTATEs of class QM, qml's own.  Where the standard has a code, that
 *		one is used instead.
 */
#ifndef QML_ERRCODES_H
#define QML_ERRCODES_H

#define ERRCODE_QML_JOB_NOT_FOUND			 MAKE_SQLSTATE('Q', 'M', '0', '0', '1')
#define ERRCODE_QML_INVALID_STATE_TRANSITION MAKE_SQLSTATE('Q', 'M', '0', '0', '2')
#define ERRCODE_QML_STALE_CLAIM				 MAKE_SQLSTATE('Q', 'M', '0', '0', '3')
#define ERRCODE_QML_INVALID_CRON			 MAKE_SQLSTATE('Q', 'M', '0', '0', '4')
#define ERRCODE_QML_INVALID_OPTION			 MAKE_SQLSTATE('Q', 'M', '0', '0', '5')
#define ERRCODE_QML_QUEUE_NOT_FOUND			 MAKE_SQLSTATE('Q', 'M', '0', '0', '6')
#define ERRCODE_QML_HANDLER_NOT_FOUND		 MAKE_SQLSTATE('Q', 'M', '0', '0', '7')
#define ERRCODE_QML_PAYLOAD_MISMATCH		 MAKE_SQLSTATE('Q', 'M', '0', '0', '8')
/* Reserved: qml_unlock answers false. */
#define ERRCODE_QML_LOCK_NOT_HELD MAKE_SQLSTATE('Q', 'M', '0', '0', '9')

/* Of warnings. */
#define ERRCODE_QML_STALE_CLAIMS_SKIPPED MAKE_SQLSTATE('0', '1', 'Q', 'M', '3')
#define ERRCODE_QML_SEARCH_PARTIAL		 MAKE_SQLSTATE('0', '1', 'Q', 'M', '4')

#endif
