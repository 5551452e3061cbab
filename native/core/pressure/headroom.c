/* Headroom: how many bytes can still be allocated below the tightest limit.
 *
 * limits.c reads the limits and usage of every cgroup around the process; an outer one may be fuller. Usage
 * is read at each look.
 *
 * Clean file pages count as free if the kernel lists them among the pages it takes first. Reading files
 * fills the cgroup without reducing the memory that is available. But the kernel takes offered pages and
 * those file pages in turns, and a cache that went on offering would lose its values to a log file that is
 * read once. */
#include "pressure/headroom.h"

#include <stdatomic.h>

#include "counters/stats.h"
#include "os/os.h"
#include "pressure/limits.h"

#define LIMIT_NS 100000000ull
#define CLEAN_NS 20000000ull /* the file that reports it is long, and every turn of the reserve asks */
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

/* File pages that can be taken at once, and (*active) those that the kernel takes later. Offered pages are
 * listed among the first, and are not free. */
static uint64_t clean_bytes(limits *l, limits_cgroup *c, uint64_t now, uint64_t *active) {
    *active = 0;
    if (limits_read_content(l, c, now, CLEAN_NS) < 0) return 0;
    const memory_stat *s = &c->content;
    const uint64_t offered = atomic_load(&stats_offered_bytes);
    /* Pages that were offered and are pinned again stay on the list of inactive file pages until the
     * kernel looks at them. So there can't be more file pages than the kernel counts as used for files. */
    const uint64_t most = s->files > s->shared ? s->files - s->shared : 0;
    const uint64_t inactive = s->inactive_file < most + offered ? s->inactive_file : most + offered;
    const uint64_t not_clean = s->not_clean + offered + atomic_load(&stats_copying_bytes);
    const uint64_t clean = inactive > not_clean ? inactive - not_clean : 0;
    /* The other half is in use by running programs. */
    *active = most > clean ? most - clean : 0;
    if (*active > s->active_file / 2) *active = s->active_file / 2;
    return clean;
}

static bool look(limits *l, uint64_t enough, bool with_active, uint64_t *free_bytes) {
    const uint64_t now = os_now_ns();
    for (size_t i = 0; i < l->count; i++) {
        limits_cgroup *c = &l->cgroups[i];
        uint64_t used, active;
        limits_read_limit(l, c, now, LIMIT_NS);
        if (c->limit >= l->machine_bytes) continue;
        if (!read_usage(l, c, now, &used)) return false;
        uint64_t left = used < c->limit ? c->limit - used : 0;
        if (left < enough) {
            left += clean_bytes(l, c, now, &active);
            if (left < enough && with_active) left += active;
        }
        if (left < *free_bytes) *free_bytes = left;
    }
    return l->is_complete || *free_bytes < UINT64_MAX;
}

static bool below_limits(uint64_t enough, bool with_active, uint64_t *free_bytes) {
    limits_follow();
    *free_bytes = UINT64_MAX;
    const bool known = look(limits_take(), enough, with_active, free_bytes);
    limits_give();
    if (!known) *free_bytes = UINT64_MAX;
    return known;
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
    if (!is_set) return UINT64_MAX;
    return used < set ? set - used : 0;
}

uint64_t headroom_of_machine(uint64_t age_ns) {
    limits *l = limits_take();
    const int result = limits_read_machine(l, os_now_ns(), age_ns);
    const uint64_t free_bytes = result < 0 ? 0 : l->machine_bytes - l->machine_used;
    limits_give();
    return free_bytes;
}
