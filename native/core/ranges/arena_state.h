/* An arena, as the files of this room see it. */
#ifndef VRANGE_ARENA_STATE_H
#define VRANGE_ARENA_STATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/space_budget.h"
#include "base/size_class.h"
#include "counters/stats.h"
#include "ranges/aging.h"

#define SPANS_MOST 64

typedef struct {
    char *base;
    uint32_t pages;           /* 0: none */
    uint32_t committed_pages; /* a prefix: the rest is inaccessible and not committed yet */
    uint32_t lowest;          /* the range at its beginning */
    space_use use;
} arena_span;

struct vrange_arena {
    arena_span spans[SPANS_MOST]; /* ranges are joined within one */
    uint32_t span_count;
    uint64_t reserved_pages, most_pages;
    bool grows; /* by spans, as it is used */
    vrange_account *account;
    pthread_mutex_t lock;
    struct vrange_arena *previous, *next; /* all arenas of the process */

    uint32_t free_lists[FIRST_LEVELS][SECOND_LEVELS];
    uint64_t first_bitmap;
    uint16_t second_bitmaps[FIRST_LEVELS];

    uint32_t lost_first, lost_last;
    _Atomic uint32_t lost_count; /* read without the lock, to find quickly that there is nothing to do */
    /* In the child of a fork, most ranges are lost from the beginning and are on no list. The descriptors
     * from `unlisted_next` up to `unlisted_end` are still to be searched for them. */
    uint32_t unlisted_next, unlisted_end;
    uint32_t away_next;  /* the same for those that are away and are to be given up */
    uint32_t seen_over;  /* how many owners were over when the search began (owners.h) */
    _Atomic uint32_t ranges;
    bool closing;
    /* In a child that was made without fork handlers: a thread that exists only in the parent was changing the
     * lists. So nothing is taken from them or given to them, and the address space stays reserved. */
    bool torn;
    uint32_t walk, walk_span; /* closing: the next range to free, and the next span (arena_close.c) */

    _Atomic bool ages_alone; /* its ranges compete with each other only: its own clock counts */
    aging own_aging;
};

static inline aging *arena_aging(vrange_arena *arena) {
    const bool is_alone = atomic_load_explicit(&arena->ages_alone, memory_order_acquire);
    return is_alone ? &arena->own_aging : &aging_together;
}

static inline bool arena_has_lost(const vrange_arena *arena) {
    return atomic_load_explicit(&arena->lost_count, memory_order_relaxed) > 0;
}

#endif
