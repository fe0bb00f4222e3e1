/*
 * idle.h
 *		Warnings where background work is asked for that nothing will do.
 */
#ifndef QML_IDLE_H
#define QML_IDLE_H

/* What is asked for. */
typedef enum QmlIdleWork
{
	QML_IDLE_INSTALL = 0, /* the extension is being made */
	QML_IDLE_DELAYED,	  /* a job that becomes ready later */
	QML_IDLE_RECURRING,	  /* a schedule */
	QML_IDLE_HANDLER,	  /* a handler */
	QML_IDLE_BULK		  /* a bulk operation */
} QmlIdleWork;

#define QML_IDLE_WORKS 5

extern bool qml_idle_is_listed(void);
extern void qml_idle_warn(QmlIdleWork work);

#endif
