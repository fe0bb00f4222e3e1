/*
 * command.h
 *		Running the statement of a command handler.
 */
#ifndef QML_COMMAND_H
#define QML_COMMAND_H

#include "process/runner.h"

extern void qml_command_run(QmlRunner *runner, QmlAttempt *attempt, const char *command);

#endif
