/* Deep stacks, and stacks of threads, while calls fail; see failing_calls.h. */
#include "failing_calls.h"

#include "os/os.h"
#include "stacks/deep_threads.h"
#include "stacks/sigsegv.h"
#include "stacks/stack.h"
#include "stacks/stack_current.h"
#include "stacks/stack_pages.h"
#include "stacks/stack_room.h"
#include "stacks/switch.h"

static void on_stack(void *argument) {
    char bytes[32 << 10];
    memset(bytes, 1, sizeof bytes);
    *(int *)argument = bytes[100];
}

static void stacks(void) {
    stack *s;
    int ran = 0;
    if (!did(sigsegv_arm_thread())) return;
    for (int i = 0; i < 4; i++) {
        if (!did(stack_take(i % 2 ? 64 * MIB : 16 * MIB, i / 2, &s))) continue;
        stack_room_begin(s);
        stack *const before = stack_current();
        stack_set_current(s);
        switch_call(s->top, on_stack, &ran);
        stack_set_current(before);
        stack_room_end(s);
        CHECK(ran == 1);
        stack_give(s, stack_used(s), i % 3);
    }
    vrange_stack_info info[4];
    vrange_stacks_read(info, 4);
    vrange_stacks_trim_pooled();
    vrange_stack_trim(VRANGE_RELEASE_NOW);
}

static _Atomic int stage;

static void *idle_thread(void *unused) {
    char bytes[256 << 10];
    memset(bytes, 1, sizeof bytes);
    stack *s;
    did(vrange_thread_register());
    did(deep_threads_begin(MIB, &s));
    atomic_store(&stage, 1);
    while (atomic_load(&stage) != 2) rest(1);
    vrange_stack_trim(VRANGE_RELEASE_VOLATILE);
    return unused;
}

static void idle_threads(void) {
    pthread_t thread;
    int count;
    vrange_thread_info info[4];
    atomic_store(&stage, 0);
    const bool begun = pthread_create(&thread, NULL, idle_thread, NULL) == 0;
    while (begun && atomic_load(&stage) == 0) rest(1);
    vrange_threads_read(info, 4);
    CHECK(vrange_stacks_trim_idle(VRANGE_RELEASE_NOW, 20000000, &count) >= -4095);
    deep_threads_watch();
    deep_threads_fit_limits();
    atomic_store(&stage, 2);
    if (begun) pthread_join(thread, NULL);
    vrange_stacks_trim();
}

/* As deep as the bytes say. */
static __attribute__((noinline)) size_t descend(size_t bytes) {
    volatile char frame[8 << 10];
    frame[0] = (char)bytes;
    frame[sizeof frame - 1] = 1;
    return bytes < sizeof frame ? (size_t)frame[sizeof frame - 1]
                                : descend(bytes - sizeof frame) + (size_t)frame[sizeof frame - 1];
}

static void deep_on_stack(void *argument) { *(size_t *)argument = descend(6 * MIB); }

static void *deep_thread(void *unused) {
    stack *s;
    did(vrange_thread_register());
    const bool is_deep = did(deep_threads_begin(MIB, &s));
    if (is_deep) CHECK(descend(24 * MIB) > 0);
    vrange_stack_trim(VRANGE_RELEASE_NOW);
    deep_threads_fit_limits();
    return unused;
}

/* Stacks that grow step by step where they are touched. */
static void deep_stacks(void) {
    stack *s;
    size_t depth = 0;
    pthread_t thread;
    pthread_attr_t attributes;
    if (!did(sigsegv_arm_thread())) return;
    for (int i = 0; i < 2; i++) {
        if (!did(stack_take(32 * MIB, i == 0, &s))) continue;
        stack_room_begin(s);
        stack *const before = stack_current();
        stack_set_current(s);
        switch_call(s->top, deep_on_stack, &depth);
        stack_set_current(before);
        stack_room_end(s);
        CHECK(depth > 0);
        vrange_stack_totals totals;
        vrange_stack_totals_read(&totals);
        stack_give(s, stack_used(s), VRANGE_RELEASE_VOLATILE);
    }
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 64 * MIB);
    if (pthread_create(&thread, &attributes, deep_thread, NULL) == 0) pthread_join(thread, NULL);
}

static void *waiting_deep_thread(void *unused) {
    stack *s;
    if (did(deep_threads_begin(MIB, &s))) CHECK(descend(12 * MIB) > 0);
    atomic_store(&stage, 1);
    while (atomic_load(&stage) != 2) rest(1);
    return unused;
}

/* Main's own stack, beside a thread whose stack is deep too, in a fork, and while address space is limited. */
static void deep_main(void) {
    const struct rlimit deep = {96 * MIB, RLIM_INFINITY}, none = {RLIM_INFINITY, RLIM_INFINITY};
    stack *s;
    pthread_t thread;
    pthread_attr_t attributes;
    uint64_t bytes, data;
    int count, status;
    if (setrlimit(RLIMIT_STACK, &deep) < 0) return;
    if (!did(deep_threads_begin_main(96 * MIB, VRANGE_STACK_USUAL_BYTES, &s))) return;
    deep_threads_watch();
    CHECK(descend(40 * MIB) > 0);
    vrange_stack_trim(VRANGE_RELEASE_NOW);
    atomic_store(&stage, 0);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 64 * MIB);
    const bool begun = pthread_create(&thread, &attributes, waiting_deep_thread, NULL) == 0;
    while (begun && atomic_load(&stage) == 0) rest(1);
    const pid_t child = fork();
    if (child == 0) {
        CHECK(descend(20 * MIB) > 0);
        inject_disarm();
        _exit(0);
    }
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
    vrange_stacks_trim_idle(VRANGE_RELEASE_NOW, 20000000, &count);
    if (os_address_space(&bytes, &data) == 0) {
        const struct rlimit little = {bytes + 24 * MIB, RLIM_INFINITY};
        if (setrlimit(RLIMIT_AS, &little) == 0) deep_threads_fit_limits();
        rest(4);
    }
    atomic_store(&stage, 2);
    if (begun) pthread_join(thread, NULL);
    vrange_stacks_trim();
    deep_threads_fit_limits();
    setrlimit(RLIMIT_AS, &none);
}

static const operation operations[] = {
    {"first stacks", stacks, .is_first = true},
    {"stacks", stacks},
    {"idle threads", idle_threads},
    {"deep stacks", deep_stacks, .is_touch = true},
    {"deep main", deep_main, .is_touch = true},
};

int main(int count, char **arguments) {
    return try_operations(operations, sizeof operations / sizeof *operations, count, arguments);
}
