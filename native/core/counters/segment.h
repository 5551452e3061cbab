/* The segment of this process; segment_layout.h defines what is in it. */
#ifndef VRANGE_SEGMENT_H
#define VRANGE_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>

#include "counters/segment_layout.h"
#include "counters/segment_slots.h"

/* NULL until the first count. From then on it stays at its address, in the child of a fork too. */
extern segment_header *_Atomic segment_here;

/* Makes the segment if there is none. NULL only without memory for it. Async-signal-safe once it is made. */
segment_header *segment_make(void);

/* The path of the file, or NULL: no segment was made yet, or it is in memory only. */
const char *segment_path(void);

segment_histogram *segment_shard(segment_header *segment, uint32_t shard);

/* Puts memory behind a part. If the file had no room, the first touch would raise SIGBUS. */
bool segment_back(segment_header *segment, void *part, size_t bytes);

/* In the child of a fork, for accounts_after_fork: a segment of its own at the same address, with the gauges
 * and without the counts. */
void segment_after_fork(void);

#endif
