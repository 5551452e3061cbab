/* See segment_slots.h. */
#include "counters/segment_slots.h"

#include <string.h>

_Static_assert(sizeof(segment_slot) <= SEGMENT_PAGE, "an account has one page");
_Static_assert(sizeof(segment_overflow) <= SEGMENT_OVERFLOW_BYTES, "an overflow slot has these bytes");

segment_account *segment_account_at(segment_header *segment, uint32_t slot) {
    const size_t at = segment_is_overflow(slot)
                          ? SEGMENT_OVERFLOW_AT + (size_t)(slot - SEGMENT_ACCOUNTS) * SEGMENT_OVERFLOW_BYTES
                          : SEGMENT_PAGE * (1u + (size_t)slot);
    return (segment_account *)(void *)((char *)segment + at);
}

uint32_t segment_slot_of(const segment_header *segment, const segment_account *account) {
    const size_t at = (size_t)((const char *)account - (const char *)segment);
    if (at < SEGMENT_OVERFLOW_AT) return (uint32_t)(at / SEGMENT_PAGE - 1);
    return SEGMENT_ACCOUNTS + (uint32_t)((at - SEGMENT_OVERFLOW_AT) / SEGMENT_OVERFLOW_BYTES);
}

void segment_copy_slot(segment_account *to, const segment_account *from) {
    to->kind = from->kind;
    memcpy(to->name, from->name, sizeof to->name);
    atomic_store(&to->state, atomic_load(&from->state));
    to->ranges = from->ranges;
    to->reserved_bytes = from->reserved_bytes;
    to->range_bytes = from->range_bytes;
    to->idle_bytes = from->idle_bytes;
    to->offered_bytes = from->offered_bytes;
    to->purged_bytes = from->purged_bytes;
    to->hot_bytes = from->hot_bytes;
    to->object_bytes = from->object_bytes;
}
