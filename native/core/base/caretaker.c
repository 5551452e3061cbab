/* The caretaker's thread: sleeps, takes a turn, and sleeps for as long as the turn returns.
 *
 * On a machine with more runnable threads than processors this thread may not run for long, while the
 * threads that store and pin do run and use up what is offered. If the caretaker is two ticks late, those
 * threads take its turn. */
#define _GNU_SOURCE
#include "base/caretaker.h"

#include <pthread.h>
#include <stdatomic.h>

#include "base/gate.h"
#include "os/os.h"
#include "os/os_thread.h"

#define DEFAULT_TICK_NS 5000000u
#define LATE_TICKS 2

static struct {
    pthread_mutex_t lock; /* for starting and stopping */
    pthread_t thread;
    caretaker_turn turn;
    _Atomic bool running, stop, absent;
    _Atomic uint64_t tick_ns;
    _Atomic uint64_t late_ns; /* the thread is late from this time on */
    _Atomic uint64_t ticks, helped, busy_ns;
} caretaker = {.lock = PTHREAD_MUTEX_INITIALIZER, .tick_ns = DEFAULT_TICK_NS};

void caretaker_register(caretaker_turn turn) { caretaker.turn = turn; }

uint64_t caretaker_tick_ns(void) { return atomic_load(&caretaker.tick_ns); }

static void expect_next_turn(uint64_t sleep_ns) {
    atomic_store(&caretaker.late_ns, os_now_ns() + sleep_ns + LATE_TICKS * caretaker_tick_ns());
}

static void *run(void *unused) {
    (void)unused;
    uint64_t sleep_ns = caretaker_tick_ns();
    while (!atomic_load(&caretaker.stop)) {
        expect_next_turn(sleep_ns);
        os_sleep_ns(sleep_ns);
        const uint64_t start = os_thread_cpu_ns();
        gate_enter();
        sleep_ns = caretaker.turn.take(sleep_ns);
        gate_leave();
        atomic_fetch_add(&caretaker.ticks, 1);
        atomic_fetch_add(&caretaker.busy_ns, os_thread_cpu_ns() - start);
    }
    return NULL;
}

void caretaker_help(void) {
    if (os_now_ns() < atomic_load(&caretaker.late_ns) || !atomic_load(&caretaker.running)) return;
    if (!caretaker.turn.help()) return;
    atomic_fetch_add(&caretaker.helped, 1);
    expect_next_turn(0);
}

/* Call under the lock, and inside the gate or before another thread can fork. */
static int start_thread(void) {
    atomic_store(&caretaker.stop, false);
    const int error = os_thread_start(&caretaker.thread, run, "vrange-reserve");
    atomic_store(&caretaker.running, error == 0);
    atomic_store(&caretaker.absent, error != 0);
    return -error;
}

int caretaker_start(uint64_t tick_ns) {
    gate_enter();
    pthread_mutex_lock(&caretaker.lock);
    atomic_store(&caretaker.tick_ns, tick_ns);
    const int result = atomic_load(&caretaker.running) ? 0 : start_thread();
    expect_next_turn(tick_ns); /* the thread may still be sleeping for an earlier, longer tick */
    pthread_mutex_unlock(&caretaker.lock);
    gate_leave();
    return result;
}

void caretaker_stop(void) {
    gate_enter();
    pthread_mutex_lock(&caretaker.lock);
    const bool running = atomic_load(&caretaker.running);
    atomic_store(&caretaker.stop, true);
    atomic_store(&caretaker.running, false);
    atomic_store(&caretaker.absent, true);
    const pthread_t thread = caretaker.thread;
    pthread_mutex_unlock(&caretaker.lock);
    gate_leave();
    if (running) pthread_join(thread, NULL);
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
    if (!atomic_load(&caretaker.running) && !atomic_load(&caretaker.absent)) start_thread();
    pthread_mutex_unlock(&caretaker.lock);
}

void caretaker_forget_thread(void) { atomic_store(&caretaker.running, false); }

void caretaker_read(caretaker_info *out) {
    *out = (caretaker_info){.running = atomic_load(&caretaker.running),
                            .ticks = atomic_load(&caretaker.ticks),
                            .helped = atomic_load(&caretaker.helped),
                            .busy_ns = atomic_load(&caretaker.busy_ns)};
}
