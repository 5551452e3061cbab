/* The caretaker, a thread: takes a turn, sleeps for as long as the turn returns, and takes the next.
 *
 * It sleeps on a futex, so that it can be woken: by a thread that stores or allocates while it sleeps for
 * long, and by a thread that wants to fork. The processor sees no other thread of vrange then.
 *
 * On a machine with more runnable threads than processors this thread may not run for long, while the
 * threads that store and pin do run and use up what is offered. If the caretaker is two ticks late, those
 * threads take its turn. */
#define _GNU_SOURCE
#include "base/caretaker.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/gate.h"
#include "os/os.h"
#include "os/os_apart.h"
#include "os/os_thread.h"
#include "vrange.h"

#define LATE_TICKS 2
#define LONG_TICKS 4 /* in a longer sleep than this the thread is called */
#define END_LOOK_NS 20000000u /* once the main thread has ended */

static struct {
    pthread_mutex_t lock; /* for starting, stopping and pausing */
    pthread_t thread;
    _Atomic int thread_id;
    caretaker_turn turn;
    bool paused, goes_on; /* whether the thread is started after the pause */
    _Atomic uint32_t process; /* the thread's */
    _Atomic bool running, stop, absent;
    _Atomic bool sleeps_long;
    _Atomic uint32_t calls; /* the futex: each call changes it */
    _Atomic uint64_t tick_ns;
    _Atomic uint64_t late_ns; /* the thread is late from this time on */
    _Atomic uint64_t ticks, helped, busy_ns;
} caretaker = {.lock = PTHREAD_MUTEX_INITIALIZER, .tick_ns = VRANGE_TICK_NS};

void caretaker_register(caretaker_turn turn) {
    caretaker.turn = turn;
    atomic_store(&caretaker.process, os_process_id());
    os_tell_end_of_main_thread(caretaker_call);
}

uint64_t caretaker_tick_ns(void) { return atomic_load(&caretaker.tick_ns); }

static void expect_next_turn(uint64_t sleep_ns) {
    atomic_store(&caretaker.late_ns, os_now_ns() + sleep_ns + LATE_TICKS * caretaker_tick_ns());
}

void caretaker_call(void) {
    atomic_fetch_add(&caretaker.calls, 1);
    os_wake(&caretaker.calls);
}

/* Returns the time that the thread slept, or 0 if it was called since there were so many calls. */
static uint64_t sleep_for(uint64_t sleep_ns, uint32_t calls) {
    const uint64_t start = os_now_ns();
    expect_next_turn(sleep_ns);
    atomic_store(&caretaker.sleeps_long, sleep_ns > LONG_TICKS * caretaker_tick_ns());
    while (!atomic_load(&caretaker.stop) && atomic_load(&caretaker.calls) == calls) {
        const uint64_t slept = os_now_ns() - start;
        if (slept >= sleep_ns) break;
        os_wait(&caretaker.calls, calls, sleep_ns - slept);
    }
    atomic_store(&caretaker.sleeps_long, false);
    return atomic_load(&caretaker.calls) == calls ? sleep_ns : 0;
}

/* The C library ends the process when its last thread ends, and counts this one, too. */
static bool program_has_ended(void) {
    if (!os_main_thread_has_ended()) return false;
    const int threads = os_threads();
    if (threads < 0) atomic_store(&caretaker.absent, true); /* it can't know when it is alone */
    return threads <= 2; /* the main thread counts until the process ends */
}

/* Detaches the thread, unless another one has just stopped it and joins it. */
static void end_alone(void) {
    gate_enter();
    pthread_mutex_lock(&caretaker.lock);
    if (atomic_exchange(&caretaker.running, false)) pthread_detach(pthread_self());
    pthread_mutex_unlock(&caretaker.lock);
    gate_leave();
}

static uint64_t sleep_at_most(uint64_t sleep_ns) {
    return os_main_thread_has_ended() && sleep_ns > END_LOOK_NS ? END_LOOK_NS : sleep_ns;
}

static void *run(void *unused) {
    (void)unused;
    atomic_store(&caretaker.thread_id, os_thread_id());
    os_thread_name("vrange-reserve");
    os_read_apart();
    os_thread_go_first(); /* what it frees late may be too late */
    uint64_t slept_ns = 0;
    while (!atomic_load(&caretaker.stop)) {
        if (program_has_ended()) {
            end_alone();
            break;
        }
        const uint64_t start = os_thread_cpu_ns();
        const uint32_t calls = atomic_load(&caretaker.calls);
        gate_enter();
        const uint64_t sleep_ns = caretaker.turn.take(slept_ns);
        gate_leave();
        atomic_fetch_add(&caretaker.ticks, 1);
        atomic_fetch_add(&caretaker.busy_ns, os_thread_cpu_ns() - start);
        slept_ns = sleep_for(sleep_at_most(sleep_ns), calls);
    }
    return NULL;
}

void caretaker_rouse(void) {
    if (!atomic_load_explicit(&caretaker.sleeps_long, memory_order_relaxed)) return;
    if (!atomic_exchange(&caretaker.sleeps_long, false)) return;
    caretaker_call();
    expect_next_turn(0);
}

void caretaker_help(size_t bytes) {
    caretaker_rouse();
    if (caretaker.turn.before_use) caretaker.turn.before_use(bytes);
    if (os_now_ns() < atomic_load(&caretaker.late_ns) || atomic_load(&caretaker.absent)) return;
    if (!caretaker.turn.help()) return;
    atomic_fetch_add(&caretaker.helped, 1);
    expect_next_turn(0);
}

bool caretaker_is_of_this_process(void) { return atomic_load(&caretaker.process) == os_process_id(); }

/* Call under the lock, and inside the gate or before another thread can fork. A thread that the child of vfork
 * starts would end with it: the parent starts one. */
static int start_thread(void) {
    if (!caretaker_is_of_this_process()) return -EAGAIN;
    atomic_store(&caretaker.stop, false);
    const int error = os_thread_start(&caretaker.thread, run, NULL);
    atomic_store(&caretaker.running, error == 0);
    atomic_store(&caretaker.absent, error != 0);
    return -error;
}

int caretaker_start(uint64_t tick_ns) {
    int result = 0;
    gate_enter();
    pthread_mutex_lock(&caretaker.lock);
    atomic_store(&caretaker.tick_ns, tick_ns);
    if (caretaker.paused) {
        caretaker.goes_on = true;
        atomic_store(&caretaker.absent, false);
    } else if (!atomic_load(&caretaker.running)) {
        result = start_thread();
    } else {
        caretaker_call(); /* it may be sleeping for an earlier, longer tick */
    }
    expect_next_turn(tick_ns);
    pthread_mutex_unlock(&caretaker.lock);
    gate_leave();
    return result;
}

/* Tells the thread to end. Returns false if there is none. Call under the lock, and join outside the gate. */
static bool dismiss_thread(pthread_t *thread) {
    *thread = caretaker.thread;
    atomic_store(&caretaker.stop, true);
    if (!atomic_exchange(&caretaker.running, false)) return false;
    caretaker_call();
    return true;
}

void caretaker_stop(void) {
    pthread_t thread;
    gate_enter();
    pthread_mutex_lock(&caretaker.lock);
    caretaker.goes_on = false;
    atomic_store(&caretaker.absent, true);
    const bool joins = dismiss_thread(&thread);
    pthread_mutex_unlock(&caretaker.lock);
    gate_leave();
    if (joins) pthread_join(thread, NULL);
}

void caretaker_pause(void) {
    pthread_t thread;
    gate_enter();
    pthread_mutex_lock(&caretaker.lock);
    const bool joins = dismiss_thread(&thread);
    caretaker.goes_on = joins || (caretaker.paused && caretaker.goes_on);
    caretaker.paused = true;
    pthread_mutex_unlock(&caretaker.lock);
    gate_leave();
    if (!joins) return;
    pthread_join(thread, NULL);
    os_thread_wait_gone(atomic_load(&caretaker.thread_id));
}

void caretaker_resume(void) {
    gate_enter();
    pthread_mutex_lock(&caretaker.lock);
    if (caretaker.paused && caretaker.goes_on) start_thread();
    caretaker.paused = caretaker.goes_on = false;
    pthread_mutex_unlock(&caretaker.lock);
    gate_leave();
}

void caretaker_resume_later(void) {
    gate_enter();
    pthread_mutex_lock(&caretaker.lock);
    caretaker.paused = caretaker.goes_on = false;
    pthread_mutex_unlock(&caretaker.lock);
    gate_leave();
}

bool caretaker_is_running(void) {
    return atomic_load_explicit(&caretaker.running, memory_order_relaxed);
}

bool caretaker_is_absent(void) {
    return atomic_load_explicit(&caretaker.absent, memory_order_relaxed);
}

void caretaker_ensure(void) {
    if (atomic_load(&caretaker.running) || atomic_load(&caretaker.absent)) return;
    pthread_mutex_lock(&caretaker.lock);
    if (caretaker.paused) caretaker.goes_on = true;
    else if (!atomic_load(&caretaker.running) && !atomic_load(&caretaker.absent)) start_thread();
    pthread_mutex_unlock(&caretaker.lock);
}

void caretaker_forget_thread(void) {
    (void)os_lock_renew(&caretaker.lock);
    caretaker.paused = caretaker.goes_on = false;
    atomic_store(&caretaker.process, os_process_id());
    atomic_store(&caretaker.running, false);
    atomic_store(&caretaker.sleeps_long, false);
}

void caretaker_read(caretaker_info *out) {
    *out = (caretaker_info){.running = atomic_load(&caretaker.running),
                            .ticks = atomic_load(&caretaker.ticks),
                            .helped = atomic_load(&caretaker.helped),
                            .busy_ns = atomic_load(&caretaker.busy_ns)};
}
