/* Choosing the least valuable ranges. */
#ifndef VRANGE_RANK_H
#define VRANGE_RANK_H

#include <stddef.h>
#include <stdint.h>

#include "ranges/range_table.h"

#define RANKED_MOST 65536u /* ranges in a ranking */

typedef struct {
    uint32_t index;
    float value;
    uint64_t generation;
    uint64_t released_ns;
    uint64_t order; /* among equals */
} candidate;

typedef struct {
    candidate *items; /* the least valuable first; among equals, the one released longest ago (aging.h) */
    size_t count;
    size_t capacity;
} ranking;

/* What a ranking has besides idle ranges. */
enum {
    RANK_OFFERED = 1,
    RANK_SHARED = 2, /* with another process: discarding them frees no memory, but the address space */
};

/* Ranks enough unpinned ranges to cover `bytes`, from one arena or (NULL) from all. Ranks fewer if there is no
 * memory. Inside the gate. */
void rank_least(ranking *out, struct vrange_arena *arena, unsigned which, uint64_t bytes);

/* The idle bytes that can be offered: without those that were shared at the last ranking of what is idle. */
uint64_t rank_offerable_bytes(void);

/* In the child of a fork, which shares other ranges than its parent. */
void rank_forget(void);

/* Returns the memory of a ranking. */
void rank_end(ranking *ranked);

#endif
