/*
 * json_merge.c
 *		Changing a jsonb document by another one, as RFC 7396 (JSON merge patch) says it.
 *
 * Members of the patch replace those of the same name, objects are merged in turn, and what is null
 * in the patch is removed.  A document that is no object is replaced by one.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "common/json_merge.h"

/* The member of an object; NULL: it has none, or is no object. */
static JsonbValue *
find_member(JsonbContainer *object, const JsonbValue *key)
{
	if (object == NULL || !JsonContainerIsObject(object))
		return NULL;
	return getKeyJsonValueFromContainer(object, key->val.string.val, key->val.string.len, NULL);
}

static bool
is_object(const JsonbValue *value)
{
	return value && value->type == jbvBinary && JsonContainerIsObject(value->val.binary.data);
}

static JsonbValue *merge_objects(JsonbParseState **state, JsonbContainer *object,
								 JsonbContainer *patch);

/* Adds a member that the patch changes, unless it removes it. */
static void
push_patched(JsonbParseState **state, JsonbValue *key, const JsonbValue *old, JsonbValue *patched)
{
	if (patched->type == jbvNull)
		return;
	(void) pushJsonbValue(state, WJB_KEY, key);
	if (is_object(patched))
		(void) merge_objects(state, is_object(old) ? old->val.binary.data : NULL,
							 patched->val.binary.data);
	else
		(void) pushJsonbValue(state, WJB_VALUE, patched);
}

/* object: NULL for an empty one. */
static JsonbValue *
merge_objects(JsonbParseState **state, JsonbContainer *object, JsonbContainer *patch)
{
	JsonbIterator *it;
	JsonbValue key;
	JsonbValue value;

	check_stack_depth();
	(void) pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	if (object)
	{
		it = JsonbIteratorInit(object);
		(void) JsonbIteratorNext(&it, &key, true);
		while (JsonbIteratorNext(&it, &key, true) == WJB_KEY)
		{
			JsonbValue *patched = find_member(patch, &key);

			(void) JsonbIteratorNext(&it, &value, true);
			if (patched)
			{
				push_patched(state, &key, &value, patched);
				continue;
			}
			(void) pushJsonbValue(state, WJB_KEY, &key);
			(void) pushJsonbValue(state, WJB_VALUE, &value);
		}
	}
	it = JsonbIteratorInit(patch);
	(void) JsonbIteratorNext(&it, &key, true);
	while (JsonbIteratorNext(&it, &key, true) == WJB_KEY)
	{
		(void) JsonbIteratorNext(&it, &value, true);
		if (find_member(object, &key) == NULL)
			push_patched(state, &key, NULL, &value);
	}
	return pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

/* The document, 0 for none, changed by the patch, which is an object. */
Datum
qml_json_merge(Datum document, Datum patch)
{
	Jsonb *before = document == (Datum) 0 ? NULL : DatumGetJsonbP(document);
	Jsonb *change = DatumGetJsonbP(patch);
	JsonbParseState *state = NULL;

	Assert(JB_ROOT_IS_OBJECT(change));
	if (before && !JB_ROOT_IS_OBJECT(before))
		before = NULL;
	return JsonbPGetDatum(
		JsonbValueToJsonb(merge_objects(&state, before ? &before->root : NULL, &change->root)));
}
