/* Ranges that were pinned at a fork: parent and child have the same pages, until one of them writes or ends.
 *
 * The kernel does not take such a page: MADV_FREE makes it clean in one process only. Discarding it frees no
 * memory either, and on the sentinel rung offering it would write to it, which makes a copy. So the reserve
 * leaves these ranges alone, for as long as the page tables show another owner. Otherwise it would count bytes
 * as offered that nobody can have, and the process would be killed with its reserve full. */
#ifndef VRANGE_RANGE_SHARED_H
#define VRANGE_RANGE_SHARED_H

#include "ranges/range_state.h"

/* Whether another process has pages of the range. `looks`: by a system call, and no longer by what the last
 * look found. Inside the gate. */
bool range_is_shared(range *r, bool looks);

#endif
