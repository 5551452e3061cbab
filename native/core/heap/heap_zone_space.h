/* The address space of a zone. Callers hold the zone's lock. */
#ifndef VRANGE_HEAP_ZONE_SPACE_H
#define VRANGE_HEAP_ZONE_SPACE_H

#include <stddef.h>
#include <stdint.h>

#include "heap/heap_zone_state.h"

/* Chooses where a zone of `units` lies, and makes its first tags usable. Returns the base, or NULL. */
char *zone_place(heap_zone *zone);

/* Reserves address space up to unit `end`, and the tags for it; -ENOMEM if that is refused. */
int zone_reach(heap_zone *zone, uint32_t end);

/* Returns what is reserved above all that was used, because the program may need it (RLIMIT_AS). */
void zone_return_unused(heap_zone *zone);

static inline size_t zone_reserved_bytes(const heap_zone *zone) {
    return (size_t)atomic_load_explicit(&zone->reach, memory_order_relaxed) * zone->unit_bytes;
}

#endif
