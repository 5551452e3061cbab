/* Takes ranges from an arena's address space, and returns them to it. */
#ifndef VRANGE_ARENA_H
#define VRANGE_ARENA_H

#include <stdint.h>

#include "ranges/arena_state.h"
#include "ranges/range_state.h"

/* Sets *out to a BUSY range over memory that no other thread uses. Its pages are missing (refault rung) or
 * zero. Returns 0; -ENOMEM if the arena is full or closing; or the error of committing memory or of
 * registering it with the userfaultfd. */
int arena_take(vrange_arena *arena, uint32_t pages, range **out);

/* Returns a range to its arena. The range is BUSY and its pages are discarded. When the last range of a
 * closing arena is returned, the arena is unmapped. */
void arena_give(range *r);

/* Returns the free ends of the spans of all arenas that grow, and their empty spans. Call inside the gate. */
void arenas_return_unused(void);

/* The end of closing (arena_close.c). The arena is unmapped when its last range has been returned. */
void arena_end_closing(vrange_arena *arena);

#endif
