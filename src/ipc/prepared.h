/*
 * prepared.h
 *		Prepared transactions: what they will do when they end.
 */
#ifndef QML_PREPARED_H
#define QML_PREPARED_H

extern void qml_prepared_init(void);
extern void qml_prepared_settle(bool all);
extern void qml_prepared_find_old(Oid table);

#endif
