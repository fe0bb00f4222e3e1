/*
 * json.h
 *		Builds jsonb objects, member by member.
 */
#ifndef QML_JSON_H
#define QML_JSON_H

#include "utils/jsonb.h"

extern void qml_json_push_int(JsonbParseState **state, const char *key, int64 number);
extern void qml_json_push_key(JsonbParseState **state, const char *key);
extern void qml_json_push_text(JsonbParseState **state, const char *key, Datum text);

#endif
