/* What is offered to the kernel: offering, seeing what the kernel took, and discarding ahead of it. All of it
 * is called inside the gate, by the thread that has the reserve's turn. */
#ifndef VRANGE_OFFER_H
#define VRANGE_OFFER_H

#include <stdbool.h>
#include <stdint.h>

#include "ranges/range_state.h"
#include "reserve/victims.h"

/* Finds offered ranges of which the kernel took pages, and discards the rest of each. Returns their bytes, and
 * in *goes_on whether there may be more of them. */
uint64_t offer_collect_losses(bool *goes_on);

/* About how many of the offered bytes the kernel has taken, and offer_collect_losses has not found yet. */
uint64_t offer_estimate_taken(void);

/* Near the limit, discards the oldest offered ranges while the process allocates memory, so that it finds
 * free memory (demand.c). */
void offer_give_ahead(uint64_t free_bytes, uint64_t reserve_bytes);

/* Takes back what is offered and the kernel has not taken. Returns whether more has to be done at once. */
bool offer_take_back(void);

/* Offers victims until `wanted` bytes are offered, besides the `taken` ones. In a burst the victims are ranked
 * again if they run out. Returns whether more has to be done at once. */
bool offer_top_up(victims *v, uint64_t wanted, uint64_t taken, bool is_burst);

/* Offers at least `bytes` more, if so much is idle. Returns how many were offered. */
uint64_t offer_more(victims *v, uint64_t bytes);

/* False on the eager rung, and if the kernel refused the last offer, as it does for locked memory (mlockall).
 * The kernel is asked again after a second. Any thread may ask. */
bool offer_is_possible(void);

/* Offers one idle range. */
void offer_range(range *r, uint64_t generation);

/* How many ranges were offered, and how many of them were lost. Any thread may ask. */
uint64_t offer_offers(void);
uint64_t offer_losses(void);

/* In the child of a fork: the offered ranges are the parent's. */
void offer_forget(void);

/* In a child that was made without fork handlers, if another thread was changing the queue. */
void offer_forget_memory(void);

#endif
