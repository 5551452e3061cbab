/* Threads' own stacks, and main's, made deep: which are refused, how main's gives way to a limit of address space, and
 * what stays when a thread ends. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>

#include "fork_support.h"
#include "os/os.h"
#include "os/os_main_stack.h"
#include "stacks/deep_threads.h"
#include "stacks/own_stack.h"
#include "stacks/sigsegv.h"
#include "stacks/stack.h"
#include "stacks/stack_current.h"
#include "stacks/switch.h"

#define USUAL ((size_t)VRANGE_STACK_USUAL_BYTES)
#define GIB ((size_t)1 << 30)

static void *shallowest;

/* The linker puts this in place of the core's. */
static bool has_no_alternate_stack;

int __real_os_alternate_stack(const stack_t *stack, stack_t *before);
int __wrap_os_alternate_stack(const stack_t *stack, stack_t *before);
int __wrap_os_alternate_stack(const stack_t *stack, stack_t *before) {
    return has_no_alternate_stack ? -EPERM : __real_os_alternate_stack(stack, before);
}

/* Calls the function as deep as the bytes say. */
static __attribute__((noinline)) int descend(size_t bytes, int (*function)(void *), void *argument) {
    volatile char frame[8 << 10];
    frame[0] = frame[sizeof frame - 1] = 1;
    if (bytes < sizeof frame) return function ? function(argument) : 0;
    return descend(bytes - sizeof frame, function, argument) + frame[0] - 1;
}

static void set_limit(int which, rlim_t bytes) {
    struct rlimit limit;
    CHECK(getrlimit(which, &limit) == 0);
    limit.rlim_cur = bytes;
    CHECK(setrlimit(which, &limit) == 0);
}

/* Leaves so much address space. */
static void leave_space(size_t bytes) {
    uint64_t used, data;
    CHECK(os_address_space(&used, &data) == 0);
    set_limit(RLIMIT_AS, used + bytes);
}

static pthread_t begin_with(void *(*function)(void *), size_t stack_bytes) {
    pthread_t thread;
    pthread_attr_t attributes;
    CHECK(pthread_attr_init(&attributes) == 0 && pthread_attr_setstacksize(&attributes, stack_bytes) == 0);
    CHECK(pthread_create(&thread, &attributes, function, NULL) == 0);
    return thread;
}

static void in_thread(void *(*function)(void *), size_t stack_bytes) {
    CHECK(pthread_join(begin_with(function, stack_bytes), NULL) == 0);
}

/* ---- what is refused --------------------------------------------------------------------------- */

static int begin_thread(void *least) {
    stack *s;
    return deep_threads_begin(least ? *(size_t *)least : MIB, &s);
}

static int begin_main(void *bytes) {
    stack *s;
    return deep_threads_begin_main(*(size_t *)bytes, USUAL, &s);
}

static void *on_other_stack;

static void begin_on_other_stack(void *result) {
    size_t bytes = GIB;
    *(int *)result = on_other_stack ? begin_main(&bytes) : begin_thread(NULL);
}

static int begin_away(void) {
    stack *s;
    int result = 0;
    CHECK(sigsegv_arm_thread() == 0 && stack_take(4 * MIB, false, &s) == 0);
    switch_call(s->top, begin_on_other_stack, &result);
    return result;
}

static void *refusals_of_a_thread(void *unused) {
    size_t large = 128 * MIB;
    CHECK(begin_thread(&large) == -ERANGE);
    CHECK(descend(USUAL - MIB / 2, begin_thread, NULL) == -ERANGE); /* it is deep already */
    CHECK(begin_away() == -ENOTSUP);
    CHECK(begin_main(&large) == -ENOTSUP);
    CHECK(begin_thread(NULL) == 0 && begin_thread(NULL) == -EEXIST);
    return unused;
}

static void *has_little_more(void *unused) {
    CHECK(begin_thread(NULL) == -ERANGE);
    return unused;
}

static void test_refusals(void) {
    size_t bytes = 64 * MIB, none = USUAL + 4096;
    in_thread(refusals_of_a_thread, 64 * MIB);
    in_thread(has_little_more, USUAL + MIB / 2);
    set_limit(RLIMIT_STACK, 64 * MIB);
    on_other_stack = &bytes;
    /* The first touch of a closed part would end the process. */
    IN_CHILD(has_no_alternate_stack = true; CHECK(begin_main(&bytes) == -EPERM));
    IN_CHILD(CHECK(begin_away() == -ENOTSUP));
    IN_CHILD(CHECK(begin_main(&none) == -ERANGE));
    IN_CHILD(leave_space(2 * MIB); CHECK(begin_main(&bytes) < 0)); /* the kernel can't grow it */
    IN_CHILD(leave_space(USUAL + 2 * MIB); CHECK(begin_main(&bytes) == -ENOMEM));
    IN_CHILD(CHECK(begin_main(&bytes) == 0 && begin_main(&bytes) == -EEXIST); CHECK(descend(40 * MIB, NULL, NULL) == 0));
}

/* ---- main's ------------------------------------------------------------------------------------ */

/* As much as there is below it, as far as a limit of address space allows. */
static void test_as_large_as_can_be(void) {
    size_t bytes = SIZE_MAX;
    set_limit(RLIMIT_STACK, RLIM_INFINITY);
    leave_space(GIB);
    CHECK(begin_main(&bytes) == 0);
    CHECK(descend(12 * MIB, NULL, NULL) == 0);
}

static int begin_deep(void *bytes) { return begin_main(bytes); }

/* More than the usual bytes are in use already. */
static void test_deep_before(void) {
    size_t bytes = 96 * MIB;
    set_limit(RLIMIT_STACK, 96 * MIB);
    CHECK(descend(2 * USUAL, begin_deep, &bytes) == 0);
    CHECK(descend(40 * MIB, NULL, NULL) == 0);
}

/* The kernel's list of mappings is longer than usual. */
static void test_many_mappings(void) {
    size_t bytes = 64 * MIB;
    char *const many = mmap(NULL, 4000 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(many != MAP_FAILED);
    for (size_t i = 0; i < 4000; i += 2) CHECK(mprotect(many + i * PAGE, PAGE, PROT_READ) == 0);
    set_limit(RLIMIT_STACK, 64 * MIB);
    os_main_stack_place place;
    CHECK(os_main_stack(&place) == 0 && place.low < (char *)&place && (char *)&place < place.top);
    CHECK(begin_main(&bytes) == 0 && descend(40 * MIB, NULL, NULL) == 0);
}

static uint64_t space_used(void) {
    uint64_t used, data;
    CHECK(os_address_space(&used, &data) == 0);
    return used;
}

static int fit_now(void *unused) {
    (void)unused;
    deep_threads_fit_limits();
    return 0;
}

static void *fit_from_here(void *unused) {
    deep_threads_fit_limits();
    return unused;
}

/* A program that limits its address space gets what main's stack does not need. */
static void test_gives_way(void) {
    size_t bytes = GIB;
    set_limit(RLIMIT_STACK, GIB);
    CHECK(begin_main(&bytes) == 0);
    const uint64_t before = space_used();
    deep_threads_fit_limits(); /* no limit: nothing to do */
    CHECK(space_used() + MIB > before);
    CHECK(descend(100 * MIB, NULL, NULL) == 0);
    leave_space(64 * MIB);
    deep_threads_fit_limits();
    const uint64_t less = space_used();
    CHECK(less < before - 100 * MIB);
    deep_threads_fit_limits(); /* again: it fits */
    leave_space(8 * MIB);
    CHECK(descend(40 * MIB, fit_now, NULL) == 0); /* what is in use stays, until it is shallow */
    vrange_stack_trim(VRANGE_RELEASE_NOW);
    vrange_stack_trim(VRANGE_RELEASE_NOW);
    CHECK(space_used() <= less);
    set_limit(RLIMIT_AS, RLIM_INFINITY);
    in_thread(fit_from_here, MIB); /* it asks main's thread */
    IN_CHILD(deep_threads_fit_limits(); CHECK(descend(2 * MIB, NULL, NULL) == 0));
}

/* ---- trims and lists ---------------------------------------------------------------------------- */

static void trim_on_deep_stack(void *unused) {
    size_t bytes = 64 * MIB;
    (void)unused;
    CHECK(begin_thread(NULL) == -EEXIST && begin_main(&bytes) == -EEXIST);
    CHECK(descend(6 * MIB, NULL, NULL) == 0);
    CHECK(vrange_stack_trim(VRANGE_RELEASE_NOW) >= (int64_t)(5 * MIB));
    CHECK(descend(6 * MIB, NULL, NULL) == 0);
    CHECK(vrange_stack_trim(VRANGE_RELEASE_VOLATILE) >= (int64_t)(5 * MIB));
}

static void trim_during_a_deep_call(void) {
    stack *s;
    CHECK(sigsegv_arm_thread() == 0 && stack_take(16 * MIB, false, &s) == 0);
    s->name = "trimmed";
    s->outer = NULL;
    s->caller = __builtin_frame_address(0);
    s->base = s->top;
    stack_set_current(s);
    switch_call(s->top, trim_on_deep_stack, NULL);
    stack_set_current(NULL);
    vrange_stack_info stacks[2];
    CHECK(vrange_stacks_read(stacks, 2) == 1 && vrange_stacks_read(stacks, 0) == 1);
    stack_give(s, 0, VRANGE_RELEASE_KEEP);
    CHECK(vrange_stacks_read(stacks, 2) == 1);
}

static void trim_of_both(void *unused) {
    (void)unused;
    CHECK(descend(2 * MIB, NULL, NULL) == 0);
    CHECK(vrange_stack_trim(VRANGE_RELEASE_NOW) >= (int64_t)(6 * MIB));
}

/* A deep call within a deep call: both stacks are trimmed. */
static void call_deeper(void *outer) {
    stack *s;
    CHECK(descend(6 * MIB, NULL, NULL) == 0);
    CHECK(stack_take(8 * MIB, false, &s) == 0);
    s->name = "inner";
    s->outer = outer;
    s->caller = __builtin_frame_address(0);
    stack_set_current(s);
    switch_call(s->top, trim_of_both, NULL);
    stack_set_current(outer);
    stack_give(s, 0, VRANGE_RELEASE_NOW);
}

static void trim_during_two_deep_calls(void) {
    stack *s;
    CHECK(sigsegv_arm_thread() == 0 && stack_take(16 * MIB, false, &s) == 0);
    s->name = "outer";
    s->outer = NULL;
    s->caller = __builtin_frame_address(0);
    stack_set_current(s);
    switch_call(s->top, call_deeper, s);
    stack_set_current(NULL);
    stack_give(s, 0, VRANGE_RELEASE_NOW);
}

static void refuses_to_trim(void *unused) {
    (void)unused;
    CHECK(vrange_stack_trim(VRANGE_RELEASE_NOW) == -ENOTSUP);
}

/* On memory that other code has made a stack, as coroutines do. */
static void trim_on_foreign_stack(void) {
    char *const foreign = os_map(MIB);
    CHECK(foreign);
    switch_call(foreign + MIB, refuses_to_trim, NULL);
    os_unreserve(foreign, MIB);
}

static void *lists_and_trims(void *unused) {
    vrange_thread_info threads[2];
    CHECK(vrange_thread_register() == 0);
    CHECK(vrange_threads_read(threads, 2) == 1 && vrange_threads_read(threads, 0) == 1);
    trim_during_a_deep_call();
    trim_during_two_deep_calls();
    trim_on_foreign_stack();
    IN_CHILD({ /* this thread is the child's main thread */
               CHECK(vrange_threads_read(threads, 2) == 1 && threads[0].thread_id == (int)getpid());
               CHECK(vrange_stack_trim(VRANGE_RELEASE_NOW) >= 0);
    });
    return unused;
}

static void test_trims(void) {
    IN_CHILD(trim_during_a_deep_call(); CHECK(vrange_stack_trim(VRANGE_RELEASE_NOW) == -EPERM));
    in_thread(lists_and_trims, 4 * MIB);
}

/* ---- ends -------------------------------------------------------------------------------------- */

static void *ends_after_main(void *unused) {
    int count = 0;
    usleep(20000);
    while (own_stack_around(shallowest) && ++count < 2000) usleep(1000);
    exit(own_stack_around(shallowest) != NULL);
    return unused;
}

/* Main's thread ends, and the program goes on. */
static void test_main_ends(void) {
    size_t bytes = 64 * MIB;
    pthread_t thread;
    set_limit(RLIMIT_STACK, 64 * MIB);
    CHECK(begin_main(&bytes) == 0 && descend(20 * MIB, NULL, NULL) == 0);
    shallowest = __builtin_frame_address(0);
    CHECK(own_stack_around(shallowest));
    CHECK(pthread_create(&thread, NULL, ends_after_main, NULL) == 0);
    pthread_exit(NULL);
}

static _Atomic int stage;

static void *waits_deep(void *unused) {
    CHECK(begin_thread(NULL) == 0 && descend(20 * MIB, NULL, NULL) == 0);
    atomic_store(&stage, 1);
    while (atomic_load(&stage) == 1) usleep(1000);
    vrange_stack_trim(VRANGE_RELEASE_NOW);
    return unused;
}

/* In a fork the stacks of other threads are ordinary memory again. */
static void test_fork_beside_deep_threads(void) {
    const pthread_t thread = begin_with(waits_deep, 64 * MIB);
    while (atomic_load(&stage) == 0) usleep(1000);
    CHECK(own_stacks_count() > 0 && own_stack_at(0));
    const stack *s = own_stack_at(0);
    char *const lowest = s->low;
    IN_CHILD(CHECK(!own_stack_at(0)); *(volatile char *)lowest = 1; CHECK(*(volatile char *)lowest == 1));
    atomic_store(&stage, 2);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(!own_stack_at(0));
}

static _Atomic bool is_down;

static int waits_down(void *unused) {
    (void)unused;
    atomic_store(&is_down, true);
    while (atomic_load(&stage) == 0) usleep(1000);
    return 0;
}

static void *goes_down_and_up(void *unused) {
    CHECK(begin_thread(NULL) == 0 && descend(20 * MIB, waits_down, NULL) == 0);
    atomic_store(&is_down, false);
    while (atomic_load(&stage) == 1) usleep(1000);
    return unused;
}

/* The caretaker looks at threads that went deep, seldom while they stay so, and trims those that are shallow again. */
static void test_looks(void) {
    const pthread_t thread = begin_with(goes_down_and_up, 64 * MIB);
    while (!atomic_load(&is_down)) usleep(1000);
    const stack *s = own_stack_at(0);
    CHECK(s && atomic_load(&s->is_deep));
    CHECK(deep_threads_look() < UINT64_MAX);
    usleep(300000);
    deep_threads_look();
    CHECK(atomic_load(&s->is_deep) && s->open_low < s->first_low);
    atomic_store(&stage, 1);
    while (atomic_load(&is_down)) usleep(1000);
    for (int i = 0; atomic_load(&s->is_deep) && i < 1000; i++, usleep(10000)) deep_threads_look();
    CHECK(!atomic_load(&s->is_deep) && s->open_low == s->first_low);
    atomic_store(&stage, 2);
    CHECK(pthread_join(thread, NULL) == 0);
}

int main(void) {
    IN_CHILD(test_refusals());
    IN_CHILD(test_looks());
    IN_CHILD(test_as_large_as_can_be());
    IN_CHILD(test_deep_before());
    IN_CHILD(test_many_mappings());
    IN_CHILD(test_gives_way());
    IN_CHILD(test_trims());
    IN_CHILD(test_main_ends());
    IN_CHILD(test_fork_beside_deep_threads());
    return 0;
}
