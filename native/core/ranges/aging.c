/* Counts requests and ends epochs; see aging.h. */
#include "ranges/aging.h"

#include "vrange.h"

aging aging_together;

void aging_add(aging *clock, uint32_t pages) {
    atomic_fetch_add_explicit(&clock->ranges, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&clock->pages, pages, memory_order_relaxed);
}

void aging_remove(aging *clock, uint32_t pages) {
    atomic_fetch_sub_explicit(&clock->ranges, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&clock->pages, pages, memory_order_relaxed);
}

uint32_t aging_pace(aging *clock) {
    const uint32_t pace = atomic_load_explicit(&clock->pace, memory_order_relaxed);
    return pace ? pace : VRANGE_PACE_USUAL;
}

void aging_count(aging *clock, uint32_t requests) {
    uint32_t since = atomic_fetch_add_explicit(&clock->requests, requests, memory_order_relaxed) + requests;
    uint64_t ranges = atomic_load_explicit(&clock->ranges, memory_order_relaxed);
    if (ranges < VRANGE_EPOCH_RANGES_LEAST) ranges = VRANGE_EPOCH_RANGES_LEAST;
    if (since < ranges * aging_pace(clock) / 16) return;
    /* The thread that resets the counter ends the epoch. */
    if (atomic_compare_exchange_strong(&clock->requests, &since, 0)) atomic_fetch_add(&clock->epoch, 1);
}
