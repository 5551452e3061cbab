/* What is idle gives way before the heap becomes larger than it ever was. */
#ifndef VRANGE_HEAP_PEAK_H
#define VRANGE_HEAP_PEAK_H

#include <stdbool.h>

#include "heap/heap_zone.h"

/* Whether more pages of a zone are in use, or may be, than ever before. Under its lock. */
bool heap_exceeds_peak(const heap_zone *zone);

/* Discards what is idle until the zone does not exceed its peak, or raises the peak. Call without a lock. */
void heap_keep_peak(heap_zone *zone);

#endif
