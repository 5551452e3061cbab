/* System calls: starting a thread of vrange. */
#define _GNU_SOURCE
#include "os/os_thread.h"

#include <errno.h>
#include <sys/prctl.h>

#define THREAD_STACK_BYTES ((size_t)512 << 10)

int os_thread_start(pthread_t *thread, void *(*function)(void *), void *argument) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    /* Not as large as RLIMIT_STACK says (ulimit -s unlimited, or gigabytes for deep recursion). A C library
     * that needs more, for thread-local variables, gives its default. */
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    const bool is_small = pthread_attr_setstacksize(&attributes, THREAD_STACK_BYTES) == 0;
    int error = pthread_create(thread, is_small ? &attributes : NULL, function, argument);
    if (error == EINVAL) error = pthread_create(thread, NULL, function, argument);
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

void os_thread_name(const char *name) { prctl(PR_SET_NAME, name); /* fails only for a bad address */ }
