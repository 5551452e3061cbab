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
 *    disabled, faulthandler swallows the signals it gets. So each of our installations is known by a function
 *    of its own, for which the number of handlers below it is recorded.
 *  - Which handler is below an installation is known only once it is installed: another thread may have
 *    changed handlers just before, and a third one may put its handler over ours just after. So the record is
 *    corrected, and not what is installed.
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

#define SIGNALS 3
#define PREVIOUS_MOST 24
#define MASK_WORDS (sizeof(sigset_t) / sizeof(unsigned long))
#define ENTRIES 64 /* more than twice as many: one that is still in use is not used again */

/* A struct sigaction in words that one thread may read while another one writes. What was read is of one
 * handler only if `changes` is the same afterwards. */
typedef struct {
    _Atomic uintptr_t handler;
    _Atomic int flags;
    _Atomic unsigned long mask[MASK_WORDS];
} kept_action;

typedef struct {
    int number; /* 0: not registered */
    fault_mend mends[FAULT_MENDS_MOST];
    int mend_count;
    int flags;
    bool ends_unmended;
    _Atomic bool is_kept;

    pthread_mutex_t lock; /* taken to change what follows */
    kept_action previous[PREVIOUS_MOST]; /* were first before ours, newest last; may be read meanwhile */
    int covered[PREVIOUS_MOST]; /* the entry of ours that each of them may restore */
    _Atomic int count;
    _Atomic int below[ENTRIES]; /* the handlers below the installation with this entry */
    int installed, newest;      /* the entries that is in place, as far as is known, and that was made last */
    bool is_away; /* ours was removed: only the oldest is known, and it may be out of date */
    _Atomic unsigned changes; /* odd while `previous` changes or does not agree with the installed handler */
    _Atomic bool is_ending;
} chain;

#define FREE_CHAIN {.lock = PTHREAD_MUTEX_INITIALIZER}
static chain chains[SIGNALS] = {FREE_CHAIN, FREE_CHAIN, FREE_CHAIN};

static chain *chain_of(int number) {
    for (int i = 0; i < SIGNALS; i++)
        if (chains[i].number == number) return &chains[i];
    return NULL;
}

static void keep(kept_action *kept, const struct sigaction *action) {
    unsigned long mask[MASK_WORDS];
    memcpy(mask, &action->sa_mask, sizeof mask);
    atomic_store(&kept->handler, (uintptr_t)action->sa_sigaction);
    atomic_store(&kept->flags, action->sa_flags);
    for (size_t i = 0; i < MASK_WORDS; i++) atomic_store(&kept->mask[i], mask[i]);
}

static struct sigaction kept_in(kept_action *kept) {
    unsigned long mask[MASK_WORDS];
    for (size_t i = 0; i < MASK_WORDS; i++) mask[i] = atomic_load(&kept->mask[i]);
    struct sigaction action = {.sa_flags = atomic_load(&kept->flags)};
    action.sa_sigaction = (void (*)(int, siginfo_t *, void *))atomic_load(&kept->handler);
    memcpy(&action.sa_mask, mask, sizeof mask);
    return action;
}

/* ---- our own handler ---------------------------------------------------------------------------- */

static void on_fault(int number, siginfo_t *info, void *context, int entry);

/* The entries do the same. The address of the one that is installed shows which installation it is. Their
 * numbers are octal. */
#define EIGHT(what, n) what(n##0) what(n##1) what(n##2) what(n##3) what(n##4) what(n##5) what(n##6) what(n##7)
/* clang-format off */
#define EACH(what)                              \
    EIGHT(what, 0) EIGHT(what, 1) EIGHT(what, 2) EIGHT(what, 3) \
    EIGHT(what, 4) EIGHT(what, 5) EIGHT(what, 6) EIGHT(what, 7)
/* clang-format on */
#define DEFINED(n) \
    static void entry_##n(int number, siginfo_t *info, void *context) { on_fault(number, info, context, 0##n); }
#define LISTED(n) entry_##n,
EACH(DEFINED)
static void (*const entries[ENTRIES])(int, siginfo_t *, void *) = {EACH(LISTED)};

/* -1 if the handler is none of ours. */
static int entry_of(const struct sigaction *action) {
    for (int i = 0; action->sa_flags & SA_SIGINFO && i < ENTRIES; i++)
        if (action->sa_sigaction == entries[i]) return i;
    return -1;
}

static bool is_ours(const struct sigaction *action) { return entry_of(action) >= 0; }

/* How many handlers are below this installation of ours. */
static int count_below(chain *c, const struct sigaction *ours) {
    return atomic_load(&c->below[entry_of(ours)]);
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

static bool is_fault(int number) { return number == SIGBUS || number == SIGSEGV; }

/* A touch is retried, so that a core dump shows its place. A signal that a process sent is not, nor is one
 * that the kernel sent because it could not run another signal's handler. */
static void end_by_default(chain *c, const siginfo_t *info) {
    if (!is_fault(c->number)) return; /* SIGURG: its default is to be ignored */
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

/* The handlers below ours: how many, and the one that gets this signal, which is a copy, since another thread
 * may keep another one in its place at once. */
typedef struct {
    int count;
    int place; /* -1: there is none */
    struct sigaction handler;
} handler_below;

/* A handler that was over ours may just have restored ours and sent the signal again, and no thread has noted
 * yet that it left. `called` is the entry of ours that the handler we called has called itself, or -1. */
static handler_below find_below(chain *c, bool is_back, int called) {
    for (;;) {
        const unsigned changes = atomic_load(&c->changes);
        if (changes % 2) {
            os_yield();
            continue;
        }
        const int count = atomic_load(&c->count);
        struct sigaction now;
        const bool is_known = os_signal_action(c->number, NULL, &now) == 0 && is_ours(&now);
        handler_below below = {.count = is_known ? count_below(c, &now) : count};
        below.place = below.count - 1;
        /* A handler that was added since is not one that we called. For example, faulthandler restores the
         * handler before it and sends the signal again, while another thread installs ours over the restored
         * handler: the signal is then meant for that restored handler. */
        if (is_back && below.count <= last.count && below.place >= last.place) below.place = last.place - 1;
        /* Only what is below that entry is below that handler. If two handlers came between two looks, only the
         * upper one was noted, and it may have left since. */
        if (called >= 0 && below.place >= atomic_load(&c->below[called]))
            below.place = atomic_load(&c->below[called]) - 1;
        if (below.place >= 0) below.handler = kept_in(&c->previous[below.place]);
        if (atomic_load(&c->changes) == changes) return below;
    }
}

static void pass_on(chain *c, siginfo_t *info, void *context, bool must_end, int entry) {
    const char *frame = __builtin_frame_address(0);
    const bool by_kernel = info->si_code > 0;
    const passed_on outer = last;
    const bool is_back = is_called_back(c->number, info, frame);
    const handler_below below = find_below(c, is_back, is_back && info == last.info ? entry : -1);
    if (below.place < 0 || below.handler.sa_handler == SIG_DFL) {
        end_by_default(c, info);
    } else if (below.handler.sa_handler == SIG_IGN) {
        /* The kernel itself does not let a failed touch be ignored. */
        if (by_kernel) end_by_default(c, info);
    } else {
        const mcontext_t before = ((ucontext_t *)context)->uc_mcontext;
        last = (passed_on){info, frame, c->number, below.place, below.count};
        call(&below.handler, c->number, info, context);
        last = outer;
        if (by_kernel && (must_end || c->ends_unmended) && mended_nothing(info, &before, context))
            end_by_default(c, info);
    }
}

static void on_fault(int number, siginfo_t *info, void *context, int entry) {
    const int saved_errno = errno;
    chain *c = chain_of(number);
    fault_answer answer = FAULT_FOREIGN;
    for (int i = 0; i < c->mend_count && answer == FAULT_FOREIGN; i++) answer = c->mends[i](info, context);
    if (answer != FAULT_MENDED) pass_on(c, info, context, answer == FAULT_FAILED, entry);
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

static bool is_kept_in(kept_action *kept, const struct sigaction *action) {
    const struct sigaction other = kept_in(kept);
    return is_same(&other, action);
}

/* Our own handler is in place again because a handler that was over it restored it: the handlers above it
 * are gone. */
static void forget_who_left(chain *c, const struct sigaction *ours) {
    atomic_store(&c->count, count_below(c, ours));
    c->installed = entry_of(ours);
}

/* Records the handler that ours is installed over. If it is known, a handler over it restored it and left: that
 * one was installed while ours was not in place. */
static void note_below(chain *c, const struct sigaction *below) {
    const int most = c->is_away ? 0 : atomic_load(&c->count);
    int count = most;
    while (count > 0 && !is_kept_in(&c->previous[count - 1], below)) count--;
    if (count == 0) {
        /* Full only if other code installs new handlers without end; then the newest is forgotten. */
        count = most < PREVIOUS_MOST ? most : most - 1;
        c->covered[count] = c->installed;
        keep(&c->previous[count++], below);
    }
    atomic_store(&c->count, count);
    c->is_away = false;
}

/* An entry that no handler which is known may restore, nor one that comes over what is installed now: such a
 * handler may stay over the same entry for more than ENTRIES installations. Others are used again as late as
 * possible. */
static int next_entry(const chain *c) {
    for (int entry = (c->newest + 1) % ENTRIES;; entry = (entry + 1) % ENTRIES) {
        bool is_covered = entry == c->installed;
        for (int i = 0; i < atomic_load(&c->count); i++) is_covered |= c->covered[i] == entry;
        if (!is_covered) return entry;
    }
}

/* A system call that a handler of the program interrupts must still be interrupted, and Go's runtime ends the
 * process if its handlers don't run on the alternate stack. A fault happens in no system call. */
static int flags_over(const chain *c, const struct sigaction *below) {
    const bool is_handler = below->sa_handler != SIG_DFL && below->sa_handler != SIG_IGN;
    if (is_fault(c->number) || !is_handler) return c->flags;
    return below->sa_flags & (SA_RESTART | SA_ONSTACK);
}

/* Installs ours over `now`, or over what was installed meanwhile. While it handles a signal, faulthandler
 * restores the handler before it and sends the signal again; that handler must not be called a second time. */
static int exchange(chain *c, const struct sigaction *now) {
    const int before = c->is_away ? 0 : atomic_load(&c->count), entry = next_entry(c);
    /* NODEFER: what mends a fault may raise another one, and the handler below may raise the same. */
    const struct sigaction ours = {.sa_sigaction = entries[entry],
                                   .sa_flags = SA_SIGINFO | SA_NODEFER | flags_over(c, now)};
    struct sigaction was;
    note_below(c, now);
    atomic_store(&c->below[entry], atomic_load(&c->count));
    const int result = os_signal_action(c->number, &ours, &was);
    if (result < 0) return result;
    if (!is_same(&was, now)) {
        atomic_store(&c->count, before);
        if (is_ours(&was)) forget_who_left(c, &was);
        else note_below(c, &was);
        atomic_store(&c->below[entry], atomic_load(&c->count));
    }
    c->installed = c->newest = entry;
    return result;
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
    if (atomic_load(&c->is_kept)) return fault_chain_be_first(number);
    if (atomic_load(&c->count) == 0) return 0;
    pthread_mutex_lock(&c->lock);
    int result = os_signal_action(number, NULL, &now);
    if (result == 0 && is_ours(&now)) {
        forget_who_left(c, &now);
        if (atomic_load(&c->count) == 1) {
            c->is_away = true;
            const struct sigaction only = kept_in(&c->previous[0]);
            result = os_signal_action(number, &only, NULL);
        }
    }
    pthread_mutex_unlock(&c->lock);
    return result;
}

bool fault_chain_is_first(int number) {
    struct sigaction now;
    return os_signal_action(number, NULL, &now) == 0 && is_ours(&now);
}

int fault_chain_keep(int number) {
    atomic_store(&chain_of(number)->is_kept, true);
    return fault_chain_be_first(number);
}

void fault_chain_register(int number, fault_mend mend, int flags, bool ends_unmended) {
    chain *c = chain_of(number);
    if (!c) c = chain_of(0); /* a free one */
    c->mends[c->mend_count++] = mend;
    c->flags |= flags;
    c->ends_unmended |= ends_unmended;
    c->number = number;
}

void fault_chain_renew_locks(void) {
    for (size_t i = 0; i < SIGNALS; i++) (void)os_lock_renew(&chains[i].lock);
}
