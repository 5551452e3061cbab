/* What glibc keeps of small blocks that were freed, where large blocks need memory. */
#ifndef VRANGE_SMALL_BLOCKS_H
#define VRANGE_SMALL_BLOCKS_H

#include <stdbool.h>
#include <stdint.h>

/* `left` bytes are left below the limits. Near one, makes glibc return what it keeps if large blocks have
 * become more. Call without a lock. It waits for locks of glibc, so not in a signal handler. */
void small_blocks_return(uint64_t left);

/* For the caretaker: whether large blocks have become more since its last call. */
bool small_blocks_may_lack(void);

/* In the child of a fork. */
void small_blocks_after_fork(void);

#endif
