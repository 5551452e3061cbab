/* The pressure watcher: a thread of its own measures how much of the usable memory is used.
 *
 * The thread computes a level from the place that is nearest to its limit (nearest_limit.c). Stalls confirm
 * pressure: with stalls (stalls.c), elevated becomes critical.
 *
 * No Python runs here. A thread that wants to know sleeps in vrange_pressure_wait until the level changes.
 * The reserve has a thread of its own, which this one must not delay. */
#define _GNU_SOURCE
#include "pressure/watcher.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/caretaker.h"
#include "base/gate.h"
#include "os/os.h"
#include "os/os_apart.h"
#include "os/os_thread.h"
#include "counters/stats.h"
#include "pressure/memory_limits.h"
#include "pressure/nearest_limit.h"
#include "pressure/stalls.h"
#include "vrange.h"

#define FAR_INTERVALS 2
#define QUIET_INTERVALS 5
#define REST_INTERVALS 50 /* while the caretaker looks at the limits as well */
#define QUIET_AFTER_NS 1000000000ull
#define INTERVALS_A_LIMIT 10 /* a second, at the default interval; a limit seldom changes */
#define MOVED_SHARE 256      /* of the limit: usage that changes by less is quiet */

static struct {
    pthread_mutex_t lock; /* guards all below; held during a look, so that no file is closed under it */
    pthread_cond_t changed, stopped;
    pthread_t thread;
    bool running, stop, anything_read;
    vrange_pressure_settings settings;

    watched_limits watched;
    stalls stalls;

    double alarmed_at; /* the share at the last change or growth; lowered as usage falls */
    uint64_t alarmed_ns;
    uint64_t quiet_at, quiet_ns; /* usage when it last changed, and when that was */
    _Atomic bool rests;
    bool is_roused;

    uint64_t turn; /* advances whenever there is news for a waiter */
    vrange_pressure_info info;
} watch = {.lock = PTHREAD_MUTEX_INITIALIZER, .stalls.of = STALLS_OF_NOTHING};

/* Uses the monotonic clock, as the wall clock may be set. */
__attribute__((constructor)) static void make_conditions(void) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&watch.changed, &attributes);
    pthread_cond_init(&watch.stopped, &attributes);
    pthread_condattr_destroy(&attributes);
}

/* Call under the lock. */
static void call_waiters(void) {
    watch.turn++;
    pthread_cond_broadcast(&watch.changed);
}

/* ---- one look --------------------------------------------------------------------------------- */

static int next_level(int level, double share, double stalled) {
    const vrange_pressure_settings *s = &watch.settings;
    const bool was_critical = level == VRANGE_PRESSURE_CRITICAL;
    const bool was_elevated = level >= VRANGE_PRESSURE_ELEVATED;
    if (share >= s->critical || (was_critical && share > s->critical - s->hysteresis))
        return VRANGE_PRESSURE_CRITICAL;
    if (share < s->elevated && !(was_elevated && share > s->elevated - s->hysteresis))
        return VRANGE_PRESSURE_NORMAL;
    /* The level stays critical while at least half of the stalls that made it so remain. */
    const bool confirmed = stalled >= (was_critical ? s->stalled / 2 : s->stalled);
    return confirmed ? VRANGE_PRESSURE_CRITICAL : VRANGE_PRESSURE_ELEVATED;
}

/* The level stays, and usage goes on rising: what was trimmed then may be worth trimming again. */
static bool has_grown(double share) {
    if (share < watch.alarmed_at) watch.alarmed_at = share;
    return watch.info.level >= VRANGE_PRESSURE_ELEVATED &&
           share >= watch.alarmed_at + watch.settings.hysteresis / 2 &&
           os_now_ns() - watch.alarmed_ns >= watch.settings.again_ns;
}

/* A waiter has to find out in which cgroups the process is now. */
static void note_move(void) {
    if (watch.info.moved) return;
    watch.info.moved = 1;
    call_waiters();
}

/* The share at and above which what is left out of the usage, and stalls, make a difference. */
static double floor_share(void) { return watch.settings.elevated - watch.settings.hysteresis; }

static bool look(fullness *fullest) {
    read_failures failures;
    const uint64_t limit_age = INTERVALS_A_LIMIT * watch.settings.interval_ns;
    const bool found = nearest_limit(&watch.watched, limit_age, floor_share(), fullest, &failures);
    watch.info.read_errors += failures.failed;
    if (failures.was_removed) note_move();
    return found;
}

static void tick(void) {
    fullness fullest;
    watch.info.polls++;
    if (!watch.info.moved && limits_have_moved(&watch.watched.limits, os_now_ns())) note_move();
    if (!look(&fullest)) return; /* the level stays as it was */
    const double share = fullness_share(&fullest);
    double stalled = 0;
    if (share >= floor_share())
        stalled = stalls_share(&watch.stalls, &watch.watched.limits, fullest.place, watch.info.stalled);
    const int level = next_level(watch.info.level, share, stalled);
    watch.info.usage_bytes = fullest.usage;
    watch.info.used_bytes = fullest.used;
    watch.info.limit_bytes = fullest.limit;
    watch.info.place = fullest.place;
    watch.info.stalled = stalled;
    watch.anything_read = true;
    if (level == watch.info.level) {
        if (!has_grown(share)) return;
        watch.info.growths++;
    } else {
        watch.info.level = level;
        watch.info.changes++;
        watch.info.changed_ns = os_now_ns();
        stats_pressure_level(level);
    }
    watch.alarmed_at = share;
    watch.alarmed_ns = os_now_ns();
    call_waiters();
}

/* ---- the thread ------------------------------------------------------------------------------- */

static void wait_for(pthread_cond_t *condition, uint64_t until_ns) {
    struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000u),
                             .tv_nsec = (long)(until_ns % 1000000000u)};
    pthread_cond_timedwait(condition, &watch.lock, &until);
}

/* Usage is less than half of the elevated level: the next look, which reads one file a cgroup, can wait. */
static bool is_far(void) {
    return 2 * (double)watch.info.used_bytes < watch.settings.elevated * (double)watch.info.limit_bytes;
}

/* How many intervals to wait until the next look. Usage that has not changed for a second will not soon. */
static uint64_t intervals(void) {
    const uint64_t now = os_now_ns(), used = watch.info.used_bytes;
    const uint64_t moved = used > watch.quiet_at ? used - watch.quiet_at : watch.quiet_at - used;
    if (moved > watch.info.limit_bytes / MOVED_SHARE) {
        watch.quiet_at = used;
        watch.quiet_ns = now;
    }
    if (!is_far()) return 1;
    if (now - watch.quiet_ns < QUIET_AFTER_NS) return FAR_INTERVALS;
    /* The caretaker looks at the limits and at the machine once a second or more often, and rouses. */
    return caretaker_is_running() ? REST_INTERVALS : QUIET_INTERVALS;
}

/* A rest ends early if the caretaker finds that something changes. */
static void sleep_for(uint64_t wanted) {
    const uint64_t start = os_now_ns();
    watch.is_roused = false;
    atomic_store(&watch.rests, wanted > QUIET_INTERVALS);
    while (!watch.stop) {
        if (watch.is_roused && wanted > QUIET_INTERVALS) wanted = QUIET_INTERVALS;
        const uint64_t until = start + watch.settings.interval_ns * wanted;
        if (os_now_ns() >= until) break;
        wait_for(&watch.stopped, until);
    }
    atomic_store(&watch.rests, false);
}

static void rouse(bool if_of_machine) {
    if (!atomic_load_explicit(&watch.rests, memory_order_relaxed)) return;
    if (pthread_mutex_trylock(&watch.lock) != 0) return; /* the caretaker must not wait: it rouses again */
    if (!if_of_machine || watch.info.place == VRANGE_PRESSURE_MACHINE) {
        atomic_store(&watch.rests, false);
        watch.is_roused = true;
        pthread_cond_broadcast(&watch.stopped);
    }
    pthread_mutex_unlock(&watch.lock);
}

void watcher_rouse(void) { rouse(false); }
void watcher_rouse_of_machine(void) { rouse(true); }

static void *run(void *unused) {
    (void)unused;
    os_thread_name("vrange-pressure");
    os_read_apart();
    pthread_mutex_lock(&watch.lock);
    while (!watch.stop) {
        tick();
        watch.info.busy_ns = os_thread_cpu_ns();
        sleep_for(intervals());
    }
    pthread_mutex_unlock(&watch.lock);
    return NULL;
}

int vrange_pressure_find(const char *proc_self, vrange_cgroups *found) {
    limits *fresh = calloc(1, sizeof *fresh);
    if (!fresh) return -ENOMEM;
    gate_enter();
    limits_find(fresh, proc_self, found);
    pthread_mutex_lock(&watch.lock);
    const limits before = watch.watched.limits;
    watch.watched.limits = *fresh;
    memset(watch.watched.looked, 0, sizeof watch.watched.looked);
    watch.stalls.of = STALLS_OF_NOTHING;
    watch.info.moved = 0;
    watch.info.place = VRANGE_PRESSURE_MACHINE;
    pthread_mutex_unlock(&watch.lock);
    *fresh = before;
    limits_forget(fresh);
    gate_leave();
    free(fresh);
    return 0;
}

int vrange_pressure_start(const vrange_pressure_settings *settings) {
    gate_enter();
    pthread_mutex_lock(&watch.lock);
    int error = watch.running ? EBUSY : 0;
    if (!error) {
        watch.settings = *settings;
        stalls_open(&watch.stalls);
        watch.stop = watch.anything_read = false;
        watch.alarmed_at = 0;
        watch.info = (vrange_pressure_info){.level = VRANGE_PRESSURE_NORMAL,
                                            .place = VRANGE_PRESSURE_MACHINE,
                                            .changed_ns = os_now_ns()};
        /* The caller makes the first look, so that there is a level when this returns. */
        tick();
        if (!watch.anything_read) error = ENODATA;
    }
    if (!error) error = os_thread_start(&watch.thread, run, NULL);
    if (!error) {
        watch.running = true;
        if (watch.info.changes == 0) stats_pressure_level(watch.info.level);
    } else if (error != EBUSY) {
        stalls_close(&watch.stalls);
        watch.info.level = VRANGE_PRESSURE_NONE;
    }
    pthread_mutex_unlock(&watch.lock);
    gate_leave();
    return -error;
}

void vrange_pressure_stop(void) {
    gate_enter();
    pthread_mutex_lock(&watch.lock);
    const bool running = watch.running;
    pthread_t thread = watch.thread;
    watch.running = false;
    watch.stop = true;
    pthread_cond_broadcast(&watch.stopped);
    pthread_mutex_unlock(&watch.lock);
    gate_leave();
    if (running) pthread_join(thread, NULL);
    gate_enter();
    pthread_mutex_lock(&watch.lock);
    limits_forget(&watch.watched.limits);
    stalls_close(&watch.stalls);
    watch.info.level = VRANGE_PRESSURE_NONE;
    if (running) stats_pressure_level(VRANGE_PRESSURE_NONE);
    call_waiters();
    pthread_mutex_unlock(&watch.lock);
    gate_leave();
}

/* ---- for waiters ------------------------------------------------------------------------------ */

uint64_t vrange_pressure_wait(uint64_t seen, uint64_t timeout_ns) {
    const uint64_t now = os_now_ns();
    const uint64_t until = timeout_ns > INT64_MAX - now ? INT64_MAX : now + timeout_ns;
    pthread_mutex_lock(&watch.lock);
    while (watch.turn == seen && watch.running && os_now_ns() < until) wait_for(&watch.changed, until);
    const uint64_t turn = watch.turn;
    pthread_mutex_unlock(&watch.lock);
    return turn;
}

void vrange_pressure_poke(void) {
    pthread_mutex_lock(&watch.lock);
    call_waiters();
    pthread_mutex_unlock(&watch.lock);
}

void vrange_pressure_read(vrange_pressure_info *out) {
    pthread_mutex_lock(&watch.lock);
    *out = watch.info;
    out->running = watch.running;
    out->turn = watch.turn;
    pthread_mutex_unlock(&watch.lock);
}

void vrange_pressure_acted(int action, int outcome, uint64_t bytes) {
    if (action < 0 || action >= VRANGE_PRESSURE_ACTIONS) return;
    if (outcome < 0 || outcome >= VRANGE_PRESSURE_OUTCOMES) return;
    stats_pressure_acted(action, outcome, bytes);
}

void watcher_after_fork(void) {
    /* The thread that held the lock does not exist here. The gate kept the table of files consistent. */
    watch.lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    make_conditions();
    if (!watch.running) return;
    limits_forget(&watch.watched.limits);
    stalls_close(&watch.stalls);
    watch.running = false;
    watch.stop = true;
    watch.info.level = VRANGE_PRESSURE_NONE;
}
