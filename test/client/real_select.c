/*-------------------------------------------------------------------------
 *
 * real_select.c
 *	  To be preloaded before libfaketime, for PostgreSQL 15 and older.
 *
 * libfaketime shows the real time to whatever runs within its select().  The
 * postmaster of those versions starts background workers in signal handlers,
 * which run within its select(), and the workers inherit that for life.  Here
 * select() is the C library's own.
 *
 *-------------------------------------------------------------------------
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/select.h>

typedef int (*SelectFunction)(int, fd_set *, fd_set *, fd_set *, struct timeval *);

static SelectFunction real_select;

/* Before main(), because the place that it is called from may be a handler. */
__attribute__((constructor)) static void
find_select(void)
{
	void *libc = dlopen("libc.so.6", RTLD_LAZY);

	if (libc != NULL)
		real_select = (SelectFunction) dlsym(libc, "select");
	if (real_select == NULL)
	{
		fprintf(stderr, "real_select: %s\n", dlerror());
		exit(2);
	}
}

int
select(int nfds, fd_set *readfds, fd_set *writefds, fd_set *exceptfds, struct timeval *timeout)
{
	return real_select(nfds, readfds, writefds, exceptfds, timeout);
}
