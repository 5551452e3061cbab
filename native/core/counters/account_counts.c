/* See account_counts.h. */
#include "counters/account_counts.h"

#include <string.h>

static counts counts_without_computations(const struct vrange_account *account) {
    counts all = {.purged_total = account->purged_total,
                  .shed_total = account->shed_total,
                  .refaults = account->refaults,
                  .refused = account->refused};
    for (int i = 0; i < VRANGE_REQUESTS; i++) all.requests[i] = account->requests[i];
    return all;
}

counts counts_of_slot(const segment_slot *slot) {
    counts all = counts_without_computations(&slot->account);
    all.regenerate_ns = slot->regenerate.sum_ns;
    for (size_t b = 0; b < VRANGE_BUCKETS; b++) all.regenerated += slot->regenerate.buckets[b];
    return all;
}

counts counts_of_overflow(const segment_overflow *slot) {
    counts all = counts_without_computations(&slot->account);
    all.regenerated = slot->regenerated;
    all.regenerate_ns = slot->regenerate_ns;
    return all;
}

void counts_subtract(counts *from, const counts *by) {
    from->purged_total -= by->purged_total;
    from->shed_total -= by->shed_total;
    from->refaults -= by->refaults;
    from->refused -= by->refused;
    for (int i = 0; i < VRANGE_REQUESTS; i++) from->requests[i] -= by->requests[i];
    from->regenerated -= by->regenerated;
    from->regenerate_ns -= by->regenerate_ns;
}

void counts_add(counts *to, const counts *by) {
    to->purged_total += by->purged_total;
    to->shed_total += by->shed_total;
    to->refaults += by->refaults;
    to->refused += by->refused;
    for (int i = 0; i < VRANGE_REQUESTS; i++) to->requests[i] += by->requests[i];
    to->regenerated += by->regenerated;
    to->regenerate_ns += by->regenerate_ns;
}

/* One thread's subtraction may be seen before another's addition: then a gauge is negative for a moment. */
static uint64_t gauge_of(uint64_t word) { return word <= INT64_MAX ? word : 0; }

void figures_of(const struct vrange_account *account, const counts *since, vrange_account_counters *out) {
    memset(out, 0, sizeof *out);
    memcpy(out->name, account->name, VRANGE_NAME_BYTES - 1);
    out->kind = (int)account->kind;
    out->state = (int)account->state;
    out->ranges = gauge_of(account->ranges);
    out->reserved_bytes = gauge_of(account->reserved_bytes);
    out->idle_bytes = gauge_of(account->idle_bytes);
    out->offered_bytes = gauge_of(account->offered_bytes);
    out->purged_bytes = gauge_of(account->purged_bytes);
    /* Whatever is neither of these is pinned. The four figures are read one after another while they
     * change. */
    uint64_t all = gauge_of(account->range_bytes);
    uint64_t volatile_bytes = out->idle_bytes + out->offered_bytes + out->purged_bytes;
    out->pinned_bytes = all > volatile_bytes ? all - volatile_bytes : 0;
    out->hot_bytes = account->hot_bytes;
    out->object_bytes = account->object_bytes;
    out->purged_total = since->purged_total;
    out->shed_total = since->shed_total;
    out->refaults = since->refaults;
    out->refused = since->refused;
    memcpy(out->requests, since->requests, sizeof out->requests);
    out->regenerated = since->regenerated;
    out->regenerate_ns = since->regenerate_ns;
}

void vrange_account_read_copy(const void *slot, vrange_account_counters *out) {
    const counts since = counts_of_slot(slot);
    figures_of(slot, &since, out);
}

void figures_add(vrange_account_counters *to, const vrange_account_counters *one) {
    to->ranges += one->ranges;
    to->reserved_bytes += one->reserved_bytes;
    to->pinned_bytes += one->pinned_bytes;
    to->idle_bytes += one->idle_bytes;
    to->offered_bytes += one->offered_bytes;
    to->purged_bytes += one->purged_bytes;
    to->hot_bytes += one->hot_bytes;
    to->object_bytes += one->object_bytes;
    to->purged_total += one->purged_total;
    to->shed_total += one->shed_total;
    for (int i = 0; i < VRANGE_REQUESTS; i++) to->requests[i] += one->requests[i];
    to->refaults += one->refaults;
    to->refused += one->refused;
}

void vrange_account_add_overflows(vrange_account_counters *other, const void *table, size_t slots,
                                  size_t slot_bytes) {
    for (size_t i = 0; i < slots; i++) {
        const segment_overflow *slot = (const void *)((const char *)table + i * slot_bytes);
        if (slot->account.kind != (uint32_t)other->kind) continue;
        const counts since = counts_of_overflow(slot);
        vrange_account_counters one;
        figures_of(&slot->account, &since, &one);
        figures_add(other, &one);
    }
}
