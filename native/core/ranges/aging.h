/* When uses age: the epochs of the ranges that compete with each other.
 *
 * Uses are halved once an epoch, and an epoch ends after so many requests for each range that exists: the
 * pace. The usual pace is twenty, twice as many as in TinyLFU (Einziger, Friedman and Manes 2017). In a
 * simulation of Zipf requests, with a capacity that halves and recovers, ten requests give as many hits as
 * twenty, five lose two thousandths of them, and never halving gains one thousandth. Where the requests move
 * on, a faster pace serves better; callers that can tell set it (python/cache/miniature.c).
 *
 * Requests that go round in a loop longer than there is room for are hit best if what is there stays. Then a
 * value that is stored starts with one use, whatever its key was used before, and of equal values the newest
 * goes first.
 *
 * All arenas share one clock, so that what one cache uses now outlives what another one used long ago. An
 * arena with a bound of its own has its own, since its ranges compete with each other only. */
#ifndef VRANGE_AGING_H
#define VRANGE_AGING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct {
    _Atomic uint32_t epoch;
    _Atomic uint32_t requests; /* since it began */
    _Atomic uint32_t ranges;
    _Atomic uint64_t pages;
    _Atomic uint32_t due;  /* requests end it */
    _Atomic uint32_t pace; /* requests for each range and epoch, in sixteenths */
    _Atomic bool keeps;    /* what is there stays, rather than what comes */
} aging;

extern aging aging_together; /* of all arenas without a clock of their own */

void aging_start(aging *clock);

void aging_set(aging *clock, uint32_t pace, bool keeps);

void aging_add(aging *clock, uint32_t pages);
void aging_remove(aging *clock, uint32_t pages);

/* Enough requests end the epoch. */
void aging_count(aging *clock, uint32_t requests);

static inline uint32_t aging_epoch(aging *clock) {
    return atomic_load_explicit(&clock->epoch, memory_order_relaxed);
}

static inline uint32_t aging_pace(aging *clock) {
    return atomic_load_explicit(&clock->pace, memory_order_relaxed);
}

static inline bool aging_keeps(aging *clock) {
    return atomic_load_explicit(&clock->keeps, memory_order_relaxed);
}

#endif
