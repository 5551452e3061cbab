/* Running off the end of a deep stack: first a warning, then a message that says what happened.
 *
 * CPython 3.11 to 3.13 count levels and never check the stack, so no limit fits every recursion: one level
 * may take 100 bytes or 10,000. Therefore the last part of a stack, the warning zone, is closed. The first
 * touch of it raises SIGSEGV. The handler here opens the zone and sets the thread's remaining levels to
 * zero, so that the next level raises RecursionError with enough stack left for it. Code that recurses
 * further without counting levels runs into the guard; then the handler can only print a message.
 *
 * Every signal that is not about a deep stack goes to the other handlers (fault_chain.c). So does a stack
 * overflow after the message, so that faulthandler prints its traceback and the process ends as usual. */
#define _GNU_SOURCE
#include "stacks/sigsegv.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/caretaker.h"
#include "base/fault_chain.h"
#include "base/gate.h"
#include "os/os.h"
#include "os/os_thread.h"
#include "stacks/own_stack.h"
#include "stacks/stack.h"
#include "stacks/stack_current.h"
#include "stacks/stack_room.h"
#include "stacks/thread_end.h"

/* ---- text, without stdio's locks and allocations ----------------------------------------------- */

typedef struct {
    char text[400];
    size_t length;
} line;

static void add(line *to, const char *text) {
    while (*text && to->length < sizeof to->text) to->text[to->length++] = *text++;
}

static void add_number(line *to, uint64_t number) {
    char digits[24];
    size_t at = sizeof digits - 1;
    digits[at] = 0;
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    add(to, digits + at);
}

static void add_size(line *to, size_t bytes) {
    if (bytes >= 1u << 30 && bytes % (1u << 30) == 0) {
        add_number(to, bytes >> 30);
        add(to, " GiB");
    } else if (bytes % (1u << 20) == 0) {
        add_number(to, bytes >> 20);
        add(to, " MiB");
    } else {
        add_number(to, bytes >> 10);
        add(to, " KiB");
    }
}

static void tell(const stack *s, const char *address) {
    line message = {.length = 0};
    add(&message, "vrange: the deep stack \"");
    add(&message, s->name);
    add(&message, "\" of ");
    add_size(&message, s->bytes);
    if (address >= s->top) {
        add(&message, " was left at its upper end: some code wrote past its frames\n");
    } else {
        add(&message, " is used up at a depth of ");
        add_number(&message, (uint64_t)(s->top - address));
        add(&message, " bytes");
        if (s->levels) {
            add(&message, " and ");
            int levels = s->levels_at_entry - *s->levels;
            levels -= s->levels == s->counter ? s->cut : s->cut_levels;
            add_number(&message, levels > 0 ? (uint64_t)levels : 0);
            add(&message, " levels of Python");
        }
        add(&message,
            "; the recursive code does not count its levels (Py_EnterRecursiveCall), or takes "
            "more of the stack at once than the reserve at its end. A larger stack= may hold it\n");
    }
    os_complain(message.text, message.length);
}

/* ---- the handler ------------------------------------------------------------------------------- */

static stack *callers_stack_around(const void *address) {
    stack *s = stack_around(address);
    if (!s) s = own_stack_around(address);
    return s && atomic_load(&s->owner) == (uintptr_t)pthread_self() ? s : NULL;
}

/* The kernel wanted to run another signal's handler on the deep stack, and its frame would lie in the
 * closed part: the kernel sends SIGSEGV instead of that signal. A fault recurs; any other signal is lost,
 * once. */
static bool is_frame_of_signal(const siginfo_t *info, char *sp) {
    stack *s = info->si_code == SI_KERNEL ? callers_stack_around(sp) : NULL;
    return s && stack_room_for_signal(s, sp);
}

static fault_answer mend_overflow(siginfo_t *info, void *context) {
    char *const sp = os_interrupted_stack_pointer(context, info->si_addr);
    stack *s = info->si_code > 0 ? callers_stack_around(info->si_addr) : NULL;
    if ((s && stack_room_open(s, info->si_addr, sp)) || is_frame_of_signal(info, sp)) {
        if (s && s->is_own && !atomic_exchange(&s->is_deep, true)) caretaker_rouse(); /* deep_threads.c */
        return FAULT_MENDED;
    }
    if (!s) return FAULT_FOREIGN;
    tell(s, info->si_addr);
    return FAULT_FAILED;
}

/* ---- arming and disarming ---------------------------------------------------------------------- */

int sigsegv_arm_process(void) {
    if (fault_chain_is_first(SIGSEGV)) return 0;
    gate_enter();
    const int result = fault_chain_be_first(SIGSEGV);
    gate_leave();
    return result;
}

void sigsegv_look(void) { fault_chain_be_first(SIGSEGV); }

void sigsegv_disarm(void) { fault_chain_leave(SIGSEGV); }

/* ---- what a thread needs until it ends --------------------------------------------------------- */

static _Thread_local struct {
    bool armed;
    void *signal_stack;
} thread;

static void drop_signal_stack(void) {
    stack_t now;
    if (!thread.signal_stack) return;
    if (os_alternate_stack(NULL, &now) == 0 && now.ss_sp == thread.signal_stack) {
        stack_t none = {.ss_flags = SS_DISABLE};
        os_alternate_stack(&none, NULL);
    }
    os_unreserve(thread.signal_stack, os_alternate_stack_bytes());
    thread.signal_stack = NULL;
}

static void end_thread(void) {
    stack_abandon_all(stack_current());
    drop_signal_stack();
    thread.armed = false;
}

/* The kernel ends a process that touches a closed part while it blocks the signal, whatever handler there
 * is. */
void sigsegv_keep_unblocked(void) {
    if (thread.armed) os_unblock_signal(SIGSEGV);
}

int sigsegv_arm_thread(void) {
    if (thread.armed) return 0;
    int result = sigsegv_arm_process();
    if (result < 0) return result; /* a sandbox refuses it: a touch of a closed part would end the process */
    stack_t now;
    result = os_alternate_stack(NULL, &now);
    if (result < 0) return result; /* without one the handler could not run on a stack that is used up */
    if (now.ss_flags & SS_DISABLE) {
        stack_t ours = {.ss_sp = os_map(os_alternate_stack_bytes()),
                        .ss_size = os_alternate_stack_bytes()};
        if (!ours.ss_sp) return -ENOMEM;
        result = os_alternate_stack(&ours, NULL);
        if (result < 0) {
            os_unreserve(ours.ss_sp, ours.ss_size);
            return result;
        }
        thread.signal_stack = ours.ss_sp;
    }
    result = thread_end_watch();
    if (result < 0) {
        drop_signal_stack();
        return result;
    }
    thread.armed = true;
    sigsegv_keep_unblocked();
    return 0;
}

/* ONSTACK: the stack that overflowed has no room for a handler. A foreign touch may be retried until another
 * thread has mended it, as runtimes with safe points do. */
__attribute__((constructor)) static void register_handlers(void) {
    fault_chain_register(SIGSEGV, mend_overflow, SA_ONSTACK, false);
    thread_end_register(end_thread);
}
