/*
 * state.c
 *		The state machine of a job: the one place that knows which state may
 *		follow which.
 *
 * Pure: it compiles without a server and keeps nothing.  qml_can_transition() shows
 * the table to SQL, and the tests walk it.
 */
#include "core/state.h"

#define BIT(state) (1 << (state))

/* What may follow each state.  Final states are those that live in history. */
static const struct
{
	const char *label;
	int next;
	bool final;
} states[QML_STATES] = {
	[QML_SCHEDULED] = {"scheduled", BIT(QML_ENQUEUED) | BIT(QML_DELETED), false},
	[QML_ENQUEUED] = {"enqueued",
					  BIT(QML_PROCESSING) | BIT(QML_SCHEDULED) | BIT(QML_FAILED) | BIT(QML_DELETED),
					  false},
	[QML_PROCESSING] = {"processing",
						BIT(QML_SUCCEEDED) | BIT(QML_FAILED) | BIT(QML_AWAITING_RETRY) |
							BIT(QML_ENQUEUED) | BIT(QML_DELETED),
						false},
	[QML_AWAITING_RETRY] = {"awaiting_retry", BIT(QML_ENQUEUED) | BIT(QML_DELETED), false},
	[QML_SUCCEEDED] = {"succeeded", BIT(QML_DELETED), true},
	[QML_FAILED] = {"failed", BIT(QML_ENQUEUED) | BIT(QML_AWAITING_RETRY) | BIT(QML_DELETED), true},
	[QML_DELETED] = {"deleted", 0, true},
	/* For dependencies between jobs, which there are none of yet: nothing leads to it. */
	[QML_AWAITING_PARENTS] = {"awaiting_parents",
							  BIT(QML_ENQUEUED) | BIT(QML_SCHEDULED) | BIT(QML_DELETED), false},
};

bool
qml_state_allowed(QmlState from, QmlState to)
{
	return (states[from].next & BIT(to)) != 0;
}

bool
qml_state_is_final(QmlState state)
{
	return states[state].final;
}

const char *
qml_state_label(QmlState state)
{
	return states[state].label;
}
