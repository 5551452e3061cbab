/* Trims the stacks of threads: the caller's own stack, and those of threads that are asked to.
 *
 * Frames that have returned leave their pages behind, and a pool's worker keeps the pages of its deepest
 * call for as long as it lives. Nothing below the stack pointer is in use, so those pages can be freed. But
 * only the thread itself knows its stack pointer, and only while it acts on it does the pointer stay where
 * it is. So the thread is sent a signal. The signal handler trims the stack below the frames that it
 * interrupted, and the thread goes on, or goes on waiting.
 *
 * The signal is SIGURG, because nothing that is sent here may end a program. A signal can stay pending
 * through exec, which resets the handlers: the new program then gets it with its default action, and that
 * of any real-time signal is to end the program. The default of SIGURG is to be ignored. Go's runtime
 * interrupts its threads by it for the same reason. Sockets send it only where a program asked for that
 * (F_SETOWN, out-of-band data). A program's own handler is called for every SIGURG that is not ours
 * (fault_chain.c). A thread that blocks the signal may wait for it (sigwait, signalfd): it gets none of
 * ours.
 *
 * The main thread's own stack is refused, unless it was made deep (own_stack.c). Its mapping grows as it is
 * touched, and its bounds can't be known reliably: folly once cleared heap buffers there
 * (facebook/folly#1488). */
#define _GNU_SOURCE
#include "stacks/idle_threads.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

#include "base/fault_chain.h"
#include "base/gate.h"
#include "os/os.h"
#include "os/os_thread.h"
#include "stacks/own_stack.h"
#include "stacks/sigsegv.h"
#include "counters/segment.h"
#include "stacks/stack.h"
#include "stacks/stack_pages.h"
#include "stacks/thread_end.h"

#define LOOK_AGAIN_NS 50000u
#define TRIM_WAIT_NS 200000000u
#define TRIM_SIGNAL SIGURG
#define RED_ZONE_BYTES 128 /* below the stack pointer, and in use (x86_64) */

typedef struct {
    _Atomic int thread_id; /* 0: free */
    char *low, *top;
    stack *own; /* NULL: the stack was not made deep */
    _Atomic bool only_deep; /* left alone unless its own stack went deep */
    _Atomic int release;
    _Atomic bool asked;
    _Atomic uint64_t answers;
    _Atomic size_t returned, high_water;
} registered;

static struct {
    pthread_mutex_t lock; /* a thread can't end while another one reads its stack */
    registered all[VRANGE_THREADS_MOST];
    _Atomic uint32_t count;
} idle = {.lock = PTHREAD_MUTEX_INITIALIZER};

static _Thread_local registered *mine;

/* An own stack may have returned its lowest part. */
static char *low_of(const registered *thread) { return thread->own ? thread->own->low : thread->low; }

/* ---- a thread trims itself ---------------------------------------------------------------------- */

static int64_t trim_own(char *low, char *top, stack *own, char *sp, int release) {
    if (sp < low || sp >= top) return -ENOTSUP;
    if (own) own_stack_fit(own);
    if (own) low = atomic_load(&own->warned) ? own->low : own->open_low;
    const int64_t returned = (int64_t)stack_trim_below(low, sp, release);
    if (own) own_stack_close(own, sp, (size_t)returned);
    return returned;
}

/* Trims the deep stacks that the thread is on, from the innermost outwards. Sets *sp to where the thread
 * left its own stack. */
static size_t trim_deep(char **sp, int release) {
    size_t returned = 0;
    stack *s = stack_around(*sp);
    while (s && atomic_load(&s->owner) == (uintptr_t)pthread_self()) {
        char *low = atomic_load(&s->warned) ? s->low : s->warning_top;
        returned += stack_trim_below(low, *sp, release);
        *sp = s->caller;
        s = s->outer;
    }
    return returned;
}

int64_t vrange_stack_trim(int release) {
    char *sp = __builtin_frame_address(0);
    const bool on_deep_stack = stack_around(sp) != NULL;
    size_t returned = trim_deep(&sp, release);
    const bool is_main = os_is_main_thread() && !mine; /* a thread that forked is registered as before */
    if (!on_deep_stack && is_main) return -EPERM;
    if (!is_main) {
        char *low, *top;
        if (mine) {
            low = low_of(mine);
            top = mine->top;
        } else {
            int result = os_thread_stack(&low, &top);
            if (result < 0) return result;
        }
        int64_t own = trim_own(low, top, mine ? mine->own : NULL, sp, release);
        if (own < 0 && !on_deep_stack) return own;
        if (own > 0) returned += (size_t)own;
    }
    if (returned) stack_count_returned(returned, true);
    return (int64_t)returned;
}

/* ---- a thread is asked to trim ------------------------------------------------------------------ */

static registered *registered_thread(int thread_id) {
    const uint32_t count = atomic_load(&idle.count);
    for (uint32_t i = 0; i < count; i++) {
        if (atomic_load(&idle.all[i].thread_id) == thread_id) return &idle.all[i];
    }
    return NULL;
}

/* The handler runs on the stack that it trims, or on the alternate one if a handler of the program's wants
 * that. */
static char *end_of_frames(const registered *thread, const void *context) {
    char *const here = __builtin_frame_address(0), *const sp = os_interrupted_stack_pointer(context, here);
    const stack *deep = stack_around(sp);
    const char *low = deep ? deep->low : low_of(thread);
    return here >= low && here < sp ? here : sp - RED_ZONE_BYTES;
}

static void trim_asked(registered *thread, char *sp) {
    const int release = atomic_load(&thread->release);
    size_t returned = trim_deep(&sp, release);
    int64_t own = trim_own(low_of(thread), thread->top, thread->own, sp, release);
    if (own > 0) {
        returned += (size_t)own;
        size_t high = (size_t)own + (size_t)(thread->top - sp);
        if (high > atomic_load(&thread->high_water)) atomic_store(&thread->high_water, high);
    }
    if (returned) stack_count_returned(returned, true);
    atomic_store(&thread->returned, returned);
    atomic_fetch_add(&thread->answers, 1);
}

/* Finds the thread by its id and not by a thread-local, because other threads look for it too. */
static fault_answer answer(siginfo_t *info, void *context) {
    if (info->si_code != SI_TKILL || (uint32_t)info->si_pid != os_process_id()) return FAULT_FOREIGN;
    registered *thread = registered_thread(os_thread_id());
    if (!thread || !atomic_exchange(&thread->asked, false)) return FAULT_FOREIGN;
    trim_asked(thread, end_of_frames(thread, context));
    return FAULT_MENDED;
}

/* Asks a thread again that has not answered: the kernel keeps one SIGURG for each thread, and drops one whose
 * handler would run on a closed part of a stack. */
static bool ask(registered *thread, int thread_id, int release) {
    if (!fault_chain_is_first(TRIM_SIGNAL) || !os_thread_takes_signal(thread_id, TRIM_SIGNAL)) return false;
    atomic_store(&thread->release, release);
    atomic_store(&thread->asked, true);
    return os_thread_signal(thread_id, TRIM_SIGNAL) == 0;
}

static registered *free_place(void) {
    const uint32_t count = atomic_load(&idle.count);
    for (uint32_t i = 0; i < count; i++) {
        if (atomic_load(&idle.all[i].thread_id) == 0) return &idle.all[i];
    }
    if (count == VRANGE_THREADS_MOST) return NULL;
    atomic_store(&idle.count, count + 1);
    return &idle.all[count];
}

static int register_at(char *low, char *top, stack *own) {
    segment_make(); /* the signal handler counts, and can't make the segment itself */
    const int refused = fault_chain_be_first(TRIM_SIGNAL);
    if (refused) return refused;
    registered *place = free_place();
    if (!place) return -ENOSPC;
    place->low = low;
    place->top = top;
    place->own = own;
    atomic_store(&place->only_deep, own != NULL);
    atomic_store(&place->asked, false);
    atomic_store(&place->high_water, 0);
    atomic_store(&place->thread_id, os_thread_id());
    mine = place;
    return 0;
}

static int register_locked(char *low, char *top, stack *own) {
    gate_enter();
    pthread_mutex_lock(&idle.lock);
    const int result = register_at(low, top, own);
    pthread_mutex_unlock(&idle.lock);
    gate_leave();
    return result;
}

int idle_register_own(stack *own) {
    return mine ? -EEXIST : register_locked(own->low, own->top, own);
}

int vrange_thread_register(void) {
    if (mine) atomic_store(&mine->only_deep, false);
    if (mine) return 0;
    if (os_is_main_thread()) return -EPERM;
    char *low, *top;
    int result = os_thread_stack(&low, &top);
    if (result == 0) result = sigsegv_arm_thread(); /* this also reports the end of the thread */
    return result < 0 ? result : register_locked(low, top, NULL);
}

void vrange_thread_name(const char *name) { os_thread_name(name); }

static void forget_this_thread(void) {
    if (!mine) return;
    pthread_mutex_lock(&idle.lock);
    atomic_store(&mine->thread_id, 0);
    pthread_mutex_unlock(&idle.lock);
    mine = NULL;
}

static uint32_t ask_blocked(int release, uint64_t *answers_before) {
    const uint32_t count = atomic_load(&idle.count);
    uint32_t asked = 0;
    for (uint32_t i = 0; i < count; i++) {
        registered *thread = &idle.all[i];
        const int id = atomic_load(&thread->thread_id);
        answers_before[i] = UINT64_MAX;
        if (id == 0 || thread == mine || atomic_load(&thread->only_deep)) continue;
        if (!os_thread_is_blocked(id)) continue;
        answers_before[i] = atomic_load(&thread->answers);
        if (ask(thread, id, release)) asked++;
        else answers_before[i] = UINT64_MAX;
    }
    return asked;
}

void idle_look(void) { fault_chain_be_first(TRIM_SIGNAL); }

/* The caretaker may not wait here: a caller of vrange_stacks_trim_idle holds the lock while threads answer. */
bool idle_ask_thread(int thread_id) {
    if (pthread_mutex_trylock(&idle.lock) != 0) return false;
    registered *thread = registered_thread(thread_id);
    const bool asked = thread && thread->own && ask(thread, thread_id, VRANGE_RELEASE_NOW);
    pthread_mutex_unlock(&idle.lock);
    return asked;
}

static uint64_t collect(uint64_t *answers_before, int *threads) {
    const uint32_t count = atomic_load(&idle.count);
    uint64_t returned = 0;
    for (uint32_t i = 0; i < count; i++) {
        registered *thread = &idle.all[i];
        if (answers_before[i] == UINT64_MAX) continue;
        if (atomic_load(&thread->answers) == answers_before[i]) continue;
        answers_before[i] = UINT64_MAX;
        returned += atomic_load(&thread->returned);
        ++*threads;
    }
    return returned;
}

int64_t vrange_stacks_trim_idle(int release, uint64_t wait_ns, int *threads) {
    static uint64_t answers_before[VRANGE_THREADS_MOST]; /* guarded by the lock */
    const uint64_t deadline = os_now_ns() + wait_ns;
    uint64_t returned = 0;
    *threads = 0;
    if (atomic_load(&idle.count) && !fault_chain_is_first(TRIM_SIGNAL)) {
        gate_enter();
        idle_look();
        gate_leave();
    }
    /* Not inside the gate, because a fork would have to wait for it. The child clears the lock. */
    pthread_mutex_lock(&idle.lock);
    const uint32_t asked = ask_blocked(release, answers_before);
    for (;;) {
        returned += collect(answers_before, threads);
        if ((uint32_t)*threads >= asked || os_now_ns() >= deadline) break;
        os_sleep_ns(LOOK_AGAIN_NS);
    }
    pthread_mutex_unlock(&idle.lock);
    return (int64_t)returned;
}

uint64_t vrange_stacks_trim(void) {
    int threads;
    return vrange_stacks_trim_pooled() +
           (uint64_t)vrange_stacks_trim_idle(VRANGE_RELEASE_NOW, TRIM_WAIT_NS, &threads);
}

size_t vrange_threads_read(vrange_thread_info *out, size_t capacity) {
    size_t found = 0;
    pthread_mutex_lock(&idle.lock);
    const uint32_t count = atomic_load(&idle.count);
    for (uint32_t i = 0; i < count; i++) {
        registered *thread = &idle.all[i];
        const int id = atomic_load(&thread->thread_id);
        if (id == 0 || found++ >= capacity) continue;
        char *const low = low_of(thread);
        size_t depth = (size_t)(thread->top - os_lowest_resident(low, thread->top));
        size_t high = atomic_load(&thread->high_water);
        out[found - 1] =
            (vrange_thread_info){.thread_id = id,
                                 .bytes = (size_t)(thread->top - low),
                                 .resident_bytes = os_resident_bytes(low, thread->top),
                                 .high_water_bytes = depth > high ? depth : high};
    }
    pthread_mutex_unlock(&idle.lock);
    return found;
}

void idle_after_fork(void) {
    (void)os_lock_renew(&idle.lock); /* its holder may exist only in the parent */
    const uint32_t count = atomic_load(&idle.count);
    for (uint32_t i = 0; i < count; i++) {
        if (&idle.all[i] != mine) atomic_store(&idle.all[i].thread_id, 0);
    }
    if (!mine) return;
    atomic_store(&mine->asked, false); /* a signal that is pending in the parent is not in the child */
    if (os_is_main_thread()) {
        /* A worker thread has become the child's main thread. Its stack is still an ordinary mapping, so
         * the registration stays valid under the new thread id. */
        atomic_store(&mine->thread_id, os_thread_id());
    }
}

__attribute__((constructor)) static void register_handlers(void) {
    fault_chain_register(TRIM_SIGNAL, answer, SA_RESTART, false);
    thread_end_register(forget_this_thread);
}
