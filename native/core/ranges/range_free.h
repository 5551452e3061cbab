/* Frees one range that the caller has BUSY. */
#ifndef VRANGE_RANGE_FREE_H
#define VRANGE_RANGE_FREE_H

#include "ranges/range_state.h"

/* Frees the memory and the descriptor of a range that is BUSY and is counted only in the totals. If
 * `has_pages`, its pages are discarded first. */
void range_finish_free(range *r, bool has_pages);

#endif
