/* The spans of address space that an arena is made of. All functions need the arena's lock. */
#ifndef VRANGE_ARENA_SPAN_H
#define VRANGE_ARENA_SPAN_H

#include "base/space_budget.h"
#include "ranges/arena_state.h"

#define NO_SPAN UINT32_MAX

/* How many pages the next span should have, so that a range of `pages` fits; 0 if there can be none. */
uint32_t span_next_pages(const vrange_arena *arena, uint32_t pages);

/* Reserves one more span. Returns its number, or NO_SPAN. */
uint32_t span_open(vrange_arena *arena, uint32_t pages);
void span_close(vrange_arena *arena, uint32_t number);
/* Returns what lies above the first `pages`, which no range has. */
void span_shorten(vrange_arena *arena, uint32_t number, uint32_t pages);

/* Makes a span accessible up to a page. Returns 0, or the error of committing memory or of registering it. */
int span_commit(arena_span *span, uint64_t page_after);

#endif
