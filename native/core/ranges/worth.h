/* How valuable a range is: its aged uses, times the cost of recomputing it, per page.
 *
 * Uses are counted in sixteenths and halved once an epoch. The halving is lazy: a range stores the epoch that
 * its count belongs to. An epoch is twenty requests for each existing range, twice as many as in TinyLFU
 * (Einziger, Friedman and Manes 2017). In a simulation of Zipf requests, with a capacity that halves and
 * recovers, ten requests give as many hits as twenty, five lose two thousandths of them, and never halving
 * gains one thousandth. */
#ifndef VRANGE_WORTH_H
#define VRANGE_WORTH_H

#include <stdatomic.h>
#include <stdint.h>

#include "ranges/range_marks.h"
#include "ranges/range_state.h"

#define USE 16u
#define UNKNOWN_COST_NS 1000000u /* 1 ms, if the caller gives no cost: as good as any other value */
#define USES_MOST 0x0fffffffu
#define REQUESTS_PER_RANGE_AND_EPOCH 20u
#define REQUESTS_PER_EPOCH_LEAST 1000u

static inline uint32_t uses_aged(const range *r, uint32_t epoch) {
    uint32_t age = epoch - atomic_load_explicit(&r->epoch, memory_order_relaxed);
    return age < 32 ? atomic_load_explicit(&r->uses, memory_order_relaxed) >> age : 0;
}

/* Adds the uses by children, which read the range where it lies (owners.h). */
static inline void uses_gather(range *r, uint32_t epoch) {
    range_mark *mark = range_mark_of(r);
    if (!mark || !atomic_load_explicit(&mark->uses, memory_order_relaxed)) return;
    const uint64_t more = (uint64_t)atomic_exchange(&mark->uses, 0) * USE, sum = uses_aged(r, epoch) + more;
    atomic_store_explicit(&r->uses, sum < USES_MOST ? (uint32_t)sum : USES_MOST, memory_order_relaxed);
    atomic_store_explicit(&r->epoch, epoch, memory_order_relaxed);
}

static inline float value_of(const range *r, uint32_t epoch) {
    return ((float)uses_aged(r, epoch) + 1.0f) * r->cost_ns / (float)r->pages;
}

#endif
