/* Headroom for callers that can't wait: how much can still be allocated before a limit ends the process or an
 * allocation fails.
 *
 * headroom.c computes nearly the same for the caretaker, which may wait. Deep calls ask from a signal handler
 * that runs on an alternate stack of a few KiB and may interrupt any code. So this file waits for no lock
 * and allocates nothing. A thread that asks while another one has the limits, or a handler that interrupted
 * the reader, gets the last answer, which is at most one reading old. */
#include "pressure/headroom_in_signal.h"

#include <stdatomic.h>

#include "counters/stats.h"
#include "os/os.h"
#include "pressure/memory_limits.h"
#include "pressure/reclaimable.h"

#define LIMITS_NS 100000000ull
#define MACHINE_NS 50000000ull
#define CLEAN_NS 1000000ull /* a recursion may fill the least margin in headroom.c's 20 ms */
#define CLEAN_SHARE 2

#define MARGIN_SHARE 8
#define MARGIN_LEAST ((int64_t)4 << 20)
#define MARGIN_MOST ((int64_t)256 << 20)

static _Atomic int64_t last_answer = INT64_MAX;

/* A share of each limit stays for everything else: other threads, and what is allocated between two
 * readings. */
static int64_t below(uint64_t limit, uint64_t used) {
    if (limit > INT64_MAX) return INT64_MAX;
    const int64_t share = (int64_t)(limit / MARGIN_SHARE);
    const int64_t margin = share < MARGIN_LEAST ? MARGIN_LEAST : share > MARGIN_MOST ? MARGIN_MOST
                                                                                     : share;
    return (int64_t)limit - (int64_t)used - margin;
}

/* Pages that the kernel reclaims before it kills: clean file pages and offered pages. Only a share of them
 * counts, as offered pages that are in use again stay on the same list until reclaim looks at them. */
static int64_t clean_bytes(limits *l, limits_cgroup *c, uint64_t now) {
    if (limits_read_content(l, c, now, CLEAN_NS) < 0) return 0;
    return (int64_t)(reclaimable_of(c).clean / CLEAN_SHARE);
}

/* If usage can't be read, for example when the process has no descriptor left, the last figure counts. */
static int64_t look_at_cgroup(limits *l, limits_cgroup *c, uint64_t now, int64_t enough) {
    limits_read_limit(l, c, now, LIMITS_NS);
    if (c->limit >= l->machine_bytes) return INT64_MAX;
    limits_read_usage(l, c, now);
    const int64_t left = below(c->limit, c->used);
    return left < enough ? left + clean_bytes(l, c, now) : left;
}

static int64_t least_of(int64_t a, int64_t b) { return a < b ? a : b; }

static int64_t look_at_process(void) {
    process_limits now;
    if (limits_read_process(&now) < 0) return INT64_MAX;
    int64_t least = least_of(below(now.address_space, now.address_space_used), below(now.data, now.data_used));
    uint64_t limit, used;
    if (limits_read_set(&limit, &used)) least = least_of(least, below(limit, used));
    return least;
}

static int64_t look(limits *l, int64_t enough) {
    const uint64_t now = os_now_ns();
    limits_read_machine(l, now, MACHINE_NS);
    int64_t least = below(l->machine_bytes, l->machine_used);
    for (size_t i = 0; i < l->count; i++)
        least = least_of(least, look_at_cgroup(l, &l->cgroups[i], now, enough));
    /* The caretaker frees idle values as well, but only as fast as it offers them. */
    if (least < enough) least += (int64_t)(atomic_load(&stats_idle_bytes) / 2);
    return least_of(least_of(least, below(l->commit_limit, l->committed)), look_at_process());
}

int64_t headroom_in_signal(int64_t enough) {
    limits *l = limits_try();
    if (!l) return atomic_load(&last_answer);
    const int64_t least = look(l, enough);
    atomic_store(&last_answer, least);
    limits_give();
    return least;
}
