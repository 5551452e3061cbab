/* Finds the place that is nearest to its limit.
 *
 * Every cgroup around the process may be the one that ends it, and the limit that the program has set counts as
 * well. If there is neither, the machine counts.
 *
 * Not all usage counts. The kernel takes clean file pages and offered pages at no harm to any program
 * (both are on its inactive file list), and idle bytes are offered as it takes those. So the three are
 * left out; otherwise a cache that fills spare memory would be pressure for ever. */
#include "pressure/nearest_limit.h"

#include <errno.h>
#include <limits.h>
#include <stdatomic.h>

#include "base/amounts.h"
#include "counters/stats.h"
#include "os/os.h"
#include "pressure/reclaimable.h"

#define NOWHERE INT_MIN
#define LOOKS_A_CONTENT 3
#define MOVED_SHARE 256 /* of the limit: a change of this size counts as a move */

/* The part of a cgroup's usage that can be taken at once: clean file pages, and offered pages. Reading the
 * file that reports it costs as much as all the others: it is read again when usage has changed. */
static uint64_t listed_bytes(watched_limits *w, size_t which, uint64_t now) {
    limits_cgroup *c = &w->limits.cgroups[which];
    const uint64_t then = w->looked[which].usage_then;
    const uint64_t moved = c->used > then ? c->used - then : then - c->used;
    if (w->looked[which].looks++ % LOOKS_A_CONTENT == 0 || moved >= c->limit / MOVED_SHARE) {
        w->looked[which].looks = 1;
        w->looked[which].usage_then = c->used;
        limits_read_content(&w->limits, c, now, 0);
    }
    return c->content_ns ? reclaimable_of(c).listed : atomic_load(&stats_offered_bytes);
}

/* False if the cgroup can't be read, or has no limit below the machine's memory. */
static bool look_at(watched_limits *w, size_t which, uint64_t limit_age_ns, double floor, fullness *out,
                    read_failures *failures) {
    limits_cgroup *c = &w->limits.cgroups[which];
    const uint64_t now = os_now_ns();
    int result = limits_read_limit(&w->limits, c, now, limit_age_ns);
    if (result == 0 && (c->limit == 0 || c->limit >= w->limits.machine_bytes)) return false;
    if (result == 0) result = limits_read_usage(&w->limits, c, now);
    if (result < 0) {
        failures->failed++;
        if (result == -ENODEV) failures->was_removed = true;
        return false;
    }
    *out = (fullness){.place = (int)which, .usage = c->used, .limit = c->limit, .used = c->used};
    if ((double)out->usage < floor * (double)out->limit) return true; /* low even if all of it counts */
    out->used = above(out->usage, listed_bytes(w, which, now) + atomic_load(&stats_idle_bytes));
    return true;
}

/* The limit that the program has set. What is volatile can be discarded at once, or does not count. */
static bool look_at_set(fullness *out) {
    if (!limits_read_set(&out->limit, &out->usage)) return false;
    out->place = VRANGE_PRESSURE_SET;
    const uint64_t offered = limits_set_spares_offered() ? 0 : atomic_load(&stats_offered_bytes);
    out->used = above(out->usage, atomic_load(&stats_idle_bytes) + offered);
    return true;
}

static bool look_at_machine(limits *l, fullness *out) {
    if (limits_read_machine(l, os_now_ns(), 0) < 0) return false;
    *out = (fullness){.place = VRANGE_PRESSURE_MACHINE,
                      .usage = l->machine_used,
                      .limit = l->machine_bytes,
                      .used = above(l->machine_used, atomic_load(&stats_idle_bytes))};
    return true;
}

static void keep_fuller(fullness *fullest, const fullness *here) {
    if (fullest->place == NOWHERE || fullness_share(here) > fullness_share(fullest)) *fullest = *here;
}

bool nearest_limit(watched_limits *w, uint64_t limit_age_ns, double floor, fullness *fullest,
                   read_failures *failures) {
    fullness here;
    *failures = (read_failures){0};
    fullest->place = NOWHERE;
    for (size_t i = 0; i < w->limits.count; i++) {
        if (look_at(w, i, limit_age_ns, floor, &here, failures)) keep_fuller(fullest, &here);
    }
    if (look_at_set(&here)) keep_fuller(fullest, &here);
    return fullest->place != NOWHERE || look_at_machine(&w->limits, fullest);
}
