/* Offering ranges to the kernel, and taking back ahead of it. */
#ifndef VRANGE_RANGE_OFFER_H
#define VRANGE_RANGE_OFFER_H

#include "ranges/range_state.h"

/* For the reserve. range_offer_begin takes an idle range (BUSY); range_offer_end makes
 * it offered, or idle again where the kernel refused. */
bool range_offer_begin(range *r, uint64_t generation);
void range_offer_end(range *r, bool offered);

/* Offers one idle range on the caller's thread, or discards it on the eager rung. */
void range_offer_now(range *r, uint64_t generation);

/* For the reserve, once at load time: what is asked at the release of a large range, neither inside the gate nor
 * with a range BUSY. It may offer the range at once, and then returns true. */
void range_register_outsized(bool (*offer)(range *r, uint64_t generation));
bool range_offer_outsized(range *r, uint64_t generation);

/* Looks whether an offered range lost something, and if so discards the rest and lists it.
 * True: it did. */
bool range_collect(range *r, uint64_t generation);

/* Takes an offered range as the kernel is about to: BUSY. False: it is not offered any more. After that
 * range_take_end lists it, and empties it where the caller has not. */
bool range_take_begin(range *r, uint64_t generation);
void range_take_end(range *r, bool is_empty);

/* Discards a volatile range by the runtime's own decision and lists it. False: not volatile. */
bool range_shed(range *r, uint64_t generation);

/* Discards all that is offered: what is lost of it can't be told any more. */
void ranges_shed_offered(void);

#endif
