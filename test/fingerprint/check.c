/*
 * check.c
 *		Tests of src/core/fingerprint.c: what messages become, and that random ones do no harm.
 *
 * The first argument is the seed of the random messages.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/fingerprint.h"

static int passed = 0;
static int failed = 0;

static void
check(bool good, const char *what, const char *detail)
{
	if (good)
		passed++;
	else
	{
		failed++;
		printf("failed: %s (%s)\n", what, detail);
	}
}

/* A message, and what it becomes. */
static const char *const cases[][2] = {
	{"", ""},
	{"no", "no"},
	{"  a \t b\r\n c ", "a b c"},
	{"order 42 of 2024-01-02 failed", "order # of #-#-# failed"},
	{"order 7 of 2023-12-31 failed", "order # of #-#-# failed"},
	{"took 1.50 s, not 0.9", "took #.# s, not #.#"},
	{"host 10.0.0.12:5432", "host #.#.#.#:#"},
	{"worker12 in queue_7b", "worker# in queue_#b"},
	{"job 0190f3c4-5b6a-7c8d-9e0f-a1b2c3d4e5f6 is gone", "job # is gone"},
	{"job DEADBEEF-DEAD-BEEF-DEAD-DEADBEEFDEAD is gone", "job # is gone"},
	{"0190f3c4-5b6a-7c8d-9e0f-a1b2c3d4e5f67 is none", "#-#-#-#-# is none"},
	{"at 0x7ffd1c and 0XFF", "at # and #"},
	{"commit 3fa9c0d and a3f9", "commit # and #"},
	{"a cafe has no digit, a5 is short", "a cafe has no digit, a# is short"},
	{"hash deadbeefdeadbeef", "hash #"},
	{"column \"price\" of 'orders' and `x y`", "column \"\" of '' and ``"},
	{"column \"\" of ''", "column \"\" of ''"},
	{"it's Bob's, isn't it", "it's Bob's, isn't it"},
	{"can't find 'it's here'", "can't find ''"},
	{"not closed \"here", "not closed \"here"},
	{"not closed \"here\nbut \"there\"", "not closed \"here but \"\""},
	{"f\xc3\xbcr 3 St\xc3\xbc"
	 "ck",
	 "f\xc3\xbcr # St\xc3\xbc"
	 "ck"},
	{"\xc3\xbc"
	 "9",
	 "\xc3\xbc#"},
	{"#", "#"},
	{"null value in column \"a\" violates 1 constraint",
	 "null value in column \"\" violates # constraint"},
};

static uint64_t
fingerprint(const char *message)
{
	char normal[256];
	size_t length = qml_fingerprint_normalize(message, strlen(message), normal);

	return qml_fingerprint_add(qml_fingerprint_begin(), normal, length);
}

static void
check_cases(void)
{
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		char *normal = malloc(strlen(cases[i][0]) + 1);
		size_t length = qml_fingerprint_normalize(cases[i][0], strlen(cases[i][0]), normal);

		normal[length] = '\0';
		check(strcmp(normal, cases[i][1]) == 0, cases[i][0], normal);
		free(normal);
	}
	check(fingerprint("order 1 is late") == fingerprint("order  23456 is late"), "same", "numbers");
	check(fingerprint("order 1 is late") != fingerprint("order 1 is later"), "another", "words");
	/* The numbers themselves are for ever. */
	check(fingerprint("") == UINT64_C(0xaf63bd4c8601b7df), "the empty one", "");
	check(qml_fingerprint_add(qml_fingerprint_add(qml_fingerprint_begin(), "ab", 2), "c", 1) !=
			  qml_fingerprint_add(qml_fingerprint_add(qml_fingerprint_begin(), "a", 1), "bc", 2),
		  "ends of texts count", "");
}

/* Random messages: the result fits, and what is normal stays as it is where nothing is quoted. */
static void
check_random(void)
{
	static const char alphabet[] = "ab0x91-_ '\"`\n.#\xc3\xbc";

	for (int i = 0; i < 20000; i++)
	{
		size_t length = (size_t) rand() % 60;
		char *message = malloc(length + 1);
		char *normal = malloc(length + 1);
		char *again = malloc(length + 1);
		size_t made;

		for (size_t j = 0; j < length; j++)
			message[j] = alphabet[(size_t) rand() % (sizeof(alphabet) - 1)];
		message[length] = '\0';
		made = qml_fingerprint_normalize(message, length, normal);
		check(made <= length, "it is not longer", message);
		check(memchr(normal, '\n', made) == NULL, "it has one line", message);
		for (size_t j = 0; j < made; j++)
			check(normal[j] < '0' || normal[j] > '9' || memchr(message, '"', length) ||
					  memchr(message, '\'', length) || memchr(message, '`', length),
				  "no digit is left", message);
		if (memchr(message, '"', length) == NULL && memchr(message, '\'', length) == NULL &&
			memchr(message, '`', length) == NULL)
			check(qml_fingerprint_normalize(normal, made, again) == made &&
					  memcmp(normal, again, made) == 0,
				  "it is normal", message);
		free(message);
		free(normal);
		free(again);
	}
}

int
main(int argc, char **argv)
{
	srand(argc > 1 ? (unsigned) atoi(argv[1]) : 1);
	check_cases();
	check_random();
	printf("%d passed, %d failed\n", passed, failed);
	return failed > 0;
}
