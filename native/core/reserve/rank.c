/* Choosing the least valuable ranges without keeping them in order.
 *
 * A hit must not pay for an order that it does not use, so nothing is sorted when a range is used. When
 * victims are needed, one pass over the descriptors sums bytes by value in coarse buckets. (A bucket is a
 * float's exponent and the first bits of its mantissa, which sort like the float itself.) The sums show up
 * to which bucket enough bytes lie; a second pass collects only the ranges in those buckets and sorts them. */
#include "reserve/rank.h"

#include <stdlib.h>
#include <string.h>

#include "ranges/arena.h"
#include "ranges/worth.h"

#define BUCKET_BITS 20 /* the low bits that are dropped; 8 buckets an octave remain */
#define BUCKETS 4096u

static uint32_t bucket_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (bits >> BUCKET_BITS) & (BUCKETS - 1); /* values are positive */
}

static bool is_candidate(range *r, struct vrange_arena *arena, bool with_offered, candidate *out) {
    uint64_t word = atomic_load_explicit(range_word(r), memory_order_relaxed);
    uint64_t state = word_state(word);
    /* BUSY is a transition between two of these states; a caller that then acts on the range waits for it. */
    if (state != RESIDENT && !(with_offered && (state == OFFERED || state == BUSY))) return false;
    if (word_pins(word) || word & WORD_DOOMED) return false;
    struct vrange_arena *owner = atomic_load_explicit(&r->arena, memory_order_relaxed);
    if (!owner || (arena && owner != arena)) return false;
    out->index = r->index;
    out->generation = word & WORD_GENERATION;
    out->released_ns = atomic_load_explicit(&r->released_ns, memory_order_relaxed);
    out->value = value_of(r, atomic_load_explicit(&owner->epoch, memory_order_relaxed));
    return true;
}

static int by_value(const void *left, const void *right) {
    const candidate *a = left, *b = right;
    if (a->value != b->value) return a->value < b->value ? -1 : 1;
    return a->released_ns < b->released_ns ? -1 : a->released_ns > b->released_ns;
}

static bool add(ranking *out, const candidate *item) {
    if (out->count == out->capacity) {
        size_t capacity = out->capacity ? out->capacity * 2 : 256;
        candidate *items = realloc(out->items, capacity * sizeof *items);
        if (!items) return false;
        out->items = items;
        out->capacity = capacity;
    }
    out->items[out->count++] = *item;
    return true;
}

void rank_least(ranking *out, struct vrange_arena *arena, bool with_offered, uint64_t bytes) {
    uint64_t in_bucket[BUCKETS] = {0};
    candidate item;
    const uint32_t end = table_count();
    for (uint32_t index = 1; index < end; index++) {
        range *r = table_at(index);
        if (is_candidate(r, arena, with_offered, &item))
            in_bucket[bucket_of(item.value)] += range_bytes(r);
    }
    uint32_t last = 0;
    for (uint64_t sum = in_bucket[0]; sum < bytes && last < BUCKETS - 1;) sum += in_bucket[++last];

    out->count = 0;
    for (uint32_t index = 1; index < end && out->count < RANKED_MOST; index++) {
        range *r = table_at(index);
        if (!is_candidate(r, arena, with_offered, &item) || bucket_of(item.value) > last) continue;
        if (!add(out, &item)) break;
    }
    if (out->count) qsort(out->items, out->count, sizeof *out->items, by_value);
}
