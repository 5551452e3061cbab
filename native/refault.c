/* The SIGBUS handler: a touch of a lost block, answered by putting it back.
 *
 * Only a SIGBUS of the kernel's own making, at an address in an array, is ours. Everything else is
 * somebody else's and ends as it would without us: a kill(SIGBUS), or a touch behind the end of a
 * truncated file. Those who were there before us are called; with nobody there, the default follows.
 *
 * The traps, each met once:
 *  - faulthandler, enabled after us, puts its handler over ours and calls us back while it handles:
 *    the thread-local `forwarding` sends that to the default action, or it would go round for ever.
 *  - faulthandler.disable() restores what was there before it, which may remove us; signal.signal()
 *    puts a handler there that only sets a flag, so that a touch would be retried for ever. So the
 *    thread of the reserve looks at every tick whether we are still the first, and puts us there.
 *  - SA_ONSTACK would run nested refaults over each other on the one alternate stack.
 *  - with SIGBUS blocked in the touching thread the kernel ends the process; nothing can be done here.
 *
 * Nothing in here allocates, locks or logs, but for the message before the end. */
#define _GNU_SOURCE
#include "refault.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "array.h"
#include "fork.h"
#include "os.h"

#define PREVIOUS_MOST 64

/* Handlers that were first before us, newest last. Only added to: a handler may be reading one. */
static struct {
    pthread_mutex_t lock;
    struct sigaction handlers[PREVIOUS_MOST];
    _Atomic int count;
} previous = {.lock = PTHREAD_MUTEX_INITIALIZER};

static _Thread_local bool forwarding;

/* ---- ending the process, in words ------------------------------------------------------------- */

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

static void tell_failure(vrange_array *array, const void *address, int error) {
    const char *why = strerrordesc_np(error);
    message m = {.length = 0};
    say(&m, "vrange: block ");
    say_number(&m, (uint64_t)((const char *)address - array->base) / array->block_bytes);
    say(&m, " of array '");
    say(&m, array->account->name);
    say(&m, "' was touched and can't be put back: ");
    if (error == ENOTSUP) {
        say(&m, "its fill is a Python function, which does not run inside a touch "
                "(index the array or pin() it, or pass fault=\"python\")");
    } else {
        say(&m, why ? why : "its regenerator failed");
        say(&m, " (");
        say_number(&m, (uint64_t)error);
        say(&m, ")");
    }
    say(&m, ". Going on would compute with what is not there, so the process ends.\n");
    os_write_error(m.text, m.length);
}

static void end_by_default(int number, const siginfo_t *info) {
    struct sigaction action = {.sa_handler = SIG_DFL};
    sigaction(number, &action, NULL);
    /* A touch is tried again and ends the process there, so that a core shows the place. What was
     * sent has to be sent again. */
    if (info->si_code <= 0) raise(number);
}

/* ---- what is not ours ------------------------------------------------------------------------- */

static void forward(int number, siginfo_t *info, void *context) {
    const int count = atomic_load(&previous.count);
    const struct sigaction *before = count ? &previous.handlers[count - 1] : NULL;
    if (forwarding || !before) {
        end_by_default(number, info);
        return;
    }
    if (before->sa_flags & SA_SIGINFO) {
        forwarding = true;
        before->sa_sigaction(number, info, context);
        forwarding = false;
    } else if (before->sa_handler == SIG_DFL) {
        end_by_default(number, info);
    } else if (before->sa_handler == SIG_IGN) {
        /* The kernel itself does not let a failed touch be ignored. */
        if (info->si_code > 0) end_by_default(number, info);
    } else {
        forwarding = true;
        before->sa_handler(number);
        forwarding = false;
    }
}

static void on_sigbus(int number, siginfo_t *info, void *context) {
    const int saved_errno = errno;
    vrange_array *array = info->si_code > 0 ? array_at(info->si_addr) : NULL;
    if (!array) {
        forward(number, info, context);
        errno = saved_errno;
        return;
    }
    const uint64_t start = os_now_ns();
    int error = array_refill(array, info->si_addr);
    if (error) {
        tell_failure(array, info->si_addr, error);
        end_by_default(number, info);
    } else {
        vrange_latency_record(VRANGE_KIND_ARRAY, VRANGE_REALLOCATE_PURGED, os_now_ns() - start);
    }
    errno = saved_errno;
}

/* ---- being the first -------------------------------------------------------------------------- */

static bool is_ours(const struct sigaction *action) {
    return action->sa_flags & SA_SIGINFO && action->sa_sigaction == on_sigbus;
}

static bool is_last_known(const struct sigaction *action) {
    const int count = atomic_load(&previous.count);
    if (count == 0) return false;
    const struct sigaction *last = &previous.handlers[count - 1];
    return last->sa_flags == action->sa_flags && last->sa_sigaction == action->sa_sigaction;
}

int refault_arm_again(void) {
    if (!arrays_exist()) return 0;
    struct sigaction now;
    if (sigaction(SIGBUS, NULL, &now) < 0) return -errno;
    if (is_ours(&now)) return 0;
    int result = 0;
    pthread_mutex_lock(&previous.lock);
    const int count = atomic_load(&previous.count);
    if (!is_last_known(&now)) {
        /* Full only where somebody changes handlers without end; then the newest is forgotten. */
        int place = count < PREVIOUS_MOST ? count : PREVIOUS_MOST - 1;
        previous.handlers[place] = now;
        atomic_store(&previous.count, place + 1);
    }
    /* NODEFER: a regenerator may touch another array. RESTART: no EINTR for what we interrupted. */
    struct sigaction ours = {.sa_sigaction = on_sigbus,
                             .sa_flags = SA_SIGINFO | SA_NODEFER | SA_RESTART};
    if (sigaction(SIGBUS, &ours, NULL) < 0) result = -errno;
    pthread_mutex_unlock(&previous.lock);
    return result;
}

int vrange_refault_arm(void) {
    gate_enter();
    int result = refault_arm_again();
    gate_leave();
    return result;
}
