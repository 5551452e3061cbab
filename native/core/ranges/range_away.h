/* Ranges that are away: in the child of a fork, with the owner that has their content. */
#ifndef VRANGE_RANGE_AWAY_H
#define VRANGE_RANGE_AWAY_H

#include <stdbool.h>
#include <stdint.h>

#include "ranges/arena_state.h"
#include "ranges/range_state.h"

/* In the child of a fork: an inherited range was released. If its owner still has the content, drops the pages,
 * and the range is away. While both have them, the kernel can't take them from either. */
void range_leave(range *r, uint64_t generation);

/* Lists ranges of the arena that are away as lost, about `bytes` of them. Returns how many bytes they have.
 * Inside the gate. */
uint64_t arena_give_up(struct vrange_arena *arena, uint64_t bytes);

#endif
