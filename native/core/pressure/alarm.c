/* The kernel wakes the caretaker: a thread that waits for what the kernel reports about the process's cgroups.
 *
 * cgroup v1 reports when usage crosses a threshold, and when it reclaims memory; only the owner of a cgroup
 * may ask for it. v2 reports when usage meets the limit, that is, when it begins to reclaim. inotify reports a
 * changed limit on both. If none of these works, the caretaker looks often.
 *
 * After a report the thread waits until the caretaker relies on it again: while files are read in a full
 * cgroup, the kernel reports thousands of times a second. */
#define _GNU_SOURCE
#include "pressure/alarm.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/amounts.h"
#include "base/caretaker.h"
#include "os/os.h"
#include "os/os_thread.h"
#include "os/os_watches.h"
#include "pressure/memory_limits.h"

#define FOR_EVER_NS 3600000000000ull
#define NO_THRESHOLD UINT64_MAX

enum {
    WATCHING,
    REPORTED,
    ENDING,
}; /* states */

typedef struct {
    char *directory, *usage; /* the name of a file in it */
    char *limits[VRANGE_CGROUP_LIMITS];
    uint64_t threshold; /* of usage; NO_THRESHOLD without a limit */
} place;

/* Only the caretaker, and a thread that has ended it, change this; the alarm's thread reads it. */
static struct {
    pthread_t thread;
    bool running;
    _Atomic int thread_id;
    _Atomic uint32_t state;
    _Atomic int kind; /* what the kernel reports, once it has been asked */
    place places[VRANGE_CGROUPS];
    size_t count;
} alarms;

/* ---- the thread ------------------------------------------------------------------------------- */

static alarm_kind watch_place(os_watches *w, const place *p) {
    char threshold[32];
    for (size_t i = 0; i < VRANGE_CGROUP_LIMITS; i++)
        if (p->limits[i] && os_watch_written(w, p->limits[i]) < 0) return ALARM_NONE;
    if (p->threshold == NO_THRESHOLD) return ALARM_EARLY;
    snprintf(threshold, sizeof threshold, "%llu", (unsigned long long)p->threshold);
    if (os_watch_v1(w, p->directory, p->usage, threshold) == 0 &&
        os_watch_v1(w, p->directory, "memory.pressure_level", "low") == 0)
        return ALARM_EARLY;
    return os_watch_notified(w, p->directory, "memory.events") == 0 ? ALARM_LATE : ALARM_NONE;
}

static alarm_kind watch_all(os_watches *w) {
    alarm_kind kind = ALARM_EARLY;
    if (os_watches_begin(w) < 0) return ALARM_NONE;
    for (size_t i = 0; i < alarms.count; i++) {
        const alarm_kind here = watch_place(w, &alarms.places[i]);
        if (here < kind) kind = here;
    }
    return kind;
}

static void *run(void *unused) {
    (void)unused;
    os_thread_name("vrange-alarm");
    os_watches w;
    atomic_store(&alarms.thread_id, os_thread_id());
    const alarm_kind kind = watch_all(&w);
    atomic_store(&alarms.kind, kind);
    while (kind != ALARM_NONE && os_watches_wait(&w) > 0) {
        uint32_t state = WATCHING;
        if (atomic_compare_exchange_strong(&alarms.state, &state, REPORTED)) caretaker_call();
        while (atomic_load(&alarms.state) == REPORTED) os_wait(&alarms.state, REPORTED, FOR_EVER_NS);
    }
    atomic_store(&alarms.kind, ALARM_NONE);
    return NULL;
}

/* ---- what is asked for ------------------------------------------------------------------------- */

static void forget_places(place *places, size_t count) {
    for (size_t i = 0; i < count; i++) {
        free(places[i].directory);
        for (size_t l = 0; l < VRANGE_CGROUP_LIMITS; l++) free(places[i].limits[l]);
    }
}

static bool fill_place(place *p, const limits_cgroup *c, const limits *l, uint64_t enough) {
    *p = (place){.directory = strdup(c->usage.path), .threshold = NO_THRESHOLD};
    char *slash = p->directory ? strrchr(p->directory, '/') : NULL;
    if (!slash) return false;
    *slash = 0;
    p->usage = slash + 1;
    for (size_t i = 0; i < VRANGE_CGROUP_LIMITS; i++) {
        if (!os_is_kept(&c->limits[i])) continue;
        p->limits[i] = strdup(c->limits[i].path);
        if (!p->limits[i]) return false;
    }
    if (c->limit < l->machine_bytes) p->threshold = above(c->limit, enough);
    return true;
}

/* Returns whether it is what the thread watches. */
static bool is_watched(const place *wanted, size_t count) {
    bool same = count == alarms.count;
    for (size_t i = 0; same && i < count; i++)
        same = wanted[i].threshold == alarms.places[i].threshold &&
               strcmp(wanted[i].directory, alarms.places[i].directory) == 0;
    return same;
}

static void end_thread(void) {
    if (!alarms.running) return;
    atomic_store(&alarms.state, ENDING);
    os_wake(&alarms.state);
    os_watches_end(alarms.thread);
    pthread_join(alarms.thread, NULL);
    alarms.running = false;
}

static void start_thread(place *wanted, size_t count) {
    end_thread();
    forget_places(alarms.places, alarms.count);
    memcpy(alarms.places, wanted, count * sizeof *wanted);
    alarms.count = count;
    atomic_store(&alarms.kind, ALARM_NONE);
    atomic_store(&alarms.state, WATCHING);
    alarms.running = os_thread_start(&alarms.thread, run, NULL) == 0;
}

/* An alarm at the threshold is none if usage is above it already: clean file pages may fill the cgroup. */
static alarm_kind kind_now(const limits *l) {
    alarm_kind kind = (alarm_kind)atomic_load(&alarms.kind);
    for (size_t i = 0; i < l->count && i < alarms.count; i++) {
        const uint64_t threshold = alarms.places[i].threshold;
        if (threshold != NO_THRESHOLD && l->cgroups[i].used >= threshold && kind == ALARM_EARLY)
            kind = ALARM_LATE;
    }
    return kind;
}

alarm_kind alarm_set(uint64_t enough) {
    place wanted[VRANGE_CGROUPS];
    size_t count = 0;
    bool is_filled = true;
    /* The thread's stack and glibc's arena for it are address space, which may be scarce. */
    if (os_address_space_limit() != UINT64_MAX) return ALARM_NONE;
    limits *l = limits_take();
    for (; count < l->count && is_filled; count++)
        is_filled = fill_place(&wanted[count], &l->cgroups[count], l, enough);
    alarm_kind kind = kind_now(l);
    limits_give();
    if (!is_filled || count == 0) kind = ALARM_NONE;
    else if (!alarms.running || !is_watched(wanted, count)) {
        start_thread(wanted, count);
        return ALARM_NONE;
    }
    forget_places(wanted, count);
    uint32_t state = REPORTED;
    if (atomic_compare_exchange_strong(&alarms.state, &state, WATCHING)) {
        os_wake(&alarms.state);
        kind = ALARM_NONE; /* what was reported last is taken first */
    }
    return kind;
}

bool alarm_has_come(void) { return alarms.running && atomic_load(&alarms.state) == REPORTED; }

void alarm_end(void) {
    if (!alarms.running) return;
    end_thread();
    os_thread_wait_gone(atomic_load(&alarms.thread_id));
}

void alarm_after_fork(void) { alarms.running = false; }
