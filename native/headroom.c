/* Headroom: how much memory is free before somebody has to give some.
 *
 * What ends a process is a limit of its cgroup, of a cgroup around that, or the machine. The limits may
 * change at any moment and are read again now and then; usage is read at each look, of every cgroup
 * that has a limit, since the outer one may be the fuller. A process that was moved to another cgroup
 * has a limit that is not known, until somebody says which: better none than a wrong one.
 *
 * Clean pages of files count as free, if the kernel has them among those it takes first. Who reads files
 * fills his cgroup with them and has no less memory for it; but the kernel takes offered pages and those
 * in turns, and a cache that went on offering would be lost to a log file that is read once. */
#include "headroom.h"

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>

#include "gate.h"
#include "lines.h"
#include "os.h"
#include "stats.h"
#include "vrange.h"

#define LIMIT_NS 100000000ull
#define MEMBERSHIP_NS 1000000000ull
#define CLEAN_NS 20000000ull /* the file that tells it is long */
#define TEXT_BYTES 8192

typedef struct {
    int usage, stat, limits[VRANGE_CGROUP_LIMITS]; /* descriptors, or -1 */
    uint64_t limit_above, limit;                   /* the latter as it was read last */
    uint64_t clean, clean_ns;                      /* likewise */
} cgroup;

static struct {
    pthread_mutex_t lock;
    cgroup cgroups[VRANGE_CGROUPS];
    size_t count;
    uint64_t limits_ns;
    uint64_t membership, member_ns;
    bool moved;
    uint64_t machine_bytes, machine_free, machine_ns;
} headroom = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void close_files(cgroup *c) {
    if (c->usage >= 0) os_close(c->usage);
    if (c->stat >= 0) os_close(c->stat);
    for (size_t i = 0; i < VRANGE_CGROUP_LIMITS; i++) {
        if (c->limits[i] >= 0) os_close(c->limits[i]);
    }
}

static int open_files(cgroup *c, const vrange_cgroup *told) {
    *c = (cgroup){.usage = -1, .stat = -1, .limit_above = told->limit_above, .limit = told->limit_above};
    for (size_t i = 0; i < VRANGE_CGROUP_LIMITS; i++) {
        c->limits[i] = -1;
        if (told->limits[i]) os_open_to_read(told->limits[i], &c->limits[i]); /* or it has none */
    }
    if (told->stat) os_open_to_read(told->stat, &c->stat); /* or nothing is clean */
    int result = os_open_to_read(told->usage, &c->usage);
    if (result < 0) close_files(c);
    return result;
}

int vrange_headroom_watch(const vrange_cgroup *cgroups, size_t count) {
    cgroup opened[VRANGE_CGROUPS];
    if (count > VRANGE_CGROUPS) return -E2BIG;
    for (size_t i = 0; i < count; i++) {
        int result = open_files(&opened[i], &cgroups[i]);
        if (result == 0) continue;
        while (i > 0) close_files(&opened[--i]);
        return result;
    }
    uint64_t usage, machine_bytes = UINT64_MAX, membership = 0;
    os_machine_usage(&usage, &machine_bytes); /* unknown: every limit is one */
    os_cgroup_membership(&membership);
    gate_enter();
    pthread_mutex_lock(&headroom.lock);
    for (size_t i = 0; i < headroom.count; i++) close_files(&headroom.cgroups[i]);
    for (size_t i = 0; i < count; i++) headroom.cgroups[i] = opened[i];
    headroom.count = count;
    headroom.limits_ns = 0;
    headroom.machine_bytes = machine_bytes;
    headroom.membership = membership;
    headroom.member_ns = os_now_ns();
    headroom.moved = false;
    pthread_mutex_unlock(&headroom.lock);
    gate_leave();
    return 0;
}

/* False where a limit can't be told: the cgroup was removed. */
static bool read_limit(cgroup *c) {
    c->limit = c->limit_above;
    return os_read_limits(c->limits, VRANGE_CGROUP_LIMITS, &c->limit) == 0;
}

/* Of this cgroup and those below it, which v1 tells under a name of its own. */
static uint64_t sum_of(const char *text, const char *name) {
    char total[32] = "total_";
    uint64_t bytes = 0;
    strcat(total, name);
    if (!line_number(text, total, &bytes)) line_number(text, name, &bytes);
    return bytes;
}

/* Pages of files that can be taken at once. What we offered stands among them, and is not free. */
static uint64_t clean_bytes(cgroup *c, uint64_t now) {
    if (now - c->clean_ns < CLEAN_NS) return c->clean;
    char text[TEXT_BYTES];
    c->clean_ns = now;
    c->clean = 0;
    if (c->stat < 0 || os_read_text(c->stat, text, sizeof text) < 0) return 0;
    const uint64_t inactive = sum_of(text, "inactive_file");
    const uint64_t not_clean = sum_of(text, "dirty") + sum_of(text, "file_dirty") +
                               sum_of(text, "writeback") + sum_of(text, "file_writeback") +
                               atomic_load(&stats_offered_bytes);
    if (inactive > not_clean) c->clean = inactive - not_clean;
    return c->clean;
}

static void look_for_move(uint64_t now) {
    uint64_t membership;
    if (now - headroom.member_ns < MEMBERSHIP_NS) return;
    headroom.member_ns = now;
    if (os_cgroup_membership(&membership) == 0 && membership != headroom.membership)
        headroom.moved = true;
}

bool headroom_below_limits(uint64_t enough, uint64_t *free_bytes) {
    bool known = false;
    *free_bytes = UINT64_MAX;
    pthread_mutex_lock(&headroom.lock);
    const uint64_t now = os_now_ns();
    const bool reads_limits = now - headroom.limits_ns >= LIMIT_NS;
    if (reads_limits) headroom.limits_ns = now;
    if (headroom.count) look_for_move(now);
    for (size_t i = 0; i < headroom.count && !headroom.moved; i++) {
        cgroup *c = &headroom.cgroups[i];
        uint64_t usage;
        if (reads_limits && !read_limit(c)) headroom.moved = true;
        if (c->limit >= headroom.machine_bytes) continue;
        if (os_read_number(c->usage, &usage) < 0) {
            headroom.moved = true;
            break;
        }
        uint64_t left = usage < c->limit ? c->limit - usage : 0;
        if (left < enough) left += clean_bytes(c, now);
        if (left < *free_bytes) *free_bytes = left;
        known = true;
    }
    known = known && !headroom.moved;
    if (!known) *free_bytes = UINT64_MAX;
    pthread_mutex_unlock(&headroom.lock);
    return known;
}

uint64_t headroom_of_machine(uint64_t age_ns) {
    const uint64_t now = os_now_ns();
    uint64_t usage, total;
    pthread_mutex_lock(&headroom.lock);
    if (now - headroom.machine_ns >= age_ns) {
        headroom.machine_ns = now;
        headroom.machine_free = os_machine_usage(&usage, &total) < 0 ? 0 : total - usage;
    }
    const uint64_t free_bytes = headroom.machine_free;
    pthread_mutex_unlock(&headroom.lock);
    return free_bytes;
}
