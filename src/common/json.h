/*
 * json.h
 *		Builds jsonb objects, member by member.
 */
#ifndef QML_JSON_H
#define QML_JSON_H

#include "utils/jsonb.h"
#include "utils/timestamp.h"

extern void qml_json_push_int(JsonbParseState **state, const char *key, int64 number);
extern void qml_json_push_key(JsonbParseState **state, const char *key);
extern void qml_json_push_text(JsonbParseState **state, const char *key, Datum text);
extern void qml_json_push_bool(JsonbParseState **state, const char *key, bool flag);
extern void qml_json_push_time(JsonbParseState **state, const char *key, TimestampTz time);
extern void qml_json_push_document(JsonbParseState **state, const char *key, Datum document);

#endif
