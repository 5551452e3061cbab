#ifndef VRANGE_ARENA_H
#define VRANGE_ARENA_H

#include <stdint.h>

#include "ranges/arena_state.h"
#include "ranges/range_state.h"

/* A descriptor in state BUSY over memory that nobody else touches, its pages missing (refault) or
 * zero. 0, or -ENOMEM. */
int arena_take(vrange_arena *arena, uint32_t pages, range **out);

/* The range is BUSY and its pages are discarded: its place can be used again. The last range of a
 * closing arena takes the arena with it. */
void arena_give(range *r);

/* Requests were answered: once an epoch, what is known of uses is halved. */
void arena_count_requests(vrange_arena *arena, uint32_t count);

/* Around vrange_arena_close: no range is added any more. With the last range
 * the arena goes. */
void arena_begin_closing(vrange_arena *arena);
void arena_end_closing(vrange_arena *arena);

void arena_list_lost(range *r);
void arena_unlist_lost(range *r);

/* Before fork: names all arenas to inherit.h. */
void arenas_before_fork(void);

/* In the child of a fork, if that settled: all that was not kept counts as purged. */
void arenas_after_fork(void);

/* In the child of a fork: registers every arena with the new descriptor. */
int arenas_register_again(int userfault);

#endif
