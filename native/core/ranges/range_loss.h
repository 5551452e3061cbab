/* What becomes of ranges that lost pages to the kernel. All of it on BUSY ranges of the caller. */
#ifndef VRANGE_RANGE_LOSS_H
#define VRANGE_RANGE_LOSS_H

#include "ranges/range_state.h"

/* Makes an offered range's pages safe from the kernel. VRANGE_PURGED: at least one was lost. */
int range_secure(range *r);

/* Of a range with a lost page: secures page by page what is there, and tells how much was not.
 * False: without memory for that, all of it is lost. */
bool range_secure_page_by_page(range *r, uint64_t word, uint64_t *lost_bytes);

/* BUSY to PURGED: what is left of the content is dead weight. */
void range_discard_rest(range *r, uint64_t word);

/* The same of a range that was emptied already. */
void range_be_purged(range *r, uint64_t word);

/* Whoever looks next finds zeros, or nothing. */
void range_empty(range *r);

size_t range_resident_bytes(range *r);

/* An offered range, BUSY now, is about to be something else: out of the books of what is offered. */
void range_count_offer_over(range *r);

#endif
