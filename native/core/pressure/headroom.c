/* Headroom: how many bytes can still be allocated below the tightest limit.
 *
 * memory_limits.c reads the limits and usage of every cgroup around the process; an outer one may be fuller.
 * Usage is read at each look.
 *
 * Clean file pages count as free if the kernel lists them among the pages it takes first. Reading files
 * fills the cgroup without reducing the memory that is available. But the kernel takes offered pages and
 * those file pages in turns, and a cache that went on offering would lose its values to a log file that is
 * read once. */
#include "pressure/headroom.h"

#include "base/amounts.h"
#include "base/rung.h"
#include "os/os.h"
#include "pressure/memory_limits.h"
#include "pressure/reclaimable.h"

#define LIMIT_NS 2000000ull /* a limit may be lowered in steps: less than a tick */
#define NO_LIMIT_NS 100000000ull /* most processes never get one, and stores and releases ask, too */
#define CLEAN_NS 20000000ull /* the file that reports it is long, and every turn of the reserve asks */
#define FRESH_NS 1000000ull
#define MOVED_SHARE 16 /* of what is enough */
#define FAILING_NS 1000000000ull

/* False if the cgroup was removed. Usage that can't be read for another reason keeps its last value for a
 * second; after that the whole limit counts as used. A process must not be killed because it has no
 * descriptor left, or runs in a sandbox. */
static bool read_usage(limits *l, limits_cgroup *c, uint64_t now, uint64_t *used) {
    const int result = limits_read_usage(l, c, now);
    if (l->is_gone) return false;
    *used = result < 0 && now - c->used_ns > FAILING_NS ? UINT64_MAX : c->used;
    return true;
}

/* While files are read, or memory is taken, the content of a moment ago is of another usage. On the eager rung
 * clean file pages are what is kept free, and usage does not show that they are used up. */
static uint64_t content_age(const limits_cgroup *c, uint64_t enough) {
    const uint64_t moved = c->used > c->content_used ? c->used - c->content_used : c->content_used - c->used;
    return vrange_rung() == VRANGE_RUNG_EAGER || moved > enough / MOVED_SHARE ? FRESH_NS : CLEAN_NS;
}

/* File pages that can be taken at once and, if `later` is set, those that the kernel takes later. Offered pages
 * are not free. */
static uint64_t file_bytes(limits *l, limits_cgroup *c, uint64_t now, bool later, uint64_t missing,
                           uint64_t age_ns) {
    if (limits_read_content(l, c, now, age_ns) < 0) return 0;
    const reclaimable r = reclaimable_of(c);
    return r.clean_files + (later && r.clean_files < missing ? r.later_files : 0);
}

static bool look(limits *l, uint64_t now, uint64_t enough, bool with_later, uint64_t *free_bytes) {
    for (size_t i = 0; i < l->count; i++) {
        limits_cgroup *c = &l->cgroups[i];
        uint64_t used;
        limits_read_limit(l, c, now, c->limit < l->machine_bytes ? LIMIT_NS : NO_LIMIT_NS);
        if (c->limit >= l->machine_bytes) continue;
        if (!read_usage(l, c, now, &used)) return false;
        uint64_t left = above(c->limit, used);
        if (left < enough) left += file_bytes(l, c, now, with_later, enough - left, content_age(c, enough));
        if (left < *free_bytes) *free_bytes = left;
    }
    return l->is_complete || *free_bytes < UINT64_MAX;
}

static bool below_limits(uint64_t enough, bool with_later, uint64_t *free_bytes) {
    uint64_t now;
    limits *l = limits_take_followed(&now);
    *free_bytes = UINT64_MAX;
    const bool known = look(l, now, enough, with_later, free_bytes);
    limits_give();
    if (!known) *free_bytes = UINT64_MAX;
    return known;
}

bool headroom_is_below(uint64_t enough) {
    static _Atomic uint64_t last = UINT64_MAX;
    limits *l = limits_try();
    if (!l) return atomic_load(&last) < enough;
    uint64_t free_bytes = UINT64_MAX;
    const bool is_known = look(l, os_now_ns(), enough, false, &free_bytes);
    limits_give();
    atomic_store(&last, is_known ? free_bytes : UINT64_MAX);
    return is_known && free_bytes < enough;
}

bool headroom_below_limits(uint64_t enough, uint64_t *free_bytes) {
    return below_limits(enough, false, free_bytes);
}

bool headroom_with_files(uint64_t enough, uint64_t *free_bytes) {
    return below_limits(enough, true, free_bytes);
}

uint64_t headroom_below_set(uint64_t *limit) {
    uint64_t set, used;
    const bool is_set = limits_read_set(&set, &used);
    if (limit) *limit = is_set ? set : UINT64_MAX;
    return is_set ? above(set, used) : UINT64_MAX;
}

uint64_t headroom_of_copy(void) {
    uint64_t set, used;
    if (!limits_read_set(&set, &used)) return UINT64_MAX;
    const uint64_t most = limits_set_most();
    return above(most > set ? most : set, used);
}

uint64_t headroom_of_machine(uint64_t age_ns) {
    limits *l = limits_take();
    const int result = limits_read_machine(l, os_now_ns(), age_ns);
    const uint64_t free_bytes = result < 0 ? 0 : l->machine_bytes - l->machine_used;
    limits_give();
    return free_bytes;
}

uint64_t headroom_found_anew(void) {
    /* Mapped: glibc reserves an arena when a thread allocates for the first time. */
    limits *l = os_map(sizeof *l);
    vrange_cgroups *found = os_map(sizeof *found);
    uint64_t free_bytes = UINT64_MAX;
    if (l && found) {
        limits_find(l, "/proc/self", found);
        look(l, os_now_ns(), UINT64_MAX, false, &free_bytes);
        free_bytes = lesser(free_bytes, above(l->machine_bytes, l->machine_used));
        limits_forget(l);
    }
    if (l) os_unreserve(l, sizeof *l);
    if (found) os_unreserve(found, sizeof *found);
    return free_bytes;
}
