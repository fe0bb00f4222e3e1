/*
 * statement.c
 *		The text of a command handler: one statement, that may run in a worker's session.
 *
 * The statement runs as a client's would (process/command.c): a transaction of its own, at
 * the top level.  So what only makes sense beside other statements, with a client at the
 * other end, or to change the session, is refused.  What a statement may leave in the
 * session otherwise, such as a temporary table or an advisory lock, is removed after it
 * (process/session_reset.c).
 *
 * The same look is taken when a command is registered, and before each run.  What a quoted
 * string means does not depend on the session in either: its settings are fixed.
 */
#include "postgres.h"

#include "parser/parser.h"
#include "tcop/utility.h"
#include "utils/guc.h"

#include "common/guc.h"
#include "userfn/statement.h"

/* An error of the parser is about the command, and not about the caller's statement. */
static void
blame_command(void *arg)
{
	int position = geterrposition();

	if (position <= 0)
		return;
	errposition(0);
	internalerrposition(position);
	internalerrquery(arg);
}

/* Why the statement cannot be a command, a sentence; NULL: it can. */
static const char *
refuse_statement(const Node *statement)
{
	switch (nodeTag(statement))
	{
		case T_TransactionStmt:
			return "A command is a transaction of its own.";
		case T_ListenStmt:
		case T_UnlistenStmt:
			return "A background process has no client that could be notified.";
		case T_CopyStmt:
			if (((const CopyStmt *) statement)->filename != NULL)
				return NULL;
			return "A background process has no client to exchange data with.";
		case T_PrepareStmt:
		case T_ExecuteStmt:
		case T_DeallocateStmt:
		case T_DeclareCursorStmt:
		case T_FetchStmt:
		case T_ClosePortalStmt:
		case T_LockStmt:
		case T_ConstraintsSetStmt:
			return "It makes sense beside other statements only.";
		case T_VariableSetStmt:
		case T_DiscardStmt:
		case T_LoadStmt:
			return "It changes the session, which other jobs use too.";
		default:
			return NULL;
	}
}

/*
 * The statement of a command, in the current memory context.  Raises 42601 if the text is not
 * one statement, 0A000 if it is one that cannot be a command.
 */
RawStmt *
qml_statement_parse(const char *command)
{
	ErrorContextCallback callback = {.callback = blame_command,
									 .arg = unconstify(char *, command),
									 .previous = error_context_stack};
	int guc_level = NewGUCNestLevel();
	List *statements;
	RawStmt *statement;
	const char *reason;

	qml_guc_set("standard_conforming_strings", "on");
	error_context_stack = &callback;
	statements = raw_parser(command, RAW_PARSE_DEFAULT);
	error_context_stack = callback.previous;
	AtEOXact_GUC(true, guc_level);

	if (list_length(statements) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR), errmsg("a command must be one statement"),
				 errdetail("The text has %d.", list_length(statements)),
				 statements == NIL ?
					 0 :
					 errhint("Register a procedure for several: it can commit between them.")));
	statement = linitial_node(RawStmt, statements);
	reason = refuse_statement(statement->stmt);
	if (reason)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s cannot be a command", CreateCommandName(statement->stmt)),
				 errdetail("%s", reason)));
	return statement;
}
