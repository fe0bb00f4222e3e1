/*
 * fingerprint.c
 *		What errors have in common that differ in numbers, ids and quoted values only.
 *
 * A message is made normal: what is in quotes becomes empty, ids and numbers become #, and blanks of
 * any kind become one.  The fingerprint of an error is a hash of such a text, and of what else the
 * caller adds.
 *
 *	- Quotes are ", ` and '.  The latter is an apostrophe behind a letter or digit.  A quote
 *	  that is not closed in its line is an ordinary character.
 *	- An id is a UUID, sixteen or more hexadecimal digits, four or more of which one is a decimal
 *	  digit, or 0x and hexadecimal digits; letters and digits around it make it a word.
 *	- In other words each run of decimal digits is a number.
 *
 * Fingerprints are compared with those of other servers and of other days, so they must never be
 * computed in another way.
 */
#include "core/fingerprint.h"

#include <stdbool.h>

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool
is_hex(char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* Bytes of characters beyond ASCII are parts of words. */
static bool
is_word(char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
		   (unsigned char) c >= 0x80;
}

static bool
is_blank(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

/* How long the quoted value at this place is, with its quotes; 0: it is none. */
static size_t
measure_quoted(const char *text, size_t length, bool after_word)
{
	char quote = text[0];

	if ((quote != '"' && quote != '`' && quote != '\'') || (quote == '\'' && after_word))
		return 0;
	for (size_t i = 1; i < length && text[i] != '\n'; i++)
	{
		if (text[i] != quote)
			continue;
		/* In "it 's so 't", a quote in front of a letter does not end anything. */
		if (quote != '\'' || i + 1 == length || !is_word(text[i + 1]))
			return i + 1;
	}
	return 0;
}

/* Whether a UUID begins here, and nothing goes on behind it; it has 36 characters. */
static bool
is_uuid(const char *text, size_t length)
{
	if (length < 36 || (length > 36 && is_word(text[36])))
		return false;
	for (int i = 0; i < 36; i++)
	{
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (dash ? text[i] != '-' : !is_hex(text[i]))
			return false;
	}
	return true;
}

/* Whether a word is an id. */
static bool
is_id(const char *word, size_t length)
{
	size_t digits = 0;
	size_t first = length > 2 && word[0] == '0' && (word[1] == 'x' || word[1] == 'X') ? 2 : 0;

	for (size_t i = first; i < length; i++)
	{
		if (!is_hex(word[i]))
			return false;
		if (is_digit(word[i]))
			digits++;
	}
	return first > 0 || length >= 16 || (length >= 4 && digits > 0);
}

/* Copies a word with # in place of its numbers; returns the end of the copy. */
static char *
copy_word(const char *word, size_t length, char *to)
{
	if (is_id(word, length))
	{
		*to++ = '#';
		return to;
	}
	for (size_t i = 0; i < length; i++)
	{
		if (!is_digit(word[i]))
			*to++ = word[i];
		else if (i == 0 || !is_digit(word[i - 1]))
			*to++ = '#';
	}
	return to;
}

/* normal: has room for as many bytes as the message; returns how many it has. */
size_t
qml_fingerprint_normalize(const char *message, size_t length, char *normal)
{
	char *to = normal;
	size_t at = 0;

	while (at < length)
	{
		const char *text = message + at;
		size_t left = length - at;
		size_t quoted = measure_quoted(text, left, at > 0 && is_word(text[-1]));
		size_t word = 0;

		while (word < left && is_word(text[word]))
			word++;
		if (quoted > 0)
		{
			*to++ = text[0];
			*to++ = text[0];
			at += quoted;
		}
		else if (word > 0 && is_uuid(text, left))
		{
			*to++ = '#';
			at += 36;
		}
		else if (word > 0)
		{
			to = copy_word(text, word, to);
			at += word;
		}
		else if (is_blank(text[0]))
		{
			/* None at either end. */
			while (at < length && is_blank(message[at]))
				at++;
			if (to > normal && at < length)
				*to++ = ' ';
		}
		else
		{
			*to++ = text[0];
			at++;
		}
	}
	return (size_t) (to - normal);
}

/* FNV-1a: it needs to be the same everywhere and for ever, and not to be strong. */
uint64_t
qml_fingerprint_begin(void)
{
	return UINT64_C(14695981039346656037);
}

/* Adds a text, and its end. */
uint64_t
qml_fingerprint_add(uint64_t fingerprint, const char *bytes, size_t length)
{
	for (size_t i = 0; i <= length; i++)
	{
		fingerprint ^= i < length ? (unsigned char) bytes[i] : 0;
		fingerprint *= UINT64_C(1099511628211);
	}
	return fingerprint;
}
