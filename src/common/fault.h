/*
 * fault.h
 *		Places where tests may make qml fail.  Nothing of it is in a release build.
 *
 * With -DQML_FAULTS the setting qml.faults, a list of name:action[:nth]
 * separated by commas, arms a point: at its nth passage in a backend (the first
 * unless told otherwise) it raises an ERROR (error), does so there and at each
 * later passage (always), ends the session (fatal), kills the backend with
 * SIGABRT, which makes the server restart (abort), or waits as long as another
 * session has the advisory lock QML_FAULT_GATE (wait).
 * name:limit:number is no fault, but replaces a limit of the code for the test.
 */
#ifndef QML_FAULT_H
#define QML_FAULT_H

#ifdef QML_FAULTS

#define QML_FAULT_GATE 4711

extern void qml_fault_init(void);
extern void qml_fault_reached(const char *name);
extern void qml_fault_at_commit(const char *name);
extern int qml_fault_limit(const char *name, int usual);

#define QML_FAULT(name)				 qml_fault_reached(name)
#define QML_FAULT_AT_COMMIT(name)	 qml_fault_at_commit(name)
#define QML_FAULT_LIMIT(name, usual) qml_fault_limit(name, usual)

#else

#define qml_fault_init()			 ((void) 0)
#define QML_FAULT(name)				 ((void) 0)
#define QML_FAULT_AT_COMMIT(name)	 ((void) 0)
#define QML_FAULT_LIMIT(name, usual) (usual)

#endif
#endif
