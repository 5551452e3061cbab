/* Offers ranges to the kernel, and discards offered ranges before the kernel takes them. */
#ifndef VRANGE_RANGE_OFFER_H
#define VRANGE_RANGE_OFFER_H

#include "ranges/range_state.h"

/* For the reserve. range_offer_begin makes an idle range BUSY, or returns false. range_offer_end makes it
 * offered, or idle again if the kernel refused. */
bool range_offer_begin(range *r, uint64_t generation);
void range_offer_end(range *r, bool offered);

/* Offers one idle range in the caller's thread; on the eager rung, discards it. */
void range_offer_now(range *r, uint64_t generation);

/* For the reserve, once at load time: sets what is called when a large range is released. It is called
 * outside the gate and without a BUSY range. It may offer the range at once, and then returns true. */
void range_register_outsized(bool (*offer)(range *r, uint64_t generation));
bool range_offer_outsized(range *r, uint64_t generation);

/* Whether the first page of an offered range is missing. A hint: the range may be in use again. */
bool range_seems_taken(range *r);

/* Checks whether an offered range lost pages. If so, discards the rest, lists the range as lost, and returns
 * true. A partial range stays offered; true then means that more of its pages are missing than before. */
bool range_collect(range *r, uint64_t generation);

/* Makes an offered range idle again, so that the kernel leaves its pages alone. If the kernel has taken some of
 * them, the range is listed as lost. Returns false if it is not offered, or is partial: that stays offered. */
bool range_take_back(range *r, uint64_t generation);

/* Purges an offered range as the kernel is about to. range_take_begin makes it BUSY, or returns false if it
 * is no longer offered. range_take_end then lists it as lost, after emptying it unless `is_empty`. */
bool range_take_begin(range *r, uint64_t generation);
void range_take_end(range *r, bool is_empty);

/* Discards a volatile range because vrange decided so, not the kernel, and lists it as lost. Returns false
 * if the range is not volatile, or is purged already. */
bool range_shed(range *r, uint64_t generation);

/* Discards all offered ranges, because their losses can no longer be detected. */
void ranges_shed_offered(void);

#endif
