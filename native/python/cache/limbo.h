/* Limbo: what left a core's state, until its references are dropped and its ranges are freed. */
#ifndef VRANGE_CACHE_LIMBO_H
#define VRANGE_CACHE_LIMBO_H

#include "python/cache/core.h"

/* Subtracts a range's bytes and frees it, now or in limbo_drain. */
void limbo_free_range(cache_core *self, uint64_t handle, Py_ssize_t bytes);

/* Frees the place of a value that left. Returns the uses of a range. */
uint32_t limbo_free_place(cache_core *self, uint64_t place);

typedef enum {
    LOST_PURGED,
    LOST_EVICTED,
    LOST_BY_OWNER, /* in the child of a fork: it was away, and its owner reports its loss */
} loss;

/* How the content of a range was lost that is found lost. */
static inline loss loss_of(uint64_t handle, bool purged) {
    return vrange_is_away(handle) ? LOST_BY_OWNER : purged ? LOST_PURGED
                                                           : LOST_EVICTED;
}

/* An entry whose range is gone leaves, and its key leaves a ghost; with a hot value it stays. `uses` are
 * those of the range. */
void limbo_lose(cache_core *self, entry_no number, uint32_t uses, loss how);

/* Drops the references, and frees the ranges, of everything in limbo. Call it once the state is whole. May
 * run Python. Keeps an error that is set. */
void limbo_drain(cache_core *self);

#endif
