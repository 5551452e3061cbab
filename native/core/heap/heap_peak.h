/* What is idle gives way before the heap becomes larger than it ever was. */
#ifndef VRANGE_HEAP_PEAK_H
#define VRANGE_HEAP_PEAK_H

#include <stdbool.h>

#include "heap/heap_zone.h"

/* Whether with a block of `units` more pages of a zone are in use, or may be, than ever before, and something else
 * should give way. If not, the peak has risen. Under the zone's lock. */
bool heap_exceeds_peak(heap_zone *zone, uint32_t units);

/* Discards what is idle until the zone does not exceed its peak, or raises the peak. Call without a lock. */
void heap_keep_peak(heap_zone *zone);

#endif
