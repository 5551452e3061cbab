/* Threads with deep own stacks: how they begin and end, and how vrange notices that one is shallow again.
 *
 * The thread itself notices nothing: a return is only a few instructions of the compiler's. The handler of
 * sigsegv.c sees that a stack becomes deep, and rouses the caretaker. The caretaker then looks four times a
 * second at first, and once a second while a thread stays deep. A thread that waits in the kernel has its stack
 * pointer in /proc. If it is shallow, or runs, it gets the signal of idle_threads.c, trims its own stack and
 * closes it. A thread that never went deep gets no signal, so that no system call of its is interrupted. */
#define _GNU_SOURCE
#include "stacks/deep_threads.h"

#include <errno.h>
#include <stdatomic.h>

#include "base/caretaker.h"
#include "base/gate.h"
#include "os/os.h"
#include "os/os_thread.h"
#include "pressure/memory_limits.h"
#include "stacks/idle_threads.h"
#include "stacks/own_stack.h"
#include "stacks/sigsegv.h"
#include "stacks/stack_current.h"
#include "stacks/thread_end.h"

#define LOOK_NS 250000000ull
#define LOOK_MOST_NS 1000000000ull

static _Thread_local stack *mine;

static struct {
    uint64_t due_ns, pause_ns;
} looks[OWN_STACKS_MOST]; /* belongs to the caretaker */

/* ---- beginning and end ------------------------------------------------------------------------- */

void deep_threads_watch(void) {
    gate_enter();
    limits_follow(); /* signal handlers read limits, and can't find them */
    caretaker_ensure();
    gate_leave();
}

static int begin(int result, stack *s, stack **out) {
    if (result < 0) return result;
    result = idle_register_own(s);
    if (result < 0) {
        own_stack_end(s);
        return result;
    }
    mine = s;
    stack_set_current(s);
    deep_threads_watch();
    *out = s;
    return 0;
}

int deep_threads_begin(size_t least, stack **out) {
    stack *s = NULL;
    if (mine || stack_current()) return -EEXIST;
    int result = sigsegv_arm_thread();
    if (result == 0) result = own_stack_of_thread(least, &s);
    return begin(result, s, out);
}

int deep_threads_begin_main(size_t bytes, size_t usual, stack **out) {
    stack *s = NULL;
    if (mine || stack_current()) return -EEXIST;
    int result = sigsegv_arm_thread();
    if (result == 0) result = own_stack_of_main(bytes, usual, &s);
    return begin(result, s, out);
}

static bool is_space_limited(void) { return os_address_space_limit() != UINT64_MAX; }

static void end_thread(void) {
    if (!mine) return;
    own_stack_end(mine);
    if (stack_current() == mine) stack_set_current(NULL); /* else it ended inside a deep call: sigsegv.c */
    mine = NULL;
    if (is_space_limited()) caretaker_rouse();
}

void deep_threads_fit_limits(void) {
    if (is_space_limited()) own_stacks_return_ended();
    vrange_stacks_trim_pooled();
    const int main_id = own_stack_ask_fit();
    if (main_id) idle_ask_thread(main_id);
}

/* ---- looking ----------------------------------------------------------------------------------- */

static bool is_known_deep(const stack *s, int thread_id) {
    char *sp;
    return os_thread_stack_pointer(thread_id, &sp) == 1 && sp >= s->low &&
           sp < s->first_low + VRANGE_STACK_KEPT_BYTES;
}

static void look_and_ask(int thread_id) {
    idle_look();
    idle_ask_thread(thread_id);
}

/* The program may set a limit through a C library, and other processes may set one here (prlimit). */
static void look_at_limit(void) {
    static uint64_t seen; /* belongs to the caretaker */
    const uint64_t now = os_address_space_limit(), before = seen;
    seen = now;
    const int main_id = before && before != now ? own_stack_ask_fit() : 0;
    if (main_id) look_and_ask(main_id);
    if (now != UINT64_MAX) own_stacks_return_ended();
}

uint64_t deep_threads_look(void) {
    const uint64_t now = os_now_ns();
    uint64_t next = UINT64_MAX;
    const uint32_t count = own_stacks_count();
    if (count) {
        look_at_limit();
        sigsegv_look();
    }
    for (uint32_t i = 0; i < count; i++) {
        stack *s = own_stack_at(i);
        if (!s || !atomic_load(&s->is_deep)) {
            looks[i].pause_ns = 0;
            continue;
        }
        if (looks[i].pause_ns == 0) {
            looks[i].pause_ns = LOOK_NS;
            looks[i].due_ns = now + LOOK_NS;
        } else if (now >= looks[i].due_ns) {
            const int id = atomic_load(&s->thread_id);
            if (id && !is_known_deep(s, id)) look_and_ask(id);
            if (looks[i].pause_ns < LOOK_MOST_NS) looks[i].pause_ns *= 2;
            looks[i].due_ns = now + looks[i].pause_ns;
        }
        const uint64_t left = looks[i].due_ns - now;
        if (left < next) next = left;
    }
    return next;
}

__attribute__((constructor)) static void watch_thread_ends(void) { thread_end_register(end_thread); }
