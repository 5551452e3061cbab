/* What an arena knows of its ranges as a whole: the list of those that were lost, and the epochs of their
 * uses. */
#ifndef VRANGE_ARENA_LOST_H
#define VRANGE_ARENA_LOST_H

#include "ranges/arena_state.h"
#include "ranges/range_state.h"

void arena_list_lost(range *r);
void arena_unlist_lost(range *r); /* needs the arena's lock */

/* Counts requests for the arena's ranges. Enough of them end the epoch (worth.h), and so all counts of uses are
 * halved. */
void arena_count_requests(vrange_arena *arena, uint32_t count);

#endif
