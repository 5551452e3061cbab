/* A thread of vrange is started where the C library refuses the size of its stack, or its attributes; and it gets no
 * signal but that of a touch of its own. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>

#include "check.h"
#include "os/os_thread.h"

/* The linker puts these in place of the C library's. Each refuses so often. */
static int refuses_create, refuses_size, refuses_attributes, refusal;

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument) {
    return refuses_create-- > 0 ? refusal : __real_pthread_create(thread, attributes, run, argument);
}

int __real_pthread_attr_setstacksize(pthread_attr_t *attributes, size_t bytes);
int __wrap_pthread_attr_setstacksize(pthread_attr_t *attributes, size_t bytes);
int __wrap_pthread_attr_setstacksize(pthread_attr_t *attributes, size_t bytes) {
    return refuses_size-- > 0 ? EINVAL : __real_pthread_attr_setstacksize(attributes, bytes);
}

int __real_pthread_attr_init(pthread_attr_t *attributes);
int __wrap_pthread_attr_init(pthread_attr_t *attributes);
int __wrap_pthread_attr_init(pthread_attr_t *attributes) {
    return refuses_attributes-- > 0 ? ENOMEM : __real_pthread_attr_init(attributes);
}

static void refuse(int create, int error, int size, int attributes) {
    refuses_create = create, refusal = error, refuses_size = size, refuses_attributes = attributes;
}

static size_t stack_bytes;

static void *note(void *blocked) {
    pthread_attr_t own;
    CHECK(pthread_sigmask(SIG_SETMASK, NULL, blocked) == 0);
    CHECK(pthread_getattr_np(pthread_self(), &own) == 0 && pthread_attr_getstacksize(&own, &stack_bytes) == 0);
    CHECK(pthread_attr_destroy(&own) == 0);
    return NULL;
}

static void starts(bool is_small) {
    pthread_t thread;
    sigset_t blocked, before, after;
    sigemptyset(&blocked);
    CHECK(pthread_sigmask(SIG_SETMASK, NULL, &before) == 0);
    CHECK(os_thread_start(&thread, note, &blocked) == 0 && pthread_join(thread, NULL) == 0);
    CHECK(pthread_sigmask(SIG_SETMASK, NULL, &after) == 0);
    CHECK((stack_bytes <= MIB) == is_small);
    CHECK(sigismember(&blocked, SIGTERM) && sigismember(&blocked, SIGURG) && sigismember(&blocked, SIGPROF));
    CHECK(!sigismember(&blocked, SIGBUS));
    CHECK(!sigismember(&before, SIGTERM) && !sigismember(&after, SIGTERM));
}

static void does_not_start(void) {
    pthread_t thread;
    sigset_t blocked, after;
    CHECK(os_thread_start(&thread, note, &blocked) == refusal);
    CHECK(pthread_sigmask(SIG_SETMASK, NULL, &after) == 0 && !sigismember(&after, SIGTERM));
}

int main(void) {
    pthread_attr_t usual;
    CHECK(pthread_attr_init(&usual) == 0 && pthread_attr_setstacksize(&usual, 4 * MIB) == 0);
    CHECK(pthread_setattr_default_np(&usual) == 0); /* not that of the limit, which may be small */
    starts(true);
    refuse(0, 0, 1, 0);
    starts(false);
    refuse(1, EINVAL, 0, 0); /* too small for thread-local variables */
    starts(false);
    refuse(2, EINVAL, 0, 0);
    does_not_start();
    refuse(1, EAGAIN, 0, 0);
    does_not_start();

    refuse(0, 0, 0, 0);
    CHECK(os_thread_return_stacks(MIB) == 0);
    refuse(0, 0, 0, 1);
    CHECK(os_thread_return_stacks(MIB) == -ENOMEM);
    refuse(0, 0, 1, 0);
    CHECK(os_thread_return_stacks(MIB) == -EINVAL);
    refuse(1, EAGAIN, 0, 0);
    CHECK(os_thread_return_stacks(MIB) == -EAGAIN);
    return 0;
}
