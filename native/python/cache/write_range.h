/* Write: the content of a large value goes into a range of its own. */
#ifndef VRANGE_CACHE_WRITE_RANGE_H
#define VRANGE_CACHE_WRITE_RANGE_H

#include "python/cache/core.h"
#include "python/cache/form.h"

/* How a store, or a step of one, ended. STORE_FAILED with an error set. */
enum {
    STORE_FAILED = -1,
    STORE_DONE,
    STORE_REFUSED,
};

/* Writes the value into a new range, which is pinned. Evicts others if that makes room. STORE_REFUSED: there
 * is no room all the same. May run Python. */
int write_range(cache_core *self, const coded *c, key_hash hash, uint64_t cost_ns, uint64_t *handle);

#endif
