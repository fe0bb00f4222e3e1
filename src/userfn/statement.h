/*
 * statement.h
 *		The text of a command handler: one statement.
 */
#ifndef QML_STATEMENT_H
#define QML_STATEMENT_H

#include "nodes/parsenodes.h"

/* Longest text of a command, in bytes: each session that meets the handler keeps it. */
#define QML_MAX_COMMAND 65536

extern RawStmt *qml_statement_parse(const char *command);

#endif
