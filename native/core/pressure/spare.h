/* How much memory can still be allocated; callable from anywhere. */
#ifndef VRANGE_SPARE_H
#define VRANGE_SPARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "exported.h"
#include "vrange.h"

/* Replaces what is known of the cgroups of this process. Not async-signal-safe. */
void spare_watch(const vrange_cgroup *cgroups, size_t count);

/* Bytes that can still be allocated before the tightest limit, minus a margin that callers should not use.
 * Negative if usage has reached into the margin. The limits are those of all cgroups, RLIMIT_AS,
 * RLIMIT_DATA, vm.overcommit_memory=2 and the machine. Exact only below `enough`. Async-signal-safe. */
int64_t spare_bytes(int64_t enough);

/* Whether the process has moved to a cgroup that is not watched; checks at most once a second. */
bool spare_is_stale(uint64_t now_ns) EXPORTED(spare_is_stale);

void spare_after_fork(void);

#endif
