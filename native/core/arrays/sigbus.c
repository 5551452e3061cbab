/* The SIGBUS handler: when a lost block is touched, it refills the block.
 *
 * Only a SIGBUS that the kernel raised, at an address in an array, is ours. Every other one, such as a
 * kill(SIGBUS) or a touch behind the end of a truncated file, goes to the other handlers (fault_chain.c).
 * The caretaker checks at every tick whether ours is still the first, and makes it so.
 *
 * The traps, each of them met once:
 *  - SA_ONSTACK would run nested refaults over each other on the one alternate stack.
 *  - With SIGBUS blocked in the touching thread, the kernel ends the process; nothing can be done here.
 *
 * Our handler is removed with the last array, unless other code has installed one over it, or another room
 * keeps it (fault_chain_keep).
 *
 * Nothing in here allocates, locks or logs, except for the message before the end. */
#define _GNU_SOURCE
#include "arrays/sigbus.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "arrays/array_fill.h"
#include "arrays/array_places.h"
#include "base/caretaker.h"
#include "base/fault_chain.h"
#include "base/gate.h"
#include "base/userfault_closed.h"
#include "os/os.h"
#include "base/rung.h"

#define NESTED_MOST 32 /* touches within a regenerator within a touch */

static _Thread_local int nested;

/* ---- ending the process with a message -------------------------------------------------------- */

typedef struct {
    char text[512];
    size_t length;
} message;

static void say(message *m, const char *text) {
    while (*text && m->length < sizeof m->text) m->text[m->length++] = *text++;
}

static void say_number(message *m, uint64_t number) {
    char digits[24];
    size_t at = sizeof digits;
    digits[--at] = 0;
    do digits[--at] = (char)('0' + number % 10);
    while (number /= 10);
    say(m, digits + at);
}

/* glibc has it since 2.32, and musl does not. strerror() is no function for a signal handler. */
extern const char *strerrordesc_np(int error) __attribute__((weak));

static void tell_failure(vrange_array *array, const void *address, int error) {
    const char *why = strerrordesc_np ? strerrordesc_np(error) : NULL;
    message m = {.length = 0};
    say(&m, "vrange: block ");
    say_number(&m, (uint64_t)((const char *)address - array->base) / array->block_bytes);
    say(&m, " of array '");
    say(&m, array->account->name);
    say(&m, "' was touched and can't be put back: ");
    if (error == ENOTSUP) {
        say(&m, "its fill is a Python function, which does not run inside a touch "
                "(index the array or pin() it, or pass fault=\"python\")");
    } else if (error == ECANCELED) {
        say(&m, "its fill raised the exception shown above");
    } else if (error == ELOOP) {
        say(&m, "its regenerator touches the block that it is filling");
    } else {
        say(&m, why ? why : "its regenerator failed");
        say(&m, " (");
        say_number(&m, (uint64_t)error);
        say(&m, ")");
    }
    say(&m, ". Continuing would compute with missing content, so the process ends.\n");
    os_complain(m.text, m.length);
}

/* While another thread registers everything with a new userfaultfd, calls on the descriptor fail. */
static int refill(vrange_array *array, const void *address) {
    for (unsigned waited = 0;; waited++) {
        const uint64_t mends = rung_mends();
        int error = array_refill(array, address);
        if (error == 0) return 0;
        if (rung_mends() != mends) continue;
        error = mend_for_touch(waited, error);
        if (error) return error;
    }
}

static fault_answer mend_touch(siginfo_t *info, void *context) {
    (void)context;
    /* The kernel's other codes report broken memory, which can't be refilled. */
    vrange_array *array = info->si_code == BUS_ADRERR ? array_at(info->si_addr) : NULL;
    if (!array) return FAULT_FOREIGN;
    const uint64_t start = os_now_ns();
    int error = ELOOP;
    if (nested < NESTED_MOST) {
        nested++;
        error = refill(array, info->si_addr);
        nested--;
    }
    if (error) {
        tell_failure(array, info->si_addr, error);
        return FAULT_FAILED; /* faulthandler shows where that was */
    }
    vrange_latency_record(VRANGE_KIND_ARRAY, VRANGE_REALLOCATE_PURGED, os_now_ns() - start);
    return FAULT_MENDED;
}

/* ---- staying the first handler ---------------------------------------------------------------- */

int sigbus_look(void) {
    return arrays_exist() ? fault_chain_be_first(SIGBUS) : fault_chain_leave(SIGBUS);
}

int vrange_refault_arm(void) {
    gate_enter();
    caretaker_ensure(); /* in the child of a fork no thread checks the handler yet */
    if (!rung_holds()) mend();
    int result = sigbus_look();
    gate_leave();
    return result;
}

/* RESTART: no EINTR for the code that a touch by another thread interrupts. */
__attribute__((constructor)) static void register_handler(void) {
    fault_chain_register(SIGBUS, mend_touch, SA_RESTART, true);
}
