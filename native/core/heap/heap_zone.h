/* A zone of the heap: one reserved span of address space, cut into blocks of whole units.
 *
 * Only the files of the heap use it. Callers hold `lock`, except where a function needs none because the
 * caller owns the block. */
#ifndef VRANGE_HEAP_ZONE_H
#define VRANGE_HEAP_ZONE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "heap/heap_zone_state.h"

/* Returns 0 or -ENOMEM. */
int zone_open(heap_zone *zone, size_t bytes, size_t unit_bytes, bool huge);

static inline bool zone_has(heap_zone *zone, const void *pointer) {
    const char *base = atomic_load_explicit(&zone->base, memory_order_acquire);
    return base && (const char *)pointer >= base &&
           (size_t)((const char *)pointer - base) < (size_t)zone->reach * zone->unit_bytes;
}

static inline size_t zone_offered_bytes(const heap_zone *zone) {
    return (size_t)(zone->fresh - 1 - zone->used_units - zone->queues[HEAP_IDLE].units) * zone->unit_bytes;
}

static inline size_t zone_idle_bytes(const heap_zone *zone) {
    return (size_t)zone->queues[HEAP_IDLE].units * zone->unit_bytes;
}

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

/* The processor's caches may hold the lower end of this free span: a block of about its size is cut there. */
void zone_note_warm(heap_zone *zone, uint32_t span);

/* The free memory at the end of the zone counts as never used. The caller returns its address space. */
void zone_forget_last(heap_zone *zone);

/* Gives a block back that was set aside. Returns the first unit of the free span that it is part of now. */
uint32_t zone_give(heap_zone *zone, uint32_t first, uint64_t now_ns);

/* Returns a part, at most `most_bytes`, of the free span that has been idle longest. It counts as offered, or
 * no longer, from `offered_ns` on: the caller offers it before it releases the lock; 0: the caller discards it.
 * Returns NULL if nothing was freed before `before_ns`. */
void *zone_idle_part(heap_zone *zone, uint64_t before_ns, uint64_t offered_ns, size_t most_bytes, size_t *bytes,
                     uint64_t *freed_ns);

/* Returns a part, at most `most_bytes`, of what has been offered longest, which the caller discards before it
 * releases the lock. Returns NULL if nothing was offered before `before_ns`; then *offered_ns says when what
 * has been offered longest was, UINT64_MAX if nothing is. */
void *zone_offered_part(heap_zone *zone, uint64_t before_ns, size_t most_bytes, size_t *bytes,
                        uint64_t *offered_ns);

/* Returns the first part of a free span at or above unit `*from` that was ever used, at most `most_bytes`. Sets
 * *from to the unit behind the part. With `discards` the part no longer counts as idle: the caller discards it
 * before it releases the lock. */
void *zone_free_part(heap_zone *zone, uint32_t *from, size_t most_bytes, size_t *bytes, bool discards);

#endif
