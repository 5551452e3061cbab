/* Eviction: of one entry, of what was lost or has expired, and of the least valuable. */
#ifndef VRANGE_CACHE_EVICT_H
#define VRANGE_CACHE_EVICT_H

#include "python/cache/core.h"
#include "python/cache/listener.h"

/* Puts the entry into limbo and frees its place. A computation under way is called off. */
void evict_entry(cache_core *self, entry_no number, leave_cause cause);

/* The entry's range, or its whole slab, was found lost. */
void evict_lost_place(cache_core *self, entry_no number);
void evict_lost_slab(cache_core *self, slab *gone);

/* In the child of a fork, removes what stayed in the parent, before anything could tell the listener of it.
 * Later calls do nothing. */
void evict_left_behind(cache_core *self);

/* Removes all entries that were found lost or have expired, in steps between which other threads run.
 * `purged`: the kernel took them. May run Python. */
void evict_sweep_all(cache_core *self, bool purged);

/* Keeps entries and bytes below their bounds, without evicting the entry just stored. May run Python. */
void evict_to_bounds(cache_core *self, entry_no kept, uint32_t stamp);

/* Evicts so that `bytes` may fit. False: nothing is left to evict. May run Python. */
bool evict_make_room(cache_core *self, size_t bytes);

#endif
