/* What the kernel could reclaim of a cgroup's usage without harm to any program. */
#ifndef VRANGE_RECLAIMABLE_H
#define VRANGE_RECLAIMABLE_H

#include <stdint.h>

#include "pressure/memory_limits.h"

/* Each caller counts as much of it as it can rely on. */
typedef struct {
    uint64_t listed;      /* on the list that the kernel takes from first: file pages, and offered ones */
    uint64_t clean;       /* of these, without pages that must be written first */
    uint64_t clean_files; /* of these, without offered pages */
    uint64_t later_files; /* file pages that the kernel takes once the first list is short */
} reclaimable;

/* From the content as it was last read (limits_read_content). Async-signal-safe. */
reclaimable reclaimable_of(const limits_cgroup *c);

#endif
