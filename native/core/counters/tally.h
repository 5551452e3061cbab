/* Counts up and down. The order between counters is not defined. */
#ifndef VRANGE_TALLY_H
#define VRANGE_TALLY_H

#include <stdatomic.h>
#include <stdint.h>

static inline void tally(_Atomic uint64_t *counter, uint64_t by) {
    atomic_fetch_add_explicit(counter, by, memory_order_relaxed);
}

/* For a counter that only one thread at a time writes: costs a third of tally. */
static inline void tally_alone(_Atomic uint64_t *counter, uint64_t by) {
    uint64_t counted = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, counted + by, memory_order_relaxed);
}

static inline void untally(_Atomic uint64_t *counter, uint64_t by) {
    atomic_fetch_sub_explicit(counter, by, memory_order_relaxed);
}

#endif
