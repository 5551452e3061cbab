/* Of a free span one stretch may be idle, and one may be offered. The rest has no memory.
 *
 * Each kind has a queue, oldest first. Joining two spans joins their stretches too, and the older stretch's
 * time counts for both. With the newer time, a block that is used again and again beside a large free span
 * would keep that span from ever being offered, or discarded. The two stretches of a span may overlap.
 * Callers hold the zone's lock. */
#ifndef VRANGE_HEAP_STRETCH_H
#define VRANGE_HEAP_STRETCH_H

#include <stdbool.h>
#include <stdint.h>

#include "heap/heap_zone_state.h"

static inline bool stretch_is_empty(const heap_stretch *one) { return one->from >= one->end; }

/* The stretch of a span becomes longer, and keeps its time, or begins now as the last of its queue. */
void stretch_extend(heap_zone *zone, int kind, uint32_t span, uint32_t from, uint32_t end, uint64_t now_ns);

/* Nothing outside of [from, end) is of that kind any more. */
void stretch_shorten(heap_zone *zone, int kind, uint32_t span, uint32_t from, uint32_t end);

/* Takes [from, end) off one end of the stretch. If it lies in the middle, nothing changes. */
void stretch_take_off(heap_zone *zone, int kind, uint32_t span, uint32_t from, uint32_t end);

/* Gives the stretch to another span; it keeps its time and its place in the queue. */
void stretch_move(heap_zone *zone, int kind, uint32_t from, uint32_t to);

/* The stretches of both spans, and what lies between them, become the stretch of `to`, one of the two. */
void stretch_join(heap_zone *zone, int kind, uint32_t below, uint32_t above, uint32_t to);

/* Takes at most `most_units` off the lower end of the oldest stretch. Returns its span, and 0 if none has been
 * of this kind since before `before_ns`. */
uint32_t stretch_take_oldest(heap_zone *zone, int kind, uint64_t before_ns, uint32_t most_units, uint32_t *from,
                             uint32_t *units);

#endif
