/* The address space that vrange reserves: one budget for the whole process, and one count.
 *
 * Reserving costs no memory, but it can be what a program then lacks. The address space is limited by RLIMIT_AS
 * and RLIMIT_DATA, and by the processor: ten thousand caches can't have twice the machine's memory each. So
 * every room of vrange that reserves for its own use asks here, and takes what it gets. */
#ifndef VRANGE_SPACE_BUDGET_H
#define VRANGE_SPACE_BUDGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "exported.h"

/* Of reserved address space, so much is made usable at once. mlockall makes all that is usable resident. */
#define COMMIT_STEP_BYTES ((size_t)8 << 20)

typedef enum {
    /* Not even a value that is in use could be kept, or a recursion go deeper, without it: tables, buffers,
     * deep stacks of automatic size. The whole budget. */
    SPACE_NEEDED,
    /* A cache or the heap begins. Three quarters of the budget, so that these leave some to the former. */
    SPACE_FIRST,
    /* It grows, and gets by without it: five eighths of the budget, so that others can still begin. */
    SPACE_MORE,
    /* The program asked for exactly this (an arena of a size, a volatile array): only the kernel refuses. */
    SPACE_ASKED,
} space_use;

/* What may be reserved for vrange's own use altogether. */
uint64_t space_budget(void) EXPORTED(space_budget);

/* The most bytes that may be reserved now for this use, as a hint: other threads reserve meanwhile. */
uint64_t space_most(space_use use);

/* The most bytes that could be reserved as SPACE_NEEDED instead of `bytes` that are: less than those if a limit
 * was set since. `passing` bytes of the process count as free. Async-signal-safe. */
uint64_t space_most_instead(size_t bytes, uint64_t passing);

/* Reserves inaccessible address space, at a multiple of `alignment` (0: of a page). NULL if the budget is
 * used up, or the kernel refuses. Returning needs the same bytes and use. */
void *space_reserve(size_t bytes, size_t alignment, space_use use);
void space_return(void *address, size_t bytes, space_use use);

/* Counts what its user maps itself. False if the budget is used up. */
bool space_take(size_t bytes, space_use use);
void space_give(size_t bytes, space_use use);

#endif
