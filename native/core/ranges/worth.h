/* How valuable a range is: aged uses, times what recomputing costs, by byte.
 *
 * Uses are counted in sixteenths and halved once an epoch (lazily: a range remembers the epoch its
 * count is of). An epoch is as many requests as twenty times the ranges there are, twice what TinyLFU
 * has (Einziger, Friedman and Manes 2017): simulated on Zipf requests with a capacity that halves and
 * comes back, ten answer as many, five lose two thousandths, and never forgetting wins one. */
#ifndef VRANGE_VALUE_H
#define VRANGE_VALUE_H

#include <stdatomic.h>
#include <stdint.h>

#include "ranges/range_state.h"

#define USE 16u
#define USES_MOST 0x0fffffffu
#define REQUESTS_PER_RANGE_AND_EPOCH 20u
#define REQUESTS_PER_EPOCH_LEAST 1000u

static inline uint32_t uses_aged(const range *r, uint32_t epoch) {
    uint32_t age = epoch - atomic_load_explicit(&r->epoch, memory_order_relaxed);
    return age < 32 ? atomic_load_explicit(&r->uses, memory_order_relaxed) >> age : 0;
}

static inline float value_of(const range *r, uint32_t epoch) {
    return ((float)uses_aged(r, epoch) + 1.0f) * r->cost_ns / (float)r->pages;
}

#endif
