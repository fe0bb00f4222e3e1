/*
 * search_match.h
 *		Whether a job is what is sought.
 */
#ifndef QML_SEARCH_MATCH_H
#define QML_SEARCH_MATCH_H

#include "jobs/search_request.h"

typedef struct QmlSearchMatcher QmlSearchMatcher;

extern QmlSearchMatcher *qml_search_matcher(const QmlSearchCompiled *compiled);
extern bool qml_search_match(const QmlSearchMatcher *matcher, const QmlJob *job, QmlAccess access);

#endif
