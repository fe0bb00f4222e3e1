/*
 * ascii.h
 *		Characters and words of expressions, whatever the locale is.
 */
#ifndef QML_ASCII_H
#define QML_ASCII_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* Like tolower in the C locale. */
static inline char
qml_ascii_lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char) (c - 'A' + 'a') : c;
}

static inline bool
qml_ascii_is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Blanks, tabs and line ends. */
static inline bool
qml_ascii_is_blank(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Whether a word, in either case, is a name, which is in lower case. */
static inline bool
qml_ascii_is_word(const char *word, size_t length, const char *name)
{
	if (strlen(name) != length)
		return false;
	for (size_t i = 0; i < length; i++)
	{
		if (qml_ascii_lower(word[i]) != name[i])
			return false;
	}
	return true;
}

#endif
