/* Staying the first handler of a signal, and passing on what is not ours.
 *
 * The traps, each of them met once:
 *  - faulthandler, enabled after us, installs its handler over ours and calls us back while it handles a
 *    signal. A signal that comes back goes to the handler before ours (`last`); otherwise it would go
 *    round for ever.
 *  - faulthandler.disable() restores the handler that was there before it, which may remove ours.
 *    signal.signal() installs a handler that only sets a flag, so that a touch would be retried for ever. So
 *    the rooms check now and then whether our handler is still the first, and make it so.
 *  - A handler that was over ours may restore ours when it leaves, and must not be called any more: once
 *    disabled, faulthandler swallows the signals it gets. So each of our installations is marked with the
 *    number of handlers below it.
 *  - A handler that returns without mending anything would be called for ever.
 *  - A thread-local may be allocated at its first touch, and the signal may have interrupted the allocator.
 *    So the library is built with -ftls-model=initial-exec.
 *
 * Nothing in here allocates, locks or logs. */
#define _GNU_SOURCE
#include "base/fault_chain.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

#include "os/os.h"
#include "os/os_thread.h"

#define SIGNALS 2
#define PREVIOUS_MOST 64

typedef struct {
    int number; /* 0: not registered */
    fault_mend mend;
    int flags;
    bool ends_unmended;

    pthread_mutex_t lock; /* taken to change what follows */
    struct sigaction previous[PREVIOUS_MOST]; /* were first before ours, newest last; may be read meanwhile */
    _Atomic int count;
    bool is_away; /* ours was removed: only the oldest is known, and it may be out of date */
    _Atomic unsigned changes; /* odd while `previous` and the installed handler do not agree */
    _Atomic bool is_ending;
} chain;

static chain chains[SIGNALS] = {{.lock = PTHREAD_MUTEX_INITIALIZER}, {.lock = PTHREAD_MUTEX_INITIALIZER}};

static chain *chain_of(int number) {
    for (int i = 0; i < SIGNALS; i++)
        if (chains[i].number == number) return &chains[i];
    return NULL;
}

/* ---- our own handler ---------------------------------------------------------------------------- */

/* Flags that have a meaning for SIGCHLD only and that the kernel keeps. They store the number of handlers
 * below ours, as far as two bits can. */
#define MARK (SA_NOCLDSTOP | SA_NOCLDWAIT)

static int mark_of(int count) { return (count & 1 ? SA_NOCLDSTOP : 0) | (count & 2 ? SA_NOCLDWAIT : 0); }

static void on_fault(int number, siginfo_t *info, void *context);

static bool is_ours(const struct sigaction *action) {
    return action->sa_flags & SA_SIGINFO && action->sa_sigaction == on_fault;
}

/* How many of the `count` handlers that are known are below this installation of ours. */
static int count_below(int count, const struct sigaction *ours) {
    for (int gone = 0; gone < 4 && gone <= count; gone++)
        if (mark_of(count - gone) == (ours->sa_flags & MARK)) return count - gone;
    return count;
}

/* The signal that a thread last passed on, and the handler it went to. */
typedef struct {
    const siginfo_t *info;
    const char *frame; /* on the stack; a siglongjmp leaves it behind. NULL: nothing was passed on */
    int number;
    int place;
    int count; /* of handlers at that time */
} passed_on;

static _Thread_local passed_on last;

/* ---- passing on -------------------------------------------------------------------------------- */

/* A touch is retried, so that a core dump shows its place. A signal that a process sent is not, nor is one
 * that the kernel sent because it could not run another signal's handler. */
static void end_by_default(chain *c, const siginfo_t *info) {
    const struct sigaction action = {.sa_handler = SIG_DFL};
    const bool recurs = info->si_code > 0 && info->si_code != SI_KERNEL;
    /* Otherwise ours might be installed first again before the process ends. */
    if (info->si_code > 0) atomic_store(&c->is_ending, true);
    os_signal_action(c->number, &action, NULL); /* can't fail for a valid signal */
    if (!recurs) os_thread_signal(os_thread_id(), c->number);
}

/* Whether we are called from within the handler that we called. It may call us itself, as handlers call
 * the ones before them, or through a signal that it raises. Its frame then has a higher address than ours.
 * A frame that a siglongjmp left behind at a higher address belongs to another signal. */
static bool is_called_back(int number, const siginfo_t *info, const char *frame) {
    if (!last.frame || last.number != number || frame >= last.frame) return false;
    return info == last.info ||
           (info->si_code == SI_TKILL && (uint32_t)info->si_pid == os_process_id());
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

/* The number of handlers below ours. A handler that was over ours may just have restored ours and sent the
 * signal again, and no thread has noted yet that it left. */
static int count_now(chain *c) {
    for (;;) {
        const unsigned changes = atomic_load(&c->changes);
        if (changes % 2) {
            os_yield();
            continue;
        }
        const int count = atomic_load(&c->count);
        struct sigaction now;
        const bool is_known = os_signal_action(c->number, NULL, &now) == 0 && is_ours(&now);
        if (atomic_load(&c->changes) == changes) return is_known ? count_below(count, &now) : count;
    }
}

static void pass_on(chain *c, siginfo_t *info, void *context, bool must_end) {
    const char *frame = __builtin_frame_address(0);
    const bool by_kernel = info->si_code > 0;
    const passed_on outer = last;
    const int count = count_now(c);
    int place = count - 1;
    /* A handler that was added since is not one that we called. For example, faulthandler restores the
     * handler before it and sends the signal again, while another thread installs ours over the restored
     * handler: the signal is then meant for that restored handler. */
    if (is_called_back(c->number, info, frame) && count <= outer.count && place >= outer.place)
        place = outer.place - 1;
    const struct sigaction *handler = place >= 0 ? &c->previous[place] : NULL;
    if (!handler || handler->sa_handler == SIG_DFL) {
        end_by_default(c, info);
    } else if (handler->sa_handler == SIG_IGN) {
        /* The kernel itself does not let a failed touch be ignored. */
        if (by_kernel) end_by_default(c, info);
    } else {
        const mcontext_t before = ((ucontext_t *)context)->uc_mcontext;
        last = (passed_on){info, frame, c->number, place, count};
        call(handler, c->number, info, context);
        last = outer;
        if (by_kernel && (must_end || c->ends_unmended) && mended_nothing(info, &before, context))
            end_by_default(c, info);
    }
}

static void on_fault(int number, siginfo_t *info, void *context) {
    const int saved_errno = errno;
    chain *c = chain_of(number);
    const fault_answer answer = c->mend(info, context);
    if (answer != FAULT_MENDED) pass_on(c, info, context, answer == FAULT_FAILED);
    errno = saved_errno;
}

/* ---- staying the first handler ----------------------------------------------------------------- */

/* The C library adds it to what it passes to the kernel, and some return it with what was installed. */
#ifndef SA_RESTORER
#define SA_RESTORER 0x04000000
#endif

static bool is_same(const struct sigaction *one, const struct sigaction *other) {
    return ((one->sa_flags ^ other->sa_flags) & ~SA_RESTORER) == 0 &&
           one->sa_sigaction == other->sa_sigaction;
}

/* Our own handler is in place again because a handler that was over it restored it: the handlers above it
 * are gone. */
static void forget_who_left(chain *c, const struct sigaction *ours) {
    atomic_store(&c->count, count_below(atomic_load(&c->count), ours));
}

/* Records the handler that ours is installed over. */
static void note_below(chain *c, const struct sigaction *below) {
    int count = c->is_away ? 0 : atomic_load(&c->count);
    if (count == 0 || !is_same(&c->previous[count - 1], below)) {
        /* Full only if other code changes handlers without end; then the newest is forgotten. */
        if (count == PREVIOUS_MOST) count--;
        c->previous[count++] = *below;
    }
    atomic_store(&c->count, count);
    c->is_away = false;
}

/* Installs ours over `now`, and over any handler that was installed meanwhile. While it handles a signal,
 * faulthandler restores the handler before it and sends the signal again; that handler must not be called
 * a second time. */
static int exchange(chain *c, const struct sigaction *now) {
    struct sigaction below = *now, expected = *now, was;
    for (;;) {
        const int count = c->is_away ? 0 : atomic_load(&c->count);
        if (is_ours(&below)) forget_who_left(c, &below);
        else note_below(c, &below);
        /* NODEFER: what mends a fault may raise another one, and the handler below may raise the same. */
        const struct sigaction ours = {
            .sa_sigaction = on_fault,
            .sa_flags = SA_SIGINFO | SA_NODEFER | c->flags | mark_of(atomic_load(&c->count))};
        const int result = os_signal_action(c->number, &ours, &was);
        if (result < 0 || is_same(&was, &expected)) return result;
        atomic_store(&c->count, count);
        below = was;
        expected = ours;
    }
}

/* A signal that arrives meanwhile waits until the previous handler is known. */
static int put_ours_first(chain *c, const struct sigaction *now) {
    sigset_t before;
    os_block_signal(c->number, &before);
    atomic_fetch_add(&c->changes, 1);
    const int result = exchange(c, now);
    atomic_fetch_add(&c->changes, 1);
    os_unblock_to(&before);
    return result;
}

int fault_chain_be_first(int number) {
    chain *c = chain_of(number);
    struct sigaction now;
    if (atomic_load(&c->is_ending)) return 0;
    pthread_mutex_lock(&c->lock);
    int result = os_signal_action(number, NULL, &now);
    if (result == 0 && is_ours(&now)) forget_who_left(c, &now);
    else if (result == 0) result = put_ours_first(c, &now);
    pthread_mutex_unlock(&c->lock);
    return result;
}

int fault_chain_leave(int number) {
    chain *c = chain_of(number);
    struct sigaction now;
    if (atomic_load(&c->count) == 0) return 0;
    pthread_mutex_lock(&c->lock);
    int result = os_signal_action(number, NULL, &now);
    if (result == 0 && is_ours(&now)) {
        forget_who_left(c, &now);
        if (atomic_load(&c->count) == 1) {
            c->is_away = true;
            result = os_signal_action(number, &c->previous[0], NULL);
        }
    }
    pthread_mutex_unlock(&c->lock);
    return result;
}

bool fault_chain_is_first(int number) {
    struct sigaction now;
    return os_signal_action(number, NULL, &now) == 0 && is_ours(&now);
}

void fault_chain_register(int number, fault_mend mend, int flags, bool ends_unmended) {
    chain *c = chain_of(0); /* a free one */
    c->mend = mend;
    c->flags = flags;
    c->ends_unmended = ends_unmended;
    c->number = number;
}
