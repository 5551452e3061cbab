/* Handles ranges that lost pages to the kernel. The caller has the range BUSY; for range_resident_bytes it
 * may have it pinned instead. */
#ifndef VRANGE_RANGE_LOSS_H
#define VRANGE_RANGE_LOSS_H

#include "ranges/range_state.h"

/* Secures the pages of an offered range from the kernel. VRANGE_PURGED: at least one was lost. */
int range_secure(range *r);

/* For a range with a lost page: secures the pages that are present, one by one, and sets *lost_bytes to the
 * size of the others, which read as zeros from then on. Returns false if that fails (without memory, for
 * example): then the whole range is lost. */
bool range_secure_page_by_page(range *r, uint64_t word, uint64_t *lost_bytes);

/* BUSY to PURGED: discards what is left of the content, as it is of no use any more. */
void range_discard_rest(range *r, uint64_t word);

/* The same, and lists the range as lost, for its owner to find. */
void range_lose(range *r, uint64_t word);

/* The same for a range that is empty already. */
void range_lose_empty(range *r, uint64_t word);

/* Empties the pages: the next reader finds zeros, or no page. */
void range_empty(range *r);
void pages_empty(char *address, size_t bytes);

size_t range_resident_bytes(range *r);

/* Removes a range from the counts of offered bytes. It was offered, is BUSY, and is about to change state. */
void range_count_offer_over(range *r);

#endif
