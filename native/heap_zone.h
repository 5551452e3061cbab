/* A zone of the heap: one reserved span of address space, cut into blocks of whole units.
 *
 * Nobody but heap.c uses it, and whoever calls holds `lock`. */
#ifndef VRANGE_HEAP_ZONE_H
#define VRANGE_HEAP_ZONE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "size_class.h"

typedef struct heap_tag heap_tag;

typedef struct {
    pthread_mutex_t lock;
    _Atomic uint32_t waiting; /* threads that wait for the lock: steps of long work let them in */
    char *_Atomic base; /* NULL: no address space was to be had, and every block is somebody else's */
    size_t unit_bytes;
    uint32_t units, committed_units;
    bool huge;
    heap_tag *tags; /* one a unit; only those at the ends of spans are ever written to */

    uint32_t free_lists[FIRST_LEVELS][SECOND_LEVELS];
    uint64_t first_bitmap;
    uint16_t second_bitmaps[FIRST_LEVELS];
    uint32_t idle_first, idle_last; /* free spans of which the kernel has not been told all, oldest first */

    uint32_t fresh;  /* no unit from here on was ever given away: they read as zeros */
    uint32_t blocks;
    uint64_t used_units, idle_units; /* what is below `fresh` and neither is offered */
} heap_zone;

/* 0, or -ENOMEM. */
int zone_open(heap_zone *zone, size_t bytes, size_t unit_bytes, bool huge);

static inline bool zone_has(heap_zone *zone, const void *pointer) {
    const char *base = atomic_load_explicit(&zone->base, memory_order_acquire);
    return base && (const char *)pointer >= base &&
           (size_t)((const char *)pointer - base) < (size_t)zone->units * zone->unit_bytes;
}

static inline size_t zone_offered_bytes(const heap_zone *zone) {
    return (size_t)(zone->fresh - 1 - zone->used_units - zone->idle_units) * zone->unit_bytes;
}

static inline size_t zone_idle_bytes(const heap_zone *zone) {
    return (size_t)zone->idle_units * zone->unit_bytes;
}

/* A block of so many units, or NULL where no place is large enough. `stale_units` of it, from its
 * beginning on, may hold what was there before; the rest is zeros. */
void *zone_take(heap_zone *zone, uint32_t units, uint32_t *stale_units);

/* The units of the block at `pointer`; 0 where no block begins there. */
uint32_t zone_block_units(heap_zone *zone, const void *pointer);

/* Makes a block larger or smaller where it lies. False: there is no room above it. */
bool zone_resize(heap_zone *zone, void *pointer, uint32_t units);

void zone_give(heap_zone *zone, void *pointer, uint64_t now_ns);

/* A part of the free span that waits longest, `most_bytes` of it at most, taken off what is idle: the
 * caller tells the kernel before it lets go of the lock. NULL: nothing was freed before `before_ns`. */
void *zone_idle_part(heap_zone *zone, uint64_t before_ns, size_t most_bytes, size_t *bytes,
                     uint64_t *freed_ns);

/* The first part of a free span at or above unit `*from` that was ever used, `most_bytes` of it at most, no
 * longer idle: the caller gives it back before it lets go of the lock. *from is the unit behind it. */
void *zone_free_part(heap_zone *zone, uint32_t *from, size_t most_bytes, size_t *bytes);

#endif
