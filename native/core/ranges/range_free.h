#ifndef VRANGE_RANGE_FREE_H
#define VRANGE_RANGE_FREE_H

#include "ranges/range_state.h"

/* BUSY, out of every account but the totals: the memory goes, and the place with it. */
void range_finish_free(range *r, bool has_pages);

/* Frees a range if it is this arena's, or dooms it while it is pinned. */
void range_abandon(range *r, struct vrange_arena *arena);

#endif
