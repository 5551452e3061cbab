/* Counts that the rooms of the core add to. */
#ifndef VRANGE_STATS_H
#define VRANGE_STATS_H

#include <stdatomic.h>
#include <stdint.h>

#include "counters/latencies.h"
#include "counters/segment_layout.h"
#include "counters/tally.h"
#include "vrange.h"

/* A request, counted by a caller that holds the GIL. Either all requests of an account are counted so, or
 * none. */
static inline void stats_request_with_gil(vrange_account *account, int outcome) {
    if (RECORDING) tally_alone(&account->requests[outcome], 1);
}

/* Sums over all accounts, kept here so that the reserve need not walk the accounts at every tick. */
extern _Atomic uint64_t stats_idle_bytes, stats_offered_bytes;
/* Bytes of copies under way: they are offered but not counted as offered, because their owners still need
 * them. */
extern _Atomic uint64_t stats_copying_bytes;

void stats_idle(vrange_account *account, int64_t by);
void stats_offered(vrange_account *account, int64_t by);

/* Over all stacks and heaps: bytes returned, and trims that returned something. */
void stats_stack_returned(uint64_t bytes);
void stats_trimmed(void);

/* A deep stack of `limit` bytes was used down to `used`. */
void stats_stack_used(uint64_t used, uint64_t limit);

void stats_pressure_level(int level);
void stats_rung_changed(void);
void stats_pressure_acted(int action, int outcome, uint64_t bytes);

#endif
