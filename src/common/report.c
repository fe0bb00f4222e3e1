/*
 * report.c
 *		What is said of a failure, or as a reason, made fit to be kept.
 *
 * A worker that has failed must be able to say so.  An error over the wording of its
 * report would keep its job claimed, and hide what went wrong.  So nothing here is
 * refused: what is missing gets a stand-in, what is too long is cut between two
 * characters and marked as cut, and what does not belong into a name is replaced.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"

#include "common/report.h"
#include "compat.h"
#include "qml.h"

#define CUT_MARK "... [cut]"

/* The text, of at most maxbytes; the mark counts. */
Datum
qml_report_cut(const char *text, int length, int maxbytes)
{
	int kept;
	struct varlena *cut;

	Assert(maxbytes > (int) strlen(CUT_MARK));
	if (length <= maxbytes)
		return PointerGetDatum(cstring_to_text_with_len(text, length));
	kept = pg_mbcliplen(text, length, maxbytes - strlen(CUT_MARK));
	cut = palloc(VARHDRSZ + kept + strlen(CUT_MARK));
	SET_VARSIZE(cut, VARHDRSZ + kept + strlen(CUT_MARK));
	memcpy(VARDATA(cut), text, kept);
	memcpy(VARDATA(cut) + kept, CUT_MARK, strlen(CUT_MARK));
	return PointerGetDatum(cut);
}

/* The same of a datum; 0 stays 0. */
Datum
qml_report_text(Datum given, int maxbytes)
{
	struct varlena *value;

	if (given == (Datum) 0)
		return given;
	value = PG_DETOAST_DATUM_PACKED(given);
	if ((int) VARSIZE_ANY_EXHDR(value) <= maxbytes)
		return PointerGetDatum(value);
	return qml_report_cut(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value), maxbytes);
}

/* The message of an error; one that is missing or empty gets a stand-in. */
Datum
qml_report_error(Datum given)
{
	Datum error = qml_report_text(given, QML_MAX_ERROR);

	if (error == (Datum) 0 || VARSIZE_ANY_EXHDR(DatumGetPointer(error)) == 0)
		return CStringGetTextDatum(QML_REPORT_NO_ERROR);
	return error;
}

/* The same of a string, which may be NULL and of any length. */
Datum
qml_report_message(const char *message)
{
	if (message == NULL || *message == '\0')
		return CStringGetTextDatum(QML_REPORT_NO_ERROR);
	return qml_report_cut(message, strlen(message), QML_MAX_ERROR);
}

/*
 * Whether a character of Unicode acts on text around it: C1, the separators of lines and
 * paragraphs, and what changes the direction of the text (the property Bidi_Control).
 */
static bool
is_unicode_control(pg_wchar c)
{
	return (c >= 0x80 && c < 0xa0) || c == 0x61c || c == 0x200e || c == 0x200f ||
		   (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
}

/* How many bytes a control character has (C0, DEL and, in UTF-8, those above); 0: it is none. */
int
qml_report_control_length(const char *value)
{
	unsigned char first = value[0];

	if (first < 0x20 || first == 0x7f)
		return 1;
	/* Most text has none of the bytes that those begin with. */
	if ((first == 0xc2 || first == 0xd8 || first == 0xe2) && GetDatabaseEncoding() == PG_UTF8 &&
		is_unicode_control(utf8_to_unicode((const unsigned char *) value)))
		return pg_utf_mblen((const unsigned char *) value);
	return 0;
}

/* Writes a question mark over each byte of the control characters in a string. */
static void
mask_controls(char *value)
{
	while (*value)
	{
		int length = qml_report_control_length(value);

		memset(value, '?', length);
		value += Max(length, 1);
	}
}

/* The type of an error, which is a name; 0 if it is missing or empty. */
Datum
qml_report_error_type(Datum given)
{
	char *name;
	int length;

	if (given == (Datum) 0)
		return given;
	name = TextDatumGetCString(given);
	if (*name == '\0')
		return (Datum) 0;
	mask_controls(name);
	length = strlen(name);
	if (pg_mbstrlen_with_len(name, length) > QML_MAX_NAME)
	{
		/* The mark counts as characters, too. */
		int kept = pg_mbcharcliplen(name, length, QML_MAX_NAME - (int) strlen(CUT_MARK));

		return CStringGetTextDatum(psprintf("%.*s%s", kept, name, CUT_MARK));
	}
	return CStringGetTextDatum(name);
}
