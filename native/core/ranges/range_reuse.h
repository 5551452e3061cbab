/* Reuse: near the limit, a new range takes over the pages of an idle one.
 *
 * New pages would make the kernel reclaim as many elsewhere: a store of 256 KiB then costs 137 µs on 6.18, and
 * 36 µs if it writes over the pages of a range that is worth less. As little is lost either way. */
#ifndef VRANGE_RANGE_REUSE_H
#define VRANGE_RANGE_REUSE_H

#include "ranges/range_state.h"

/* For the reserve, once at load time: sets what looks for an idle range that is worth no more than `worth`
 * (worth.h), and calls range_take_over with it. It is called inside the gate, and returns false if new pages
 * are better. */
void range_register_reuse(bool (*find)(range *fresh, float worth));

/* Gives a new range, which is BUSY and has no pages, those of an idle range that is worth no more. Returns
 * false if new pages are better. Otherwise every page of the new range is present, with content of the idle
 * range. */
bool range_reuse(range *fresh, float worth);

/* Exchanges the places of the two ranges. The idle one is purged then, as if the kernel had taken it, and
 * listed as lost. Returns false if it is not idle, not of the same arena and size, or must not be lost. Only a
 * range with an owner (vrange_set_owner) may be lost: its owner reads the list, and does not rely on its
 * address. */
bool range_take_over(range *fresh, range *idle, uint64_t generation);

#endif
