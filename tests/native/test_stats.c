/* A histogram's bucket: where it says it begins, and its middle within 6.3 % of what fell into it. */
#include "check.h"

int main(void) {
    uint64_t recorded = 0, sum = 0;
    for (uint64_t ns = 1; ns < (uint64_t)1 << 39; ns += 1 + ns / 7) {
        vrange_histogram before, after;
        vrange_latency_read(VRANGE_KIND_HEAP, VRANGE_FREE_RELEASED, &before);
        vrange_latency_record(VRANGE_KIND_HEAP, VRANGE_FREE_RELEASED, ns);
        vrange_latency_read(VRANGE_KIND_HEAP, VRANGE_FREE_RELEASED, &after);
        size_t bucket = 0;
        while (after.buckets[bucket] == before.buckets[bucket]) bucket++;
        uint64_t floor = vrange_bucket_floor_ns(bucket), next = vrange_bucket_floor_ns(bucket + 1);
        CHECK(floor <= ns && ns < next);
        double middle = ((double)floor + (double)next) / 2;
        if (ns >= 8) CHECK(middle / (double)ns < 1.063 && middle / (double)ns > 0.937);
        recorded++;
        sum += ns;
        CHECK(after.count == recorded && after.sum_ns == sum);
    }
    vrange_latency_record(VRANGE_KIND_HEAP, VRANGE_FREE_RELEASED, UINT64_MAX); /* the last bucket */
    vrange_latency_record(-1, 0, 1); /* of nothing: not counted */
    vrange_latency_record(0, VRANGE_LATENCIES, 1);
    return 0;
}
