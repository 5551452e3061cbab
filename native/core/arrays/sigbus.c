/* The SIGBUS handler: when a lost block is touched, it refills the block.
 *
 * Only a SIGBUS that the kernel raised, at an address in an array, is ours. Every other one ends as it
 * would without this handler: a kill(SIGBUS), or a touch behind the end of a truncated file. The handlers
 * that were installed before are called; if there were none, the default action follows.
 *
 * The traps, each of them met once:
 *  - faulthandler, enabled after us, installs its handler over ours and calls us back while it handles a
 *    signal. A signal that comes back goes to the handler before ours (`forwarding`); otherwise it would go
 *    round for ever.
 *  - faulthandler.disable() restores the handler that was there before it, which may remove ours.
 *    signal.signal() installs a handler that only sets a flag, so that a touch would be retried for ever. So
 *    the reserve's thread checks at every tick whether our handler is still the first, and makes it so.
 *  - A handler that was over ours may restore ours when it leaves, and must not be called any more: once
 *    disabled, faulthandler swallows the signals it gets. So each of our installations is marked with the
 *    number of handlers below it.
 *  - A handler that returns without mending anything would be called for ever.
 *  - SA_ONSTACK would run nested refaults over each other on the one alternate stack.
 *  - With SIGBUS blocked in the touching thread, the kernel ends the process; nothing can be done here.
 *
 * Our handler is removed with the last array, unless other code has installed one over it.
 *
 * Nothing in here allocates, locks or logs, except for the message before the end. */
#define _GNU_SOURCE
#include "arrays/sigbus.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <ucontext.h>

#include "arrays/array_fill.h"
#include "arrays/array_places.h"
#include "base/caretaker.h"
#include "base/gate.h"
#include "base/mend.h"
#include "os/os.h"
#include "os/os_thread.h"
#include "base/rung.h"

#define PREVIOUS_MOST 64
#define NESTED_MOST 32 /* touches within a regenerator within a touch */

/* Handlers that were first before ours, newest last. A handler may be reading one of them. */
static struct {
    pthread_mutex_t lock;
    struct sigaction handlers[PREVIOUS_MOST];
    _Atomic int count;
    bool away; /* ours was removed: only the oldest is known, and it may be out of date */
} previous = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* The signal that this thread last forwarded, and the handler it went to. */
typedef struct {
    const siginfo_t *info;
    const char *frame; /* on the stack; a siglongjmp leaves it behind */
    int place;
    int count; /* of handlers at that time */
} handed_on;

static _Thread_local handed_on forwarding;

static _Thread_local int nested;
static _Atomic bool ending;
static _Atomic bool changing; /* `previous` and the installed handler do not agree at the moment */

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

static void end_by_default(int number, const siginfo_t *info) {
    struct sigaction action = {.sa_handler = SIG_DFL};
    const bool by_kernel = info->si_code > 0;
    /* Otherwise ours might be installed first again before the process ends. */
    if (by_kernel) atomic_store(&ending, true);
    os_signal_action(number, &action, NULL); /* can't fail for a valid signal */
    /* A touch is retried and ends the process there, so that a core dump shows the place. A signal that a
     * process sent has to be sent again. */
    if (!by_kernel) os_thread_signal(os_thread_id(), number);
}

/* ---- signals that are not ours ---------------------------------------------------------------- */

/* Whether we are called from within the handler that we called. It may call us itself, as handlers call
 * the ones before them, or through a signal that it raises. Its frame then has a higher address than ours.
 * A frame that a siglongjmp left behind at a higher address belongs to another signal. */
static bool is_called_back(const siginfo_t *info, const char *frame) {
    if (!forwarding.frame || frame >= forwarding.frame) return false;
    return info == forwarding.info || (info->si_code == SI_TKILL && (uint32_t)info->si_pid == os_process_id());
}

/* Calls the handler as the kernel would have. */
static void call(const struct sigaction *handler, int number, siginfo_t *info, void *context) {
    sigset_t masked = handler->sa_mask;
    if (!(handler->sa_flags & SA_NODEFER)) sigaddset(&masked, number);
    os_block_signals(&masked); /* the return from our own handler undoes this */
    if (handler->sa_flags & SA_SIGINFO) handler->sa_sigaction(number, info, context);
    else handler->sa_handler(number);
}

/* Whether the same touch would recur and be answered in the same way. */
static bool mended_nothing(const siginfo_t *info, const mcontext_t *before, const ucontext_t *now) {
    return memcmp(before, &now->uc_mcontext, sizeof *before) == 0 && !os_is_readable(info->si_addr);
}

static void forward(int number, siginfo_t *info, void *context) {
    const char *frame = __builtin_frame_address(0);
    const bool by_kernel = info->si_code > 0;
    while (atomic_load(&changing)) os_yield();
    const int count = atomic_load(&previous.count);
    int place = count - 1;
    /* A handler that was added since is not one that we called. For example, faulthandler restores the
     * handler before it and sends the signal again, while the caretaker installs ours over the restored
     * handler: the signal is then meant for that restored handler. */
    if (is_called_back(info, frame) && count <= forwarding.count && place >= forwarding.place)
        place = forwarding.place - 1;
    const struct sigaction *handler = place >= 0 ? &previous.handlers[place] : NULL;
    if (!handler || handler->sa_handler == SIG_DFL) {
        end_by_default(number, info);
    } else if (handler->sa_handler == SIG_IGN) {
        /* The kernel itself does not let a failed touch be ignored. */
        if (by_kernel) end_by_default(number, info);
    } else {
        const mcontext_t before = ((ucontext_t *)context)->uc_mcontext;
        const handed_on outer = forwarding;
        forwarding = (handed_on){info, frame, place, count};
        call(handler, number, info, context);
        forwarding = outer;
        if (by_kernel && mended_nothing(info, &before, context)) end_by_default(number, info);
    }
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

static void on_sigbus(int number, siginfo_t *info, void *context) {
    const int saved_errno = errno;
    /* The kernel's other codes report broken memory, which can't be refilled. */
    vrange_array *array = info->si_code == BUS_ADRERR ? array_at(info->si_addr) : NULL;
    if (!array) {
        forward(number, info, context);
        errno = saved_errno;
        return;
    }
    const uint64_t start = os_now_ns();
    int error = ELOOP;
    if (nested < NESTED_MOST) {
        nested++;
        error = refill(array, info->si_addr);
        nested--;
    }
    if (error) {
        tell_failure(array, info->si_addr, error);
        forward(number, info, context); /* faulthandler shows where that was */
    } else {
        vrange_latency_record(VRANGE_KIND_ARRAY, VRANGE_REALLOCATE_PURGED, os_now_ns() - start);
    }
    errno = saved_errno;
}

/* ---- staying the first handler ---------------------------------------------------------------- */

/* Flags that have a meaning for SIGCHLD only and that the kernel keeps. They store the number of handlers
 * below ours, as far as two bits can. */
#define MARK (SA_NOCLDSTOP | SA_NOCLDWAIT)

static int mark_of(int count) {
    return (count & 1 ? SA_NOCLDSTOP : 0) | (count & 2 ? SA_NOCLDWAIT : 0);
}

static bool is_ours(const struct sigaction *action) {
    return action->sa_flags & SA_SIGINFO && action->sa_sigaction == on_sigbus;
}

static bool is_same(const struct sigaction *one, const struct sigaction *other) {
    return one->sa_flags == other->sa_flags && one->sa_sigaction == other->sa_sigaction;
}

/* Our own handler is in place again because a handler that was over it restored it: the handlers above it
 * are gone. */
static void forget_who_left(const struct sigaction *ours) {
    int count = atomic_load(&previous.count);
    for (int gone = 0; gone < 4 && count > 0; gone++) {
        if (mark_of(count) == (ours->sa_flags & MARK)) break;
        count--;
    }
    if (mark_of(count) == (ours->sa_flags & MARK)) atomic_store(&previous.count, count);
}

/* Records the handler that ours is installed over. */
static void note_below(const struct sigaction *below) {
    int count = previous.away ? 0 : atomic_load(&previous.count);
    if (count == 0 || !is_same(&previous.handlers[count - 1], below)) {
        /* Full only if other code changes handlers without end; then the newest is forgotten. */
        if (count == PREVIOUS_MOST) count--;
        previous.handlers[count++] = *below;
    }
    atomic_store(&previous.count, count);
    previous.away = false;
}

/* Installs ours over `now`, and over any handler that was installed meanwhile. While it handles a signal,
 * faulthandler restores the handler before it and sends the signal again; that handler must not be called
 * a second time. */
static int exchange(const struct sigaction *now) {
    struct sigaction below = *now, expected = *now, was;
    for (;;) {
        const int count = previous.away ? 0 : atomic_load(&previous.count);
        if (is_ours(&below)) forget_who_left(&below);
        else note_below(&below);
        /* NODEFER: a regenerator may touch another array. RESTART: no EINTR for the code that we
         * interrupt. */
        const struct sigaction ours = {
            .sa_sigaction = on_sigbus,
            .sa_flags = SA_SIGINFO | SA_NODEFER | SA_RESTART | mark_of(atomic_load(&previous.count))};
        const int result = os_signal_action(SIGBUS, &ours, &was);
        if (result < 0 || is_same(&was, &expected)) return result;
        atomic_store(&previous.count, count);
        below = was;
        expected = ours;
    }
}

/* A signal that arrives meanwhile waits until the previous handler is known. */
static int put_ours_first(const struct sigaction *now) {
    sigset_t before;
    os_block_signal(SIGBUS, &before);
    atomic_store(&changing, true);
    const int result = exchange(now);
    atomic_store(&changing, false);
    os_unblock_to(&before);
    return result;
}

/* A handler installed after ours will chain to it, so ours must stay installed. */
static bool may_go_away(void) { return atomic_load(&previous.count) == 1; }

static int take_ours_away(void) {
    previous.away = true;
    return os_signal_action(SIGBUS, &previous.handlers[0], NULL);
}

int refault_look(void) {
    int result = 0;
    pthread_mutex_lock(&previous.lock);
    const bool wanted = arrays_exist();
    struct sigaction now;
    if (wanted ? !atomic_load(&ending) : atomic_load(&previous.count) > 0) {
        result = os_signal_action(SIGBUS, NULL, &now);
        if (result == 0 && is_ours(&now)) forget_who_left(&now);
        if (result == 0 && wanted && !is_ours(&now)) result = put_ours_first(&now);
        if (result == 0 && !wanted && is_ours(&now) && may_go_away()) result = take_ours_away();
    }
    pthread_mutex_unlock(&previous.lock);
    return result;
}

int vrange_refault_arm(void) {
    gate_enter();
    caretaker_ensure(); /* in the child of a fork no thread checks the handler yet */
    if (!rung_holds()) mend();
    int result = refault_look();
    gate_leave();
    return result;
}
