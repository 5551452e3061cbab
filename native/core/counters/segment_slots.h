/* Where the slots of a segment lie.
 *
 * They are numbered: first the SEGMENT_ACCOUNTS of a page each, then the SEGMENT_OVERFLOWS. */
#ifndef VRANGE_SEGMENT_SLOTS_H
#define VRANGE_SEGMENT_SLOTS_H

#include <stddef.h>

#include "counters/segment_layout.h"

typedef struct vrange_account segment_account;

#define SEGMENT_SLOTS (SEGMENT_ACCOUNTS + SEGMENT_OVERFLOWS)
#define SEGMENT_LATENCIES_AT (SEGMENT_PAGE * (1u + SEGMENT_ACCOUNTS))
#define SEGMENT_SHARD_BYTES (VRANGE_KINDS * VRANGE_LATENCIES * sizeof(segment_histogram))
#define SEGMENT_SHARD_STRIDE ((SEGMENT_SHARD_BYTES + SEGMENT_PAGE - 1) / SEGMENT_PAGE * SEGMENT_PAGE)
#define SEGMENT_OVERFLOW_AT (SEGMENT_LATENCIES_AT + SEGMENT_SHARDS * SEGMENT_SHARD_STRIDE)
#define SEGMENT_BYTES (SEGMENT_OVERFLOW_AT + SEGMENT_OVERFLOWS * SEGMENT_OVERFLOW_BYTES)

static inline bool segment_is_overflow(uint32_t slot) { return slot >= SEGMENT_ACCOUNTS; }
segment_account *segment_account_at(segment_header *segment, uint32_t slot);
uint32_t segment_slot_of(const segment_header *segment, const segment_account *account);

/* The name and the gauges, for the child of a fork. It counts from zero. */
void segment_copy_slot(segment_account *to, const segment_account *from);

#endif
