/* System calls: starting a thread of vrange. */
#define _GNU_SOURCE
#include "os/os_thread.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>

#define THREAD_STACK_BYTES ((size_t)512 << 10)

/* SIGBUS is not blocked: the thread counts, and touches indexes, and the kernel ends a process that blocks the
 * signal of a touch. */
int os_thread_start(pthread_t *thread, void *(*function)(void *), void *argument) {
    sigset_t all, before;
    sigfillset(&all);
    sigdelset(&all, SIGBUS);
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

static void *do_nothing(void *unused) { return unused; }

/* A thread of this size gets such a stack, without a new mapping. Once it is joined, no thread is on its
 * stack, and the C library looks for stacks that are too much. */
int os_thread_return_stacks(size_t bytes) {
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    int error = pthread_attr_init(&attributes);
    if (error) return -error;
    error = pthread_attr_setstacksize(&attributes, bytes);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (!error) error = pthread_create(&thread, &attributes, do_nothing, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (!error) pthread_join(thread, NULL);
    return -error;
}
