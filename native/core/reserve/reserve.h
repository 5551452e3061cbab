#ifndef VRANGE_RESERVE_H
#define VRANGE_RESERVE_H

#include <stdbool.h>

#include "ranges/range.h"

/* In the child of a fork where all volatile ranges are purged: the queue and the ranking are of the
 * parent's ranges, and looking them up would read, and so copy, their words. */
void reserve_after_fork(void);

/* Whether a range of so many bytes is too much to be left idle now: where little is free, the thread could
 * be late with it by all that it frees. */
bool reserve_is_outsized(uint64_t bytes);

/* Offers one such range now, in its turn among the offered. Neither inside the gate nor with a range BUSY. */
void reserve_offer_outsized(range *r, uint64_t generation);

#endif
