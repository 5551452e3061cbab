/* Idle memory gives way before the process becomes larger than it ever was, as far as the heap knows. */
#ifndef VRANGE_HEAP_PEAK_H
#define VRANGE_HEAP_PEAK_H

#include <stdbool.h>

#include "heap/heap_zone.h"

/* A block of `units` was taken. Returns whether it makes the zone larger than it ever was and something idle
 * should give way; if it only makes it larger, notes the peak. Under the zone's lock. */
bool heap_note_peak(heap_zone *zone, uint32_t units);

/* Discards what is idle until the zone does not exceed its peak, or raises the peak, for a block that was taken
 * or for other memory (`block_bytes` 0). Call without a lock. */
void heap_keep_peak(heap_zone *zone, size_t block_bytes);

/* Tells the heap how many bytes the process uses elsewhere. Idle memory gives way if they grow. */
void heap_note_elsewhere(uint64_t bytes);

#endif
