/*
 * launcher.h
 *		The process that keeps a scheduler in each database.
 */
#ifndef QML_LAUNCHER_H
#define QML_LAUNCHER_H

extern void qml_launcher_register(void);

#endif
