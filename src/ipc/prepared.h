/*
 * prepared.h
 *		Wake-ups of prepared transactions.
 */
#ifndef QML_PREPARED_H
#define QML_PREPARED_H

extern void qml_prepared_init(void);

#endif
