/* The pressure watcher: a thread of its own measures how much of the usable memory is used.
 *
 * The thread reads usage and limit of every cgroup around the process (limits.c), each of which may be the
 * one that ends the process, and computes a level from the fullest. If no cgroup has a limit, the machine
 * counts.
 *
 * Not all usage counts. The kernel takes clean file pages and offered pages at no harm to any program
 * (both are on its inactive file list), and idle bytes are offered as it takes those. So the three are
 * left out; otherwise a cache that fills spare memory would be pressure for ever. Stalls (PSI) confirm
 * pressure: with stalls, elevated becomes critical.
 *
 * No Python runs here. A thread that wants to know sleeps in vrange_pressure_wait until the level changes.
 * The reserve has a thread of its own, which this one must not delay. */
#define _GNU_SOURCE
#include "pressure/pressure.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/gate.h"
#include "os/os.h"
#include "os/os_kept_descriptors.h"
#include "os/os_thread.h"
#include "counters/stats.h"
#include "pressure/limits.h"
#include "vrange.h"

#define NOWHERE INT_MIN
#define MACHINE_STALLS "/proc/pressure/memory"
#define STALL_WINDOW_NS 1000000000ull
#define STALL_LEAST_NS 200000000ull /* in less time than this a share means nothing */
#define FAR_INTERVALS 2
#define QUIET_INTERVALS 5
#define QUIET_AFTER_NS 1000000000ull
#define INTERVALS_A_LIMIT 10 /* a second, at the default interval; a limit seldom changes */
#define LOOKS_AN_INACTIVE 3
#define LOOKS_A_STALL 3 /* PSI covers the last second */
#define MOVED_SHARE 256 /* of the limit: a change of this size counts as a move */
#define MICROSECOND 1000u

typedef struct {
    uint64_t usage_then; /* when `inactive_file` was last read */
    unsigned looks;      /* since then */
} place;

static struct {
    pthread_mutex_t lock; /* guards all below; held during a look, so that no file is closed under it */
    pthread_cond_t changed, stopped;
    pthread_t thread;
    bool running, stop, anything_read;
    vrange_pressure_settings settings;

    limits limits;
    place places[VRANGE_CGROUPS];
    os_kept machine_stalls;

    uint64_t stalled_ns, stalled_us; /* where the window began */
    int stalls_of;
    unsigned stall_looks;
    double alarmed_at; /* the share at the last change or growth; lowered as usage falls */
    uint64_t alarmed_ns;
    uint64_t quiet_at, quiet_ns; /* usage when it last changed, and when that was */

    uint64_t turn; /* advances whenever there is news for a waiter */
    vrange_pressure_info info;
} watch = {.lock = PTHREAD_MUTEX_INITIALIZER, .stalls_of = NOWHERE};

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

/* Reading a removed cgroup fails so. A waiter has to find out where the process is now. */
static void note_failure(int error) {
    watch.info.read_errors++;
    if (error != -ENODEV || watch.info.moved) return;
    watch.info.moved = 1;
    call_waiters();
}

typedef struct {
    uint64_t usage, limit, used;
} figures;

static uint64_t less(uint64_t from, uint64_t by) { return from > by ? from - by : 0; }

/* The part of a cgroup's usage that can be taken at once: clean file pages, and offered pages. Reading the
 * file that reports it costs as much as all the others: it is read again when usage has changed. */
static uint64_t inactive_bytes(limits_cgroup *c, place *p, uint64_t now) {
    const uint64_t moved = c->used > p->usage_then ? c->used - p->usage_then : p->usage_then - c->used;
    if (p->looks++ % LOOKS_AN_INACTIVE == 0 || moved >= c->limit / MOVED_SHARE) {
        p->looks = 1;
        p->usage_then = c->used;
        limits_read_content(&watch.limits, c, now, 0);
    }
    return c->content_ns ? c->content.inactive_file : atomic_load(&stats_offered_bytes);
}

/* False if the cgroup can't be read, or has no limit below the machine's memory. */
static bool look_at(limits_cgroup *c, place *p, figures *out) {
    const uint64_t now = os_now_ns();
    int result = limits_read_limit(&watch.limits, c, now, INTERVALS_A_LIMIT * watch.settings.interval_ns);
    if (result == 0 && (c->limit == 0 || c->limit >= watch.limits.machine_bytes)) return false;
    if (result == 0) result = limits_read_usage(&watch.limits, c, now);
    if (result < 0) {
        note_failure(result);
        return false;
    }
    *out = (figures){.usage = c->used, .limit = c->limit, .used = c->used};
    const double floor = watch.settings.elevated - watch.settings.hysteresis;
    if ((double)out->usage < floor * (double)out->limit) return true; /* low even if all of it counts */
    out->used = less(out->usage, inactive_bytes(c, p, now) + atomic_load(&stats_idle_bytes));
    return true;
}

/* The limit that the program has set. What is volatile can be discarded at once. */
static bool look_at_set(figures *out) {
    if (!limits_read_set(&out->limit, &out->usage)) return false;
    out->used = less(out->usage, atomic_load(&stats_idle_bytes) + atomic_load(&stats_offered_bytes));
    return true;
}

static double share_of(const figures *f) { return (double)f->used / (double)f->limit; }

/* Finds the fullest of all places; false if none could be read. */
static bool look(figures *worst, int *which) {
    *which = NOWHERE;
    for (size_t i = 0; i < watch.limits.count; i++) {
        figures here;
        if (!look_at(&watch.limits.cgroups[i], &watch.places[i], &here)) continue;
        if (*which == NOWHERE || share_of(&here) > share_of(worst)) {
            *worst = here;
            *which = (int)i;
        }
    }
    figures own;
    if (look_at_set(&own) && (*which == NOWHERE || share_of(&own) > share_of(worst))) {
        *worst = own;
        *which = VRANGE_PRESSURE_SET;
    }
    if (*which != NOWHERE) return true;
    if (limits_read_machine(&watch.limits, os_now_ns(), 0) < 0) return false;
    *worst = (figures){.usage = watch.limits.machine_used,
                       .limit = watch.limits.machine_bytes,
                       .used = less(watch.limits.machine_used, atomic_load(&stats_idle_bytes))};
    *which = VRANGE_PRESSURE_MACHINE;
    return true;
}

/* The share of about the last second in which some task waited for memory; 0 while it is unknown. */
static double stalled_share(int which) {
    os_kept *own = which >= 0 ? &watch.limits.cgroups[which].stalls : NULL;
    os_kept *file = own && os_is_kept(own) ? own : &watch.machine_stalls;
    char text[256];
    if (watch.stalls_of == which && watch.stall_looks++ % LOOKS_A_STALL != 0) return watch.info.stalled;
    if (os_kept_text(file, text, sizeof text) < 0) return 0;
    const char *total = strstr(text, "total=");
    if (strncmp(text, "some ", 5) != 0 || !total) return 0;
    const uint64_t now = os_now_ns(), us = strtoull(total + 6, NULL, 10);
    const uint64_t passed = now - watch.stalled_ns;
    if (watch.stalls_of != which || us < watch.stalled_us || passed > 3 * STALL_WINDOW_NS) {
        watch.stalls_of = which;
        watch.stall_looks = 1;
        watch.stalled_ns = now;
        watch.stalled_us = us;
        return 0;
    }
    if (passed < STALL_LEAST_NS) return watch.info.stalled;
    const double share = (double)((us - watch.stalled_us) * MICROSECOND) / (double)passed;
    if (passed > STALL_WINDOW_NS) {
        watch.stalled_ns = now;
        watch.stalled_us = us;
    }
    return share;
}

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

static void look_for_move(void) {
    if (watch.info.moved || !limits_have_moved(&watch.limits, os_now_ns())) return;
    watch.info.moved = 1;
    call_waiters();
}

static void tick(void) {
    figures worst;
    int which;
    watch.info.polls++;
    look_for_move();
    if (!look(&worst, &which)) return; /* the level stays as it was */
    const double share = share_of(&worst);
    const double floor = watch.settings.elevated - watch.settings.hysteresis;
    const double stalled = share >= floor ? stalled_share(which) : 0;
    const int level = next_level(watch.info.level, share, stalled);
    watch.info.usage_bytes = worst.usage;
    watch.info.used_bytes = worst.used;
    watch.info.limit_bytes = worst.limit;
    watch.info.place = which;
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
    return now - watch.quiet_ns < QUIET_AFTER_NS ? FAR_INTERVALS : QUIET_INTERVALS;
}

static void *run(void *unused) {
    (void)unused;
    pthread_mutex_lock(&watch.lock);
    while (!watch.stop) {
        tick();
        watch.info.busy_ns = os_thread_cpu_ns();
        const uint64_t until = os_now_ns() + watch.settings.interval_ns * intervals();
        while (!watch.stop && os_now_ns() < until) wait_for(&watch.stopped, until);
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
    const limits before = watch.limits;
    watch.limits = *fresh;
    memset(watch.places, 0, sizeof watch.places);
    watch.stalls_of = NOWHERE;
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
        if (os_keep(MACHINE_STALLS, &watch.machine_stalls) == -ENOENT) os_forget(&watch.machine_stalls);
        watch.stop = watch.anything_read = false;
        watch.alarmed_at = 0;
        watch.info = (vrange_pressure_info){.level = VRANGE_PRESSURE_NORMAL,
                                            .place = VRANGE_PRESSURE_MACHINE,
                                            .changed_ns = os_now_ns()};
        /* The caller makes the first look, so that there is a level when this returns. */
        tick();
        if (!watch.anything_read) error = ENODATA;
    }
    if (!error) error = os_thread_start(&watch.thread, run, "vrange-pressure");
    if (!error) {
        watch.running = true;
        if (watch.info.changes == 0) stats_pressure_level(watch.info.level);
    } else if (error != EBUSY) {
        os_forget(&watch.machine_stalls);
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
    limits_forget(&watch.limits);
    os_forget(&watch.machine_stalls);
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

void pressure_after_fork(void) {
    /* The thread that held the lock does not exist here. The gate kept the table of files consistent. */
    watch.lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    make_conditions();
    if (!watch.running) return;
    limits_forget(&watch.limits);
    os_forget(&watch.machine_stalls);
    watch.running = false;
    watch.stop = true;
    watch.info.level = VRANGE_PRESSURE_NONE;
}
