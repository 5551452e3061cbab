/* A zone of the heap: one reserved span of address space, cut into blocks of whole units.
 *
 * Only the files of the heap use it. Callers hold `lock`, except where a function needs none because the
 * caller owns the block. */
#ifndef VRANGE_HEAP_ZONE_H
#define VRANGE_HEAP_ZONE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/size_class.h"
#include "heap/heap_cells.h"

typedef struct {
    uint32_t units; /* of the span that begins here; 0: no span begins here */
    uint32_t first; /* the first unit of the span that ends here */
    bool used;
    _Atomic bool aside; /* used, but freed: it waits outside the zone to be used again */
    cell_loan loan;     /* of a used block; heap_cells.h. Its owner's, under no lock */
    uint32_t idle_from, idle_end; /* of a free span; if equal, nothing of it is idle */
    uint32_t list_previous, list_next, idle_previous, idle_next;
    uint64_t freed_ns;
} heap_tag;

typedef struct {
    pthread_mutex_t lock;
    _Atomic uint32_t waiting; /* threads that wait for the lock; long work lets them in between its steps */
    char *_Atomic base; /* NULL: no address space could be reserved, and the zone owns no block */
    size_t unit_bytes;
    uint32_t units, committed_units;
    _Atomic uint32_t reach; /* blocks lie below this unit: all of them, until zone_stop_growing */
    bool huge;
    heap_tag *tags; /* one a unit; only the tags at the ends of spans are ever written to */

    uint32_t free_lists[FIRST_LEVELS][SECOND_LEVELS];
    uint64_t first_bitmap;
    uint16_t second_bitmaps[FIRST_LEVELS];
    uint32_t idle_first, idle_last; /* free spans that are not wholly offered, oldest first */

    uint32_t fresh;  /* no unit from here on was ever handed out: they read as zeros */
    uint32_t blocks;
    uint64_t used_units, idle_units; /* units below `fresh` that are neither used nor idle are offered */
} heap_zone;

/* Returns 0 or -ENOMEM. */
int zone_open(heap_zone *zone, size_t bytes, size_t unit_bytes, bool huge);

static inline bool zone_has(heap_zone *zone, const void *pointer) {
    const char *base = atomic_load_explicit(&zone->base, memory_order_acquire);
    return base && (const char *)pointer >= base &&
           (size_t)((const char *)pointer - base) < (size_t)zone->reach * zone->unit_bytes;
}

static inline size_t zone_offered_bytes(const heap_zone *zone) {
    return (size_t)(zone->fresh - 1 - zone->used_units - zone->idle_units) * zone->unit_bytes;
}

static inline size_t zone_idle_bytes(const heap_zone *zone) {
    return (size_t)zone->idle_units * zone->unit_bytes;
}

/* From now on the zone has no memory but what it has used already. */
void zone_stop_growing(heap_zone *zone);
/* Returns the address space that the zone does not need any more. Call once. */
void zone_return_rest(heap_zone *zone);

/* Returns a block of `units`, or NULL if no place is large enough. Its first `stale_units` may hold old
 * content; the rest reads as zeros. */
void *zone_take(heap_zone *zone, uint32_t units, uint32_t *stale_units);

/* Returns the units of the block at `pointer`, or 0 if no block begins there or it was freed. Needs no lock. */
uint32_t zone_block_units(heap_zone *zone, const void *pointer);

/* Marks a block as freed, which stays where it is until zone_use_again or zone_give. Returns its units; 0 if no
 * block begins there, or if it was freed already. The loan is the caller's to repay. Need no lock. */
uint32_t zone_set_aside(heap_zone *zone, const void *pointer, cell_loan *loan);
void *zone_use_again(heap_zone *zone, uint32_t first, cell_loan loan);
uint32_t zone_unit_of(heap_zone *zone, const void *pointer);

/* Grows or shrinks a block without moving it. Returns false if there is no room above it. */
bool zone_resize(heap_zone *zone, void *pointer, uint32_t units);

/* Gives a block back that was set aside. */
void zone_give(heap_zone *zone, uint32_t first, uint64_t now_ns);

/* Returns a part, at most `most_bytes`, of the free span that has been idle longest, and no longer counts
 * it as idle: the caller offers it before it releases the lock. Returns NULL if nothing was freed before
 * `before_ns`. */
void *zone_idle_part(heap_zone *zone, uint64_t before_ns, size_t most_bytes, size_t *bytes,
                     uint64_t *freed_ns);

/* Returns the first part of a free span at or above unit `*from` that was ever used, at most `most_bytes`. Sets
 * *from to the unit behind the part. With `discards` the part no longer counts as idle: the caller discards it
 * before it releases the lock. */
void *zone_free_part(heap_zone *zone, uint32_t *from, size_t most_bytes, size_t *bytes, bool discards);

#endif
