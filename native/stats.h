#ifndef VRANGE_STATS_H
#define VRANGE_STATS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "vrange.h"

struct vrange_account {
    struct vrange_account *next;
    _Atomic bool open;
    int kind;
    char name[VRANGE_NAME_BYTES];
    _Atomic uint64_t ranges, reserved_bytes, range_bytes, idle_bytes, offered_bytes, purged_bytes;
    _Atomic uint64_t hot_bytes, purged_total, shed_total, regenerated, regenerate_ns, refaults;
    _Atomic uint64_t requests[VRANGE_REQUESTS];
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

#endif
