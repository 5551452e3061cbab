/* What is idle gives way before the heap becomes larger than it ever was. */
#ifndef VRANGE_HEAP_PEAK_H
#define VRANGE_HEAP_PEAK_H

#include <stdbool.h>

#include "heap/heap_zone.h"

/* Whether a block of `units` makes the zone larger than it ever was, and something idle should give way. If
 * nothing should, the peak has risen. Under the zone's lock. */
bool heap_exceeds_peak(heap_zone *zone, uint32_t units);

/* Discards what is idle until the zone does not exceed its peak, or raises the peak. Call without a lock. */
void heap_keep_peak(heap_zone *zone);

#endif
