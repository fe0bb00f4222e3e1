/*
 * lobject.h
 *		Large objects by descriptor, which functions of users must not share.
 */
#ifndef QML_LOBJECT_H
#define QML_LOBJECT_H

extern void qml_lobject_init(void);
extern bool qml_lobject_forbid(bool forbid);

#endif
