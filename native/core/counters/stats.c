/* Counts of the whole process. accounts.c has those under a name, and latencies.c the histograms.
 *
 * Recording never waits: counters are relaxed atomics in the stats segment. The core never calls the metrics;
 * the metrics read these counters. */
#include "counters/stats.h"

#include "counters/segment.h"

_Atomic uint64_t stats_idle_bytes, stats_offered_bytes;
_Atomic uint64_t stats_copying_bytes;

void stats_idle(vrange_account *account, int64_t by) {
    tally(&account->idle_bytes, (uint64_t)by);
    tally(&stats_idle_bytes, (uint64_t)by);
}

void stats_offered(vrange_account *account, int64_t by) {
    tally(&account->offered_bytes, (uint64_t)by);
    tally(&stats_offered_bytes, (uint64_t)by);
}

void stats_stack_returned(uint64_t bytes) {
    segment_header *segment = segment_make();
    if (segment) tally(&segment->stack_returned_bytes, bytes);
}

void stats_trimmed(void) {
    segment_header *segment = segment_make();
    if (segment) tally(&segment->trims, 1);
}

void stats_stack_used(uint64_t used, uint64_t limit) {
    segment_header *segment = segment_make();
    if (!segment || limit == 0) return;
    /* Keeps the stack nearest to its end, not the deepest. Two threads at once may store the lesser one:
     * the next use of that stack reports it again. */
    uint64_t most = segment->stack_high_water_bytes, of = segment->stack_limit_bytes;
    if (of && (double)used / (double)limit <= (double)most / (double)of) return;
    atomic_store_explicit(&segment->stack_limit_bytes, limit, memory_order_relaxed);
    atomic_store_explicit(&segment->stack_high_water_bytes, used, memory_order_relaxed);
}

void stats_rung_changed(void) {
    segment_header *segment = atomic_load(&segment_here);
    if (segment) atomic_store(&segment->rung, (uint32_t)vrange_rung());
}

void stats_pressure_level(int level) {
    segment_header *segment = segment_make();
    if (!segment) return;
    atomic_store_explicit(&segment->pressure_level, (uint64_t)level, memory_order_relaxed);
    tally(&segment->pressure_changes[level], 1);
}

void stats_pressure_acted(int action, int outcome, uint64_t bytes) {
    segment_header *segment = segment_make();
    if (!segment) return;
    tally(&segment->pressure_actions[action][outcome], 1);
    tally(&segment->pressure_returned_bytes[action], bytes);
}

void vrange_heap_trimmed(uint64_t nanoseconds) {
    stats_trimmed();
    vrange_latency_record(VRANGE_KIND_HEAP, VRANGE_FREE_RELEASED, nanoseconds);
}
