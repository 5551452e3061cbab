/* Finds lost pages without userfaultfd.
 *
 * A page that the kernel took reads as zeros afterwards, and zeros may be content. So before a range is
 * offered, the first word of each page is saved and replaced by the sentinel, which is not zero. A pin
 * exchanges each sentinel for itself. One exchange does two things: it dirties the page, so that the kernel
 * can't take it any more, and it shows whether the page had been taken before. Only then are the real words
 * restored. */
#ifndef VRANGE_SENTINEL_H
#define VRANGE_SENTINEL_H

#include "ranges/range_state.h"

#define SENTINEL 0x7672616e67652121ull /* any word without a zero byte serves: the word it replaces is saved */

/* Places the sentinels. Returns false if there is no memory to save the words: don't offer the range then. */
bool sentinel_place(range *r);

/* Returns true if the page is present; the kernel can't take it from then on. Call this for every page
 * before sentinel_remove, which restores the words of the pages that are present. */
bool sentinel_secures(range *r, uint32_t page);
void sentinel_remove(range *r);

/* The content goes: frees the saved words, if there are any. */
void sentinel_forget(range *r);

#endif
