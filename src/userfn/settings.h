/*
 * settings.h
 *		Settings that decide what the text of a function means.
 */
#ifndef QML_SETTINGS_H
#define QML_SETTINGS_H

/* How many of them are pinned. */
#define QML_PINNED_SETTINGS 28

/* Their values at some time. */
typedef struct QmlSettings
{
	char *values[QML_PINNED_SETTINGS];
} QmlSettings;

extern void qml_settings_pin(void);
extern void qml_settings_save(QmlSettings *settings);
extern void qml_settings_restore(const QmlSettings *settings);

#endif
