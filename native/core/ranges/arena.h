#ifndef VRANGE_ARENA_H
#define VRANGE_ARENA_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "ranges/range.h"
#include "base/size_class.h"
#include "counters/stats.h"

struct vrange_arena {
    char *base;
    uint32_t pages;
    uint32_t committed_pages; /* a prefix: the rest is still without access and not accounted for */
    vrange_account *account;
    pthread_mutex_t lock;
    struct vrange_arena *previous, *next; /* all arenas of the process */

    uint32_t free_lists[FIRST_LEVELS][SECOND_LEVELS];
    uint64_t first_bitmap;
    uint16_t second_bitmaps[FIRST_LEVELS];

    uint32_t lost_first, lost_last;
    _Atomic uint32_t lost_count; /* read without the lock, to see that there is nothing to do */
    /* In the child of a fork, where most was lost at once and is on no list: descriptors from one index
     * to another are still to be looked through. */
    uint32_t unlisted_next, unlisted_end;
    _Atomic uint32_t ranges;
    bool closing;

    _Atomic uint32_t epoch;
    _Atomic uint32_t epoch_requests;
};

/* A descriptor in state BUSY over memory that nobody else touches, its pages missing (refault) or
 * zero. 0, or -ENOMEM. */
int arena_take(vrange_arena *arena, uint32_t pages, range **out);

/* The range is BUSY and its pages are discarded: its place can be used again. The last range of a
 * closing arena takes the arena with it. */
void arena_give(range *r);

/* Requests were answered: once an epoch, what is known of uses is halved. */
void arena_count_requests(vrange_arena *arena, uint32_t count);

static inline bool arena_has_lost(const vrange_arena *arena) {
    return atomic_load_explicit(&arena->lost_count, memory_order_relaxed) > 0;
}

void arena_list_lost(range *r);
void arena_unlist_lost(range *r);

/* Before fork: names all arenas to inherit.h. */
void arenas_before_fork(void);

/* In the child of a fork, if that settled: all that was not kept counts as purged. */
void arenas_after_fork(void);

/* In the child of a fork: registers every arena with the new descriptor. */
int arenas_register_again(int userfault);

#endif
