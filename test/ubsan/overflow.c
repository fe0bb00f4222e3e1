/*
 * overflow.c
 *	  A signed overflow, which the flags of the UBSan build must report.
 */
#include <limits.h>

int
main(int argc, char **argv)
{
	volatile int most = INT_MAX;

	return most + argc < 0;
}
