/* How far calls on a deep stack may go, with counts of levels as an interpreter has them: where they are cut and given
 * back, where a call is ended, and with which words. */
#define _GNU_SOURCE
#include <alloca.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>

#include "fork_support.h"
#include "os/os.h"
#include "stacks/sigsegv.h"
#include "stacks/stack.h"
#include "stacks/stack_current.h"
#include "stacks/stack_mapping.h"
#include "stacks/stack_pages.h"
#include "stacks/stack_room.h"
#include "stacks/switch.h"

#define GIB ((size_t)1 << 30)
#define LEVELS 5000
#define USED 2000

static stack *s;
static volatile int counter, levels;
static int interpreter; /* stands for its state of the thread */
static char said[160];

static __attribute__((noinline)) size_t descend(size_t bytes) {
    volatile char frame[3 << 10]; /* each page has some of it */
    frame[0] = frame[sizeof frame - 1] = 1;
    return bytes < sizeof frame ? 1 : descend(bytes - sizeof frame) + (size_t)frame[0];
}

/* A frame of that size, of which nothing is touched, and others below it. */
static __attribute__((noinline)) size_t jump(size_t over, size_t bytes) {
    char *volatile frame = alloca(over);
    return descend(bytes) + (frame == NULL);
}

/* Takes a stack and begins a call on it as the interpreter does. */
static void take(size_t bytes, bool automatic) {
    CHECK(sigsegv_arm_thread() == 0 && stack_take(bytes, automatic, &s) == 0);
    stack_room_begin(s);
    s->name = "test";
    counter = levels = LEVELS;
}

static void with_counts(volatile int *of_levels) {
    s->counter = &counter;
    s->levels = of_levels;
    s->counter_at_entry = s->levels_at_entry = LEVELS;
}

static void run(void (*function)(void *), void *argument) {
    stack *const before = stack_current();
    stack_set_current(s);
    switch_call(s->top, function, argument);
    stack_set_current(before);
    stack_room_end(s);
}

/* ---- calls that are ended ---------------------------------------------------------------------- */

typedef struct {
    size_t bytes;
    bool automatic, has_counts, is_one_count;
    const char *says;
} overflow;

static void go_too_far(void *unused) {
    (void)unused;
    jump(s->bytes > 64 * MIB ? s->bytes - 32 * MIB : 0, 2 * s->bytes);
}

static void overflows(const overflow *one) {
    take(one->bytes, one->automatic);
    if (one->has_counts) with_counts(one->is_one_count ? &counter : &levels);
    run(go_too_far, NULL);
}

static void leaves_at_its_top(const overflow *one) {
    take(one->bytes, one->automatic);
    *(volatile char *)s->top = 1;
}

/* Ends by SIGSEGV, and says so. */
static void ends(void (*function)(const overflow *), const overflow *one) {
    int status;
    char text[1024] = "";
    fflush(NULL);
    const int file = open(said, O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    CHECK(file >= 0);
    const pid_t child = fork();
    if (child == 0) {
        CHECK(dup2(file, STDERR_FILENO) == STDERR_FILENO);
        function(one);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    CHECK(pread(file, text, sizeof text - 1, 0) >= 0 && strstr(text, one->says));
    close(file);
}

static void test_calls_that_are_ended(void) {
    static const overflow all[] = {
        {16 * MIB, false, false, false, "of 16 MiB is used up"},
        {GIB, true, false, false, "of 1 GiB is used up"},
        {16 * MIB + 12288, false, true, true, "levels of Python"},
        {256 * MIB, true, true, false, "levels of Python"},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) ends(overflows, &all[i]);
    ends(leaves_at_its_top, &(overflow){16 * MIB + 4096, false, false, false, "16388 KiB was left at its upper end"});
}

/* ---- levels that are cut ----------------------------------------------------------------------- */

static void *told_thread;
static char *told_low;
static int set_bounds(void *thread, void *low, size_t bytes) {
    (void)bytes;
    told_thread = thread;
    told_low = low;
    return 0;
}

static void *no_thread(void) { return NULL; }

static void into_the_zone(void *unused) {
    (void)unused;
    const size_t depth = (size_t)(s->top - s->warning_top);
    CHECK(stack_room_observe(4096));
    counter = LEVELS - USED;
    descend(depth + MIB / 4);
    CHECK(counter == 0 && s->is_cut && atomic_load(&s->warned)); /* the interpreter raises at the next level */
    descend(depth + MIB / 2);
    CHECK(counter == 0);
    counter = LEVELS - USED; /* it had read the count before, and wrote it back */
    descend(depth + MIB);
    CHECK(counter < LEVELS - USED);
    for (int i = 0; s->is_cut && i < 4000; i++) { /* as the heap grows, it sees that the recursion is over */
        CHECK(stack_room_observe(i % 2 ? 4096 : -4096));
        os_sleep_ns(100000);
    }
    CHECK(!s->is_cut && !atomic_load(&s->warned));
}

static void test_the_zone(void) {
    for (int way = 0; way < 3; way++)
        IN_CHILD({
            take(64 * MIB, way > 0);
            with_counts(way == 1 ? &counter : &levels);
            if (way == 2) {
                stack_set_bounds = set_bounds;
                s->thread = &interpreter;
            }
            run(into_the_zone, NULL);
            CHECK(counter > LEVELS / 4);
            CHECK(way < 2 || (told_thread == &interpreter && told_low == s->low)); /* as at first */
            stack_give(s, stack_used(s), VRANGE_RELEASE_NOW);
        });
}

/* The interpreter takes frames until little memory is left. */
static void takes_frames(void *unused) {
    (void)unused;
    int frames = 0;
    while (!s->is_cut && ++frames < 100000) CHECK(stack_room_observe(16 << 10));
    CHECK(s->is_cut && levels < LEVELS);
    CHECK(stack_room_observe(MIB));     /* an arena, for the traceback */
    CHECK(stack_room_observe(-16384));
    levels = -100000;                   /* it goes on all the same */
    bool is_refused = false;
    for (int i = 0; !is_refused && i < 1000; i++) is_refused = !stack_room_observe(16 << 10);
    CHECK(is_refused && s->is_refused);
}

static void goes_deep(void *unused) {
    (void)unused;
    descend(2 * MIB);
    jump(48 * MIB, MIB);
    CHECK(s->is_cut && counter < LEVELS);
}

static void test_little_memory(void) {
    static void (*const functions[])(void *) = {takes_frames, goes_deep};
    for (int i = 0; i < 2; i++)
        IN_CHILD({
            take(256 * MIB, true);
            with_counts(&levels);
            stack_set_bounds = set_bounds;
            s->thread = &interpreter;
            const uint64_t now = vrange_resident_bytes();
            CHECK(now > 0);
            vrange_set_limit(now + 24 * MIB, 0);
            run(functions[i], NULL);
            stack_give(s, stack_used(s), VRANGE_RELEASE_VOLATILE);
        });
    /* Code that counts no levels is ended before it takes the last of the memory. */
    static const overflow none = {256 * MIB, true, true, false, "is used up"};
    vrange_set_limit(vrange_resident_bytes() + 24 * MIB, 0);
    ends(overflows, &none);
    vrange_set_limit(0, 0);
}

/* The thread goes on without Python: its counts are not touched any more. */
static void test_a_thread_without_interpreter(void) {
    IN_CHILD({
        take(64 * MIB, true);
        with_counts(&levels);
        s->thread = &interpreter;
        s->is_own = true;
        stack_thread_now = no_thread;
        stack_room_settle(s);
        CHECK(!s->counter && !s->levels && !s->thread);
        stack_room_settle(s);
        s->is_own = false;
    });
}

/* ---- what was used ------------------------------------------------------------------------------ */

static void go_down(void *bytes) { descend(*(size_t *)bytes); }

static void jump_and_touch(void *over) { jump(*(size_t *)over, 16 << 10); }

static size_t used_by(void (*function)(void *), size_t bytes) {
    stack_room_begin(s);
    run(function, &bytes);
    return stack_used(s);
}

/* A stack of the pool is as large as before, and reports how far a call went, also if it jumped over what is looked at
 * first: that is found at one of the next calls. */
static void test_what_was_used(void) {
    static const int releases[] = {VRANGE_RELEASE_VOLATILE, VRANGE_RELEASE_NOW, VRANGE_RELEASE_KEEP};
    for (size_t i = 0; i < 3 * 4; i++)
        IN_CHILD({
            const size_t deep = i % 2 ? 24 * MIB : MIB;
            if (i % 4 > 1) vrange_set_limit(UINT64_C(1) << 40, 0); /* nothing is offered */
            take(64 * MIB, i % 2);
            for (int round = 0; round < 3; round++) {
                const size_t used = used_by(go_down, deep);
                CHECK(used >= deep || round > 0);
                CHECK(used < 2 * deep + 4 * MIB);
                stack_give(s, used, releases[i / 4]);
                take(64 * MIB, i % 2);
                size_t seen = 0;
                for (int calls = 0; !seen && calls < 1100; calls++) seen = used_by(jump_and_touch, deep);
                CHECK(seen == 0 || seen >= deep);
                CHECK(seen || i % 2 || releases[i / 4] == VRANGE_RELEASE_KEEP);
                stack_give(s, seen, releases[i / 4]);
                take(64 * MIB, i % 2);
            }
            stack_give(s, 0, releases[i / 4]);
        });
}

/* ---- frames of signals ------------------------------------------------------------------------- */

static volatile int handled;
static void count_signal(int number) { (void)number, handled++; }

static __attribute__((noinline)) int raise_at_each_level(int left) {
    volatile char frame[1 << 10];
    frame[0] = 1;
    CHECK(raise(SIGUSR1) == 0);
    return left ? raise_at_each_level(left - 1) + frame[0] : 0;
}

static void raises(void *raised) { *(int *)raised = raise_at_each_level(6000); }

/* The kernel may find no room for the frame of a handler in what is open. Such a signal may be lost, once; the program
 * goes on. */
static void test_frames_of_signals(void) {
    for (int automatic = 0; automatic < 2; automatic++)
        IN_CHILD({
            const struct sigaction action = {.sa_handler = count_signal};
            CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
            int raised = 0;
            take(automatic ? 64 * MIB : 8 * MIB, automatic);
            with_counts(&levels);
            run(raises, &raised);
            CHECK(raised == 6000 && handled > 5000 && handled <= 6001);
        });
}

int main(void) {
    snprintf(said, sizeof said, "/tmp/vrange-test-stack-%d", getpid());
    stack_warning_most = 4 * MIB; /* an interpreter's module sets it */
    test_calls_that_are_ended();
    test_the_zone();
    test_little_memory();
    test_a_thread_without_interpreter();
    test_what_was_used();
    test_frames_of_signals();
    unlink(said);
    return 0;
}
