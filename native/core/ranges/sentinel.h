/* Finding lost pages without userfaultfd.
 *
 * A page that the kernel took comes back as zeros, and zeros may be content. So before a range is
 * offered, the first word of each page is kept aside and replaced by one that is not zero; to pin,
 * each is exchanged for itself, which at once dirties the page (so that it can't be taken any more)
 * and tells whether it had been taken before. Only then do the real words return. */
#ifndef VRANGE_SENTINEL_H
#define VRANGE_SENTINEL_H

#include "ranges/range_state.h"

/* False without memory for the words: the range can't be offered. */
bool sentinel_place(range *r);

/* True: the page is there and the kernel can't take it now. To be asked of every page before
 * sentinel_remove puts the words of those that are there back. */
bool sentinel_secures(range *r, uint32_t page);
void sentinel_remove(range *r);

#endif
