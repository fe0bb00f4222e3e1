/*
 * audit_partitions.h
 *		Partitions of the record of acts: made ahead of need, filled up, dropped.
 */
#ifndef QML_AUDIT_PARTITIONS_H
#define QML_AUDIT_PARTITIONS_H

extern void qml_audit_partitions_make(void);
extern void qml_audit_partitions_settle(void);
extern void qml_audit_partitions_drop(void);
extern void qml_audit_partitions_revoke(void);

#endif
