/* Evicting the least valuable ranges at once. */
#ifndef VRANGE_SHED_H
#define VRANGE_SHED_H

#include <stdbool.h>
#include <stdint.h>

struct vrange_arena;

/* Evicts the least valuable unpinned ranges of one arena, or (NULL) of all, until `bytes` of them are gone.
 * Returns the bytes that went. `waits`: for BUSY ranges, which may take as long as a large store. Called
 * inside the gate. */
uint64_t shed_least(struct vrange_arena *arena, uint64_t bytes, bool waits);

#endif
