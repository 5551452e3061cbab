/* Counts requests and ends epochs; see aging.h. */
#include "ranges/aging.h"

#include "vrange.h"

#define DUE_OF(ranges, pace) ((uint64_t)(ranges) * (pace) / 16)

aging aging_together = {.pace = VRANGE_PACE_USUAL,
                        .due = DUE_OF(VRANGE_EPOCH_RANGES_LEAST, VRANGE_PACE_USUAL)};

static void set_due(aging *clock) {
    uint64_t ranges = atomic_load_explicit(&clock->ranges, memory_order_relaxed);
    if (ranges < VRANGE_EPOCH_RANGES_LEAST) ranges = VRANGE_EPOCH_RANGES_LEAST;
    const uint64_t due = DUE_OF(ranges, aging_pace(clock));
    atomic_store_explicit(&clock->due, due < UINT32_MAX ? (uint32_t)due : UINT32_MAX, memory_order_relaxed);
}

void aging_start(aging *clock) { aging_set(clock, VRANGE_PACE_USUAL, false); }

void aging_set(aging *clock, uint32_t pace, bool keeps) {
    atomic_store_explicit(&clock->pace, pace, memory_order_relaxed);
    atomic_store_explicit(&clock->keeps, keeps, memory_order_relaxed);
    set_due(clock);
}

void aging_add(aging *clock, uint32_t pages) {
    atomic_fetch_add_explicit(&clock->ranges, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&clock->pages, pages, memory_order_relaxed);
    set_due(clock);
}

void aging_remove(aging *clock, uint32_t pages) {
    atomic_fetch_sub_explicit(&clock->ranges, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&clock->pages, pages, memory_order_relaxed);
    set_due(clock);
}

void aging_count(aging *clock, uint32_t requests) {
    uint32_t since = atomic_fetch_add_explicit(&clock->requests, requests, memory_order_relaxed) + requests;
    if (since < atomic_load_explicit(&clock->due, memory_order_relaxed)) return;
    /* The thread that resets the counter ends the epoch. */
    if (atomic_compare_exchange_strong(&clock->requests, &since, 0)) atomic_fetch_add(&clock->epoch, 1);
}
