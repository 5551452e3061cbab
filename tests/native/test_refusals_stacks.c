/* Stacks and threads: sizes that can't be, and threads that are not registered or have a deep stack already. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sys/resource.h>

#include "os/os.h"
#include "os/os_main_stack.h"
#include "refusals.h"
#include "stacks/deep_threads.h"
#include "stacks/sigsegv.h"
#include "stacks/stack.h"

static void *in_thread(void *unused) {
    stack *s;
    CHECK(vrange_thread_register() == 0 && vrange_thread_register() == 0);
    CHECK(deep_threads_begin((size_t)1 << 40, &s) < 0);
    vrange_stack_trim(VRANGE_RELEASE_VOLATILE);
    vrange_stack_trim(VRANGE_RELEASE_NOW);
    return unused;
}

static void *in_deep_thread(void *unused) {
    stack *s;
    CHECK(deep_threads_begin(MIB, &s) == 0 && deep_threads_begin(MIB, &s) == -EEXIST);
    CHECK(vrange_thread_register() == 0);
    vrange_stack_trim(VRANGE_RELEASE_NOW);
    return unused;
}

static void run_thread(void *(*function)(void *), size_t stack_bytes) {
    pthread_t thread;
    pthread_attr_t attributes;
    CHECK(pthread_attr_init(&attributes) == 0 && pthread_attr_setstacksize(&attributes, stack_bytes) == 0);
    CHECK(pthread_create(&thread, &attributes, function, NULL) == 0 && pthread_join(thread, NULL) == 0);
}

static void test_stacks_and_threads(void) {
    stack *s;
    CHECK(sigsegv_arm_thread() == 0);
    CHECK(stack_take(SIZE_MAX / 2, false, &s) == -ENOMEM);
    CHECK(vrange_thread_register() == -EPERM);
    vrange_stack_trim(VRANGE_RELEASE_NOW);
    run_thread(in_thread, 4 * MIB);
    run_thread(in_deep_thread, 64 * MIB);
    IN_CHILD(pthread_attr_t usual; size_t bytes; CHECK(os_default_thread_stack(48 * MIB) == 0);
             CHECK(pthread_getattr_default_np(&usual) == 0 && pthread_attr_getstacksize(&usual, &bytes) == 0);
             CHECK(bytes == 48 * MIB); CHECK(os_default_thread_stack(1) == -EINVAL));
    IN_CHILD(CHECK(deep_threads_begin_main((size_t)1 << 30, VRANGE_STACK_USUAL_BYTES, &s) <= 0);
             deep_threads_begin_main(MIB, VRANGE_STACK_USUAL_BYTES, &s));
    IN_CHILD(const struct rlimit deep = {(rlim_t)2 << 30, RLIM_INFINITY};
             CHECK(setrlimit(RLIMIT_STACK, &deep) == 0);
             deep_threads_begin_main((size_t)1 << 30, VRANGE_STACK_USUAL_BYTES, &s);
             CHECK(deep_threads_begin_main((size_t)1 << 30, VRANGE_STACK_USUAL_BYTES, &s) < 0));
    IN_CHILD(const struct rlimit small = {(rlim_t)1 << 20, RLIM_INFINITY};
             CHECK(setrlimit(RLIMIT_STACK, &small) == 0);
             CHECK(deep_threads_begin_main((size_t)1 << 30, VRANGE_STACK_USUAL_BYTES, &s) < 0));
}

int main(void) {
    IN_CHILD(test_stacks_and_threads());
    return 0;
}
