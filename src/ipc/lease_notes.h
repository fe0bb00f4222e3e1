/*
 * lease_notes.h
 *		What a transaction does to claims, for the table of leases.
 */
#ifndef QML_LEASE_NOTES_H
#define QML_LEASE_NOTES_H

#include "ipc/lease_table.h"

extern void qml_lease_notes_init(void);
extern void qml_lease_notes_claim(const QmlLease *lease);
extern void qml_lease_notes_end(const pg_uuid_t *job, int attempt);
extern void qml_lease_notes_unknown(void);
extern bool qml_lease_notes_exist(void);

#endif
