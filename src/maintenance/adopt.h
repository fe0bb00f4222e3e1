/*
 * adopt.h
 *		Adopting a copy of a database.
 */
#ifndef QML_ADOPT_H
#define QML_ADOPT_H

extern void qml_adopt_database(void);

#endif
