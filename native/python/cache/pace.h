/* How uses age: ghosts remember them, and once values are lost a miniature chooses the pace. */
#ifndef VRANGE_CACHE_PACE_H
#define VRANGE_CACHE_PACE_H

#include "python/cache/core.h"

/* Called once, with the arena. */
void pace_open(cache_core *self, bool ages_alone);

/* A value was stored. In a large cache, simulating costs nothing: it begins before a value is lost. */
void pace_grow(cache_core *self);

/* Leaves a ghost of a key that is about to go. */
void pace_remember(cache_core *self, key_hash hash, uint32_t uses, bool purged);

/* The uses that the key's ghost remembers, as they have aged. */
uint32_t pace_remembered_uses(const cache_core *self, key_hash hash);

/* Gives the miniature back. The cache is closed. */
void pace_end(cache_core *self);

/* How the uses of this cache age now. */
const mini_aging *pace_aging(const cache_core *self);

void pace_simulate(cache_core *self, const entry *e, uint32_t times);

/* Whether uses count for little, because requests move on. */
static inline bool pace_is_fast(const cache_core *self) { return pace_aging(self)->pace <= VRANGE_PACE_FAST; }

/* Notes requests for a value. Runs no Python. */
static inline void pace_note(cache_core *self, const entry *e, uint32_t times) {
    if (self->miniature && miniature_samples(self->miniature, e->hash ^ self->salt))
        pace_simulate(self, e, times);
}

#endif
