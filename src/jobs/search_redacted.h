/*
 * search_redacted.h
 *		Queries that ask for what is hidden from the current user.
 */
#ifndef QML_SEARCH_REDACTED_H
#define QML_SEARCH_REDACTED_H

#include "jobs/search_request.h"

extern void qml_search_check_redacted(const QmlSearchCompiled *compiled);

#endif
