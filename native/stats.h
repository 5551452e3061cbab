#ifndef VRANGE_STATS_H
#define VRANGE_STATS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "segment.h"
#include "vrange.h"

#define ACCOUNT_FREE 0
#define ACCOUNT_OPEN 1
#define ACCOUNT_CLOSED 2 /* its counts stay told until the slot is needed: they must not go back */

/* A slot of the segment: readers outside know its layout (runtime/vrange/segment.py). */
struct vrange_account {
    _Atomic uint32_t state;
    uint32_t kind;
    char name[VRANGE_NAME_BYTES];
    /* Gauges: what is now. The child of a fork begins with them. */
    _Atomic uint64_t ranges, reserved_bytes, range_bytes, idle_bytes, offered_bytes, purged_bytes;
    _Atomic uint64_t hot_bytes;
    /* Counters: what ever was, since the slot got its name. */
    _Atomic uint64_t purged_total, shed_total, refaults, requests[VRANGE_REQUESTS];
    segment_histogram regenerate;
};

static inline void tally(_Atomic uint64_t *counter, uint64_t by) {
    atomic_fetch_add_explicit(counter, by, memory_order_relaxed);
}

static inline void untally(_Atomic uint64_t *counter, uint64_t by) {
    atomic_fetch_sub_explicit(counter, by, memory_order_relaxed);
}

/* Sums over all accounts, kept here so that the reserve need not walk them at every tick. */
extern _Atomic uint64_t stats_idle_bytes, stats_offered_bytes;

void stats_idle(vrange_account *account, int64_t by);
void stats_offered(vrange_account *account, int64_t by);

/* Of all stacks and heaps: bytes given back, and trims that gave something back. */
void stats_stack_returned(uint64_t bytes);
void stats_trimmed(void);

/* A deep stack of `limit` bytes was used down to `used`. */
void stats_stack_used(uint64_t used, uint64_t limit);

/* In the child of a fork: a segment of its own. Owners of accounts go on reading from where they were. */
void stats_after_fork(void);

#endif
