/* Headroom: how many bytes can still be allocated below the tightest limit.
 *
 * What ends a process is a limit of its cgroup, of a cgroup around that, or the machine. The limits may
 * change at any moment and are read again now and then. Usage is read at each look, for every cgroup that
 * has a limit, because an outer one may be fuller. If the process was moved to another cgroup, its limit
 * is unknown until Python reports the new one: no limit is better than a wrong one.
 *
 * Clean file pages count as free if the kernel lists them among the pages it takes first. Reading files
 * fills the cgroup without reducing the memory that is available. But the kernel takes offered pages and
 * those file pages in turns, and a cache that went on offering would lose its values to a log file that is
 * read once. */
#include "pressure/headroom.h"

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>

#include "base/gate.h"
#include "base/stat_file.h"
#include "os/os.h"
#include "os/os_held.h"
#include "pressure/spare.h"
#include "counters/stats.h"
#include "vrange.h"

#define LIMIT_NS 100000000ull
#define MEMBERSHIP_NS 1000000000ull
#define CLEAN_NS 20000000ull /* the file that reports it is long */
#define FAILING_NS 1000000000ull
#define TEXT_BYTES 8192

typedef struct {
    os_kept usage, stat, limits[VRANGE_CGROUP_LIMITS];
    uint64_t limit_above, limit;       /* `limit` as it was last read */
    uint64_t clean, active, clean_ns;  /* as it was last read */
    uint64_t used, used_ns;            /* as it was last read */
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
    os_forget(&c->usage);
    os_forget(&c->stat);
    for (size_t i = 0; i < VRANGE_CGROUP_LIMITS; i++) os_forget(&c->limits[i]);
}

/* A file that does not exist is not opened again: it stays missing. */
static void keep_optional(const char *path, os_kept *file) {
    if (os_keep(path, file) == -ENOENT) os_forget(file);
}

static int open_files(cgroup *c, const vrange_cgroup *told) {
    *c = (cgroup){.limit_above = told->limit_above, .limit = told->limit_above};
    for (size_t i = 0; i < VRANGE_CGROUP_LIMITS; i++) keep_optional(told->limits[i], &c->limits[i]);
    keep_optional(told->stat, &c->stat);
    int result = os_keep(told->usage, &c->usage);
    if (result < 0) close_files(c);
    return result;
}

int vrange_headroom_watch(const vrange_cgroup *cgroups, size_t count) {
    cgroup opened[VRANGE_CGROUPS];
    if (count > VRANGE_CGROUPS) return -E2BIG;
    spare_watch(cgroups, count);
    for (size_t i = 0; i < count; i++) {
        int result = open_files(&opened[i], &cgroups[i]);
        if (result == 0) continue;
        while (i > 0) close_files(&opened[--i]);
        return result;
    }
    uint64_t usage, machine_bytes = UINT64_MAX, membership = 0;
    os_machine_usage(&usage, &machine_bytes); /* unknown: every limit counts */
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

/* A limit that can't be read now keeps its last value. */
static void read_limit(cgroup *c) {
    uint64_t least = c->limit_above;
    for (size_t i = 0; i < VRANGE_CGROUP_LIMITS; i++) {
        uint64_t one;
        if (!os_is_kept(&c->limits[i])) continue;
        const int result = os_kept_number(&c->limits[i], &one);
        if (result == -EINVAL) continue; /* "max" */
        if (result < 0) return;
        if (one < least) least = one;
    }
    c->limit = least;
}

/* False if the cgroup was removed. Usage that can't be read for another reason keeps its last value for a
 * second; after that the whole limit counts as used. A process must not be killed because it has no
 * descriptor left, or runs in a sandbox. */
static bool read_usage(cgroup *c, uint64_t now) {
    uint64_t used;
    const int result = os_kept_number(&c->usage, &used);
    if (result == -ENODEV) return false;
    if (result == 0) {
        c->used = used;
        c->used_ns = now;
    } else if (now - c->used_ns > FAILING_NS) {
        c->used = UINT64_MAX;
    }
    return true;
}

/* Of this cgroup and those below it; v1 reports that sum under a name of its own. */
static uint64_t sum_of(const char *text, const char *name) {
    char total[32] = "total_";
    uint64_t bytes = 0;
    strcat(total, name);
    if (!line_number(text, total, &bytes)) line_number(text, name, &bytes);
    return bytes;
}

/* File pages that can be taken at once. Offered pages are listed among them, and are not free. */
static uint64_t clean_bytes(cgroup *c, uint64_t now) {
    if (now - c->clean_ns < CLEAN_NS) return c->clean;
    char text[TEXT_BYTES];
    c->clean_ns = now;
    c->clean = c->active = 0;
    if (os_kept_text(&c->stat, text, sizeof text) < 0) return 0;
    /* Pages that were offered and are pinned again stay on the list of inactive file pages until the
     * kernel looks at them. So there can't be more file pages than the kernel counts as used for files. */
    const uint64_t of_files = sum_of(text, "cache") + sum_of(text, "file"), shared = sum_of(text, "shmem");
    const uint64_t most = of_files > shared ? of_files - shared : 0;
    uint64_t inactive = sum_of(text, "inactive_file");
    if (inactive > most + atomic_load(&stats_offered_bytes)) inactive = most + atomic_load(&stats_offered_bytes);
    const uint64_t not_clean = sum_of(text, "dirty") + sum_of(text, "file_dirty") +
                               sum_of(text, "writeback") + sum_of(text, "file_writeback") +
                               atomic_load(&stats_offered_bytes) +
                               atomic_load(&stats_copying_bytes);
    if (inactive > not_clean) c->clean = inactive - not_clean;
    /* The other half is in use by running programs. */
    const uint64_t active = sum_of(text, "active_file") / 2;
    c->active = most > c->clean ? most - c->clean : 0;
    if (c->active > active) c->active = active;
    return c->clean;
}

static void look_for_move(uint64_t now) {
    uint64_t membership;
    if (now - headroom.member_ns < MEMBERSHIP_NS) return;
    headroom.member_ns = now;
    if (os_cgroup_membership(&membership) == 0) headroom.moved = membership != headroom.membership;
}

static bool below_limits(uint64_t enough, bool with_active, uint64_t *free_bytes) {
    bool known = false, removed = false;
    *free_bytes = UINT64_MAX;
    pthread_mutex_lock(&headroom.lock);
    const uint64_t now = os_now_ns();
    const bool reads_limits = now - headroom.limits_ns >= LIMIT_NS;
    if (reads_limits) headroom.limits_ns = now;
    if (headroom.count) look_for_move(now);
    for (size_t i = 0; i < headroom.count && !headroom.moved; i++) {
        cgroup *c = &headroom.cgroups[i];
        if (reads_limits) read_limit(c);
        if (c->limit >= headroom.machine_bytes) continue;
        if (!read_usage(c, now)) {
            removed = true;
            break;
        }
        uint64_t left = c->used < c->limit ? c->limit - c->used : 0;
        if (left < enough) left += clean_bytes(c, now);
        if (left < enough && with_active) left += c->active;
        if (left < *free_bytes) *free_bytes = left;
        known = true;
    }
    known = known && !headroom.moved && !removed;
    if (!known) *free_bytes = UINT64_MAX;
    pthread_mutex_unlock(&headroom.lock);
    return known;
}

bool headroom_below_limits(uint64_t enough, uint64_t *free_bytes) {
    return below_limits(enough, false, free_bytes);
}

bool headroom_with_files(uint64_t enough, uint64_t *free_bytes) {
    return below_limits(enough, true, free_bytes);
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
