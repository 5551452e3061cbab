/* What the kernel could reclaim; see reclaimable.h.
 *
 * The kernel lists offered pages among inactive file pages. Pages that were offered and are pinned again stay
 * on that list until the kernel looks at them. */
#include "pressure/reclaimable.h"

#include <stdatomic.h>

#include "base/amounts.h"
#include "counters/stats.h"

#define RUNNING_SHARE 2 /* this share of active file pages is in use by running programs */

reclaimable reclaimable_of(const limits_cgroup *c) {
    const memory_stat *s = &c->content;
    const uint64_t offered = atomic_load(&stats_offered_bytes);
    /* There can't be more file pages on the list than the kernel counts as used for files. */
    const uint64_t files = above(s->files, s->shared);
    const uint64_t not_clean = s->not_clean + offered + atomic_load(&stats_copying_bytes);
    const uint64_t clean_files = above(lesser(s->inactive_file, files + offered), not_clean);
    return (reclaimable){.listed = s->inactive_file,
                         .clean = above(s->inactive_file, s->not_clean),
                         .clean_files = clean_files,
                         .later_files = lesser(above(files, clean_files), s->active_file / RUNNING_SHARE)};
}
