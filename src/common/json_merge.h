/*
 * json_merge.h
 *		Changing a jsonb document by another one.
 */
#ifndef QML_JSON_MERGE_H
#define QML_JSON_MERGE_H

#include "utils/jsonb.h"

extern Datum qml_json_merge(Datum document, Datum patch);

#endif
