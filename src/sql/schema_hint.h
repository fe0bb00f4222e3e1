/*
 * schema_hint.h
 *		What a role without any capability is told when it names a view.
 */
#ifndef QML_SCHEMA_HINT_H
#define QML_SCHEMA_HINT_H

extern void qml_schema_hint_init(void);

#endif
