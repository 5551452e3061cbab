/* Limbo: what left a core's state, until its references are dropped and its ranges are freed. */
#ifndef VRANGE_CACHE_LIMBO_H
#define VRANGE_CACHE_LIMBO_H

#include "python/cache/core.h"

/* Subtracts a range's bytes and frees it, now or in limbo_drain. */
void limbo_free_range(cache_core *self, uint64_t handle, Py_ssize_t bytes);

/* Frees the place of a value that left. Returns the uses of a range. */
uint32_t limbo_free_place(cache_core *self, uint64_t place);

/* An entry whose range is gone leaves, and its key leaves a ghost; with a hot value it stays. `uses` are
 * those of the range. */
void limbo_lose(cache_core *self, entry_no number, uint32_t uses, bool purged);

/* Drops the references, and frees the ranges, of everything in limbo. Call it once the state is whole. May
 * run Python. Keeps an error that is set. */
void limbo_drain(cache_core *self);

#endif
