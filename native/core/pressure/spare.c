/* Spare memory: how much can still be allocated before a limit ends the process or an allocation fails.
 *
 * headroom.c computes nearly the same for the caretaker, with descriptors that stay open and under a lock.
 * Deep calls ask from a signal handler that runs on an alternate stack of a few KiB and may interrupt any
 * code. So this file waits for no lock, keeps no descriptor, and allocates nothing. One thread at a time
 * reads the files. Another thread that asks meanwhile, or a handler that interrupted the reader, gets the
 * last answer, which is at most one reading old. */
#define _GNU_SOURCE
#include "pressure/spare.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/gate.h"
#include "base/stat_file.h"
#include "os/os.h"
#include "counters/stats.h"

#define LIMITS_NS 100000000ull
#define MACHINE_NS 50000000ull
#define CLEAN_NS 1000000ull
#define CLEAN_SHARE 2
#define MEMBERSHIP_NS 1000000000ull

#define MARGIN_SHARE 8
#define MARGIN_LEAST ((int64_t)4 << 20)
#define MARGIN_MOST ((int64_t)256 << 20)

typedef struct {
    char *usage, *stat, *limits[VRANGE_CGROUP_LIMITS];
    uint64_t limit_above, limit;
    uint64_t clean, clean_ns;
    int64_t last; /* used if the files can't be read, for example when the process has no descriptor left */
} place;

static struct {
    _Atomic bool busy; /* guards all members below except `last` */
    _Atomic int64_t last;
    place places[VRANGE_CGROUPS];
    size_t count;
    uint64_t limits_ns, machine_ns, member_ns, membership;
    uint64_t machine_bytes;
    int64_t machine_last, commit_last;
    uint64_t address_space, data; /* RLIMIT_AS, RLIMIT_DATA */
    bool strict, gone;
    char text[8192];
} spare = {.last = INT64_MAX,
           .machine_bytes = UINT64_MAX,
           .machine_last = INT64_MAX,
           .commit_last = INT64_MAX,
           .address_space = UINT64_MAX,
           .data = UINT64_MAX};

/* A share of each limit stays for everything else: other threads, and what is allocated between two
 * readings. */
static int64_t below(uint64_t limit, uint64_t used) {
    const int64_t share = (int64_t)(limit / MARGIN_SHARE);
    const int64_t margin = share < MARGIN_LEAST ? MARGIN_LEAST : share > MARGIN_MOST ? MARGIN_MOST : share;
    return (int64_t)limit - (int64_t)used - margin;
}

/* ---- cgroups ----------------------------------------------------------------------------------- */

static bool read_number(const char *path, uint64_t *number) {
    char text[32];
    const int result = os_read_small(path, text, sizeof text);
    if (result == -ENOENT || result == -ENODEV) spare.gone = true;
    if (result <= 0 || text[0] < '0' || text[0] > '9') return false; /* "max" is no limit */
    *number = strtoull(text, NULL, 10);
    return true;
}

static void read_limits(place *p) {
    p->limit = p->limit_above;
    for (size_t i = 0; i < VRANGE_CGROUP_LIMITS; i++) {
        uint64_t one;
        if (p->limits[i] && read_number(p->limits[i], &one) && one < p->limit) p->limit = one;
    }
}

/* cgroup v1 reports the figures of a whole tree under names of their own. */
static uint64_t sum_of(const char *name) {
    char total[32] = "total_";
    uint64_t bytes = 0;
    strcat(total, name);
    if (!line_number(spare.text, total, &bytes)) line_number(spare.text, name, &bytes);
    return bytes;
}

/* Pages that the kernel reclaims before it kills: clean file pages and offered pages. Only a share of them
 * counts, as offered pages that are in use again stay on the same list until reclaim looks at them. */
static uint64_t clean_bytes(place *p, uint64_t now) {
    if (now - p->clean_ns < CLEAN_NS) return p->clean;
    p->clean_ns = now;
    p->clean = 0;
    if (!p->stat || os_read_small(p->stat, spare.text, sizeof spare.text) < 0) return 0;
    const uint64_t inactive = sum_of("inactive_file");
    const uint64_t dirty =
        sum_of("dirty") + sum_of("file_dirty") + sum_of("writeback") + sum_of("file_writeback");
    if (inactive > dirty) p->clean = (inactive - dirty) / CLEAN_SHARE;
    return p->clean;
}

static int64_t look_at(place *p, uint64_t now, int64_t enough, bool reads_limits) {
    uint64_t usage;
    if (reads_limits) read_limits(p);
    if (p->limit >= spare.machine_bytes) return INT64_MAX;
    if (!read_number(p->usage, &usage)) return p->last;
    p->last = below(p->limit, usage);
    if (p->last < enough) p->last += (int64_t)clean_bytes(p, now);
    return p->last;
}

/* ---- the machine and the process --------------------------------------------------------------- */

static void look_at_machine(uint64_t now) {
    uint64_t usage, total;
    if (now - spare.machine_ns < MACHINE_NS) return;
    spare.machine_ns = now;
    if (os_machine_usage(&usage, &total) == 0) {
        spare.machine_bytes = total;
        spare.machine_last = below(total, usage);
    }
    spare.commit_last = INT64_MAX;
    if (spare.strict && os_commit_usage(&usage, &total) == 0) spare.commit_last = below(total, usage);
}

static int64_t look_at_process(void) {
    uint64_t all, data;
    int64_t least = INT64_MAX;
    if (spare.address_space == UINT64_MAX && spare.data == UINT64_MAX) return least;
    if (os_address_space(&all, &data) < 0) return least;
    if (spare.address_space != UINT64_MAX) least = below(spare.address_space, all);
    if (spare.data != UINT64_MAX && below(spare.data, data) < least) least = below(spare.data, data);
    return least;
}

static int64_t least_of(int64_t a, int64_t b) { return a < b ? a : b; }

static int64_t look(int64_t enough) {
    const uint64_t now = os_now_ns();
    const bool reads_limits = now - spare.limits_ns >= LIMITS_NS;
    if (reads_limits) {
        spare.limits_ns = now;
        spare.address_space = os_address_space_limit();
        spare.data = os_data_limit();
    }
    look_at_machine(now);
    int64_t least = spare.machine_last;
    for (size_t i = 0; i < spare.count; i++)
        least = least_of(least, look_at(&spare.places[i], now, enough, reads_limits));
    /* The caretaker frees idle values as well, but only as fast as it offers them. */
    if (least < enough) least += (int64_t)(atomic_load(&stats_idle_bytes) / 2);
    return least_of(least_of(least, spare.commit_last), look_at_process());
}

int64_t spare_bytes(int64_t enough) {
    if (atomic_exchange(&spare.busy, true)) return atomic_load(&spare.last);
    const int64_t least = look(enough);
    atomic_store(&spare.last, least);
    atomic_store(&spare.busy, false);
    return least;
}

/* ---- what is watched --------------------------------------------------------------------------- */

static char *copy_of(const char *path) { return path ? strdup(path) : NULL; }

static void forget(place *p) {
    free(p->usage);
    free(p->stat);
    for (size_t i = 0; i < VRANGE_CGROUP_LIMITS; i++) free(p->limits[i]);
}

static void wait_for_turn(void) {
    while (atomic_exchange(&spare.busy, true)) os_yield();
}

void spare_watch(const vrange_cgroup *told, size_t count) {
    place fresh[VRANGE_CGROUPS], before[VRANGE_CGROUPS];
    size_t kept = 0;
    for (size_t i = 0; i < count && i < VRANGE_CGROUPS; i++) {
        place *p = &fresh[kept];
        *p = (place){.usage = copy_of(told[i].usage),
                     .stat = copy_of(told[i].stat),
                     .limit_above = told[i].limit_above,
                     .limit = UINT64_MAX,
                     .last = INT64_MAX};
        for (size_t l = 0; l < VRANGE_CGROUP_LIMITS; l++) p->limits[l] = copy_of(told[i].limits[l]);
        if (p->usage) kept++;
        else forget(p);
    }
    uint64_t membership = 0;
    os_cgroup_membership(&membership);
    const bool strict = os_commits_strictly();
    gate_enter(); /* a child must not inherit a half-written state */
    wait_for_turn();
    const size_t count_before = spare.count;
    memcpy(before, spare.places, sizeof before);
    memcpy(spare.places, fresh, kept * sizeof *fresh);
    spare.count = kept;
    spare.membership = membership;
    spare.member_ns = os_now_ns();
    spare.limits_ns = spare.machine_ns = 0;
    spare.strict = strict;
    spare.gone = false;
    atomic_store(&spare.busy, false);
    gate_leave();
    for (size_t i = 0; i < count_before; i++) forget(&before[i]);
}

bool spare_is_stale(uint64_t now) {
    uint64_t membership;
    bool stale = false;
    if (atomic_exchange(&spare.busy, true)) return false;
    if (now - spare.member_ns >= MEMBERSHIP_NS) {
        spare.member_ns = now;
        stale = spare.gone ||
                (os_cgroup_membership(&membership) == 0 && membership != spare.membership);
    }
    atomic_store(&spare.busy, false);
    return stale;
}

/* The thread that was reading exists only in the parent. */
void spare_after_fork(void) { atomic_store(&spare.busy, false); }
