/* How valuable a range is: its aged uses, times the cost of recomputing it, per page.
 *
 * Uses are counted in sixteenths and halved once an epoch (aging.h). The halving is lazy: a range stores the
 * epoch that its count belongs to. Worth is halved on and on, however few uses were left, so that what is
 * costly and was not used for long becomes worth less than anything that is used. */
#ifndef VRANGE_WORTH_H
#define VRANGE_WORTH_H

#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#include "ranges/arena_state.h"
#include "ranges/range_marks.h"
#include "ranges/range_state.h"

#define USE 16u
#define UNKNOWN_COST_NS 1000000u /* 1 ms, if the caller gives no cost: as good as any other value */
#define USES_MOST 0x0fffffffu
#define HALVINGS_MOST 90u /* a float has 126; the rest is for what is cheap and large */

static inline uint32_t uses_age(const range *r, uint32_t epoch) {
    return epoch - atomic_load_explicit(&r->epoch, memory_order_relaxed);
}

static inline uint32_t uses_aged(const range *r, uint32_t epoch) {
    const uint32_t age = uses_age(r, epoch);
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

/* 2 to the power of -halvings, as a float's exponent. */
static inline float halved(uint32_t halvings) {
    const uint32_t bits = (127u - (halvings < HALVINGS_MOST ? halvings : HALVINGS_MOST)) << 23;
    float factor;
    memcpy(&factor, &bits, sizeof factor);
    return factor;
}

/* Where uses age fast, fewer are counted. So uses are taken relative to the pace: the values of arenas with
 * clocks of their own can be compared. */
static inline float value_of(const range *r, struct vrange_arena *arena) {
    aging *clock = arena_aging(arena);
    const float uses = (float)atomic_load_explicit(&r->uses, memory_order_relaxed) + 1.0f;
    const float rate = uses * halved(uses_age(r, aging_epoch(clock))) / (float)aging_pace(clock);
    const float cost_ns = atomic_load_explicit(&r->cost_ns, memory_order_relaxed);
    return rate * cost_ns / (float)atomic_load_explicit(&r->pages, memory_order_relaxed);
}

#endif
