/* The list of an arena's lost ranges. */
#ifndef VRANGE_ARENA_LOST_H
#define VRANGE_ARENA_LOST_H

#include "ranges/arena_state.h"
#include "ranges/range_state.h"

void arena_list_lost(range *r);
void arena_unlist_lost(range *r); /* needs the arena's lock */

#endif
