/*
 * replay.c
 *		Runs the fuzz target on a file, without libFuzzer.
 *
 * What does not hold ends the program.
 */
#include <err.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SIZE 4096

extern int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
main(int argc, char **argv)
{
	static uint8_t buffer[MAX_SIZE];
	uint8_t *data;
	size_t size;
	FILE *file;

	if (argc != 2)
		errx(2, "usage: replay FILE");
	file = fopen(argv[1], "rb");
	if (file == NULL)
		err(1, "%s", argv[1]);
	size = fread(buffer, 1, sizeof(buffer), file);
	if (ferror(file) || size == sizeof(buffer))
		errx(1, "%s: cannot be read", argv[1]);
	fclose(file);

	/* A block of the input's very size, so that the sanitizer sees a read beyond it. */
	data = malloc(size > 0 ? size : 1);
	if (data == NULL)
		err(1, NULL);
	memcpy(data, buffer, size);
	LLVMFuzzerTestOneInput(data, size);
	free(data);
	return 0;
}
