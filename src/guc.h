/*
 * guc.h
 *		Settings.
 */
#ifndef QML_GUC_H
#define QML_GUC_H

extern int qml_max_retries;
extern int qml_job_timeout;		 /* milliseconds */
extern int qml_lease;			 /* milliseconds */
extern int qml_succeeded_ttl;	 /* seconds */
extern int qml_failed_ttl;		 /* seconds */
extern int qml_max_payload_size; /* kilobytes */

extern void qml_guc_init(void);

#endif
