/* Latency histograms.
 *
 * They are sharded by thread, so that few threads share a cache line and most need no locked instruction. A
 * reader sums the shards while they go on changing; each single number only grows, so a reader never sees one
 * go backwards. */
#include "counters/latencies.h"

#include <string.h>

#include "counters/segment.h"
#include "counters/segment_cut.h"
#include "counters/tally.h"

_Thread_local stats_fast_path stats_fast[STATS_FASTS];

#define EIGHTHS 8

/* NULL: none is assigned yet, or this thread shares shard 0. */
static _Thread_local segment_histogram *own_shard;
static _Thread_local bool shares_shard;

static size_t bucket_of(uint64_t nanoseconds) {
    if (nanoseconds < EIGHTHS) return (size_t)nanoseconds;
    unsigned octave = 63u - (unsigned)__builtin_clzll(nanoseconds) - 3u;
    size_t bucket = EIGHTHS + EIGHTHS * octave + ((nanoseconds >> octave) & (EIGHTHS - 1));
    return bucket < VRANGE_BUCKETS ? bucket : VRANGE_BUCKETS - 1;
}

uint64_t vrange_bucket_floor_ns(size_t bucket) {
    if (bucket < EIGHTHS) return bucket;
    size_t octave = (bucket - EIGHTHS) / EIGHTHS, eighth = (bucket - EIGHTHS) % EIGHTHS;
    return (uint64_t)(EIGHTHS + eighth) << octave;
}

void histogram_record(segment_histogram *histogram, uint64_t nanoseconds) {
    tally(&histogram->sum_ns, nanoseconds);
    tally(&histogram->buckets[bucket_of(nanoseconds)], 1);
}

/* In a histogram of the thread's own shard. */
static inline void record_alone(segment_histogram *histogram, uint64_t nanoseconds, size_t bucket) {
    tally_alone(&histogram->sum_ns, nanoseconds);
    tally_alone(&histogram->buckets[bucket], 1);
}

static bool is_latency(int kind, int latency) {
    return kind >= 0 && kind < VRANGE_KINDS && latency >= 0 && latency < VRANGE_LATENCIES;
}

/* Runs once a thread. The first threads get a shard each; the others share shard 0, which has memory
 * behind it from the beginning. The shard of a thread that ended is not reused: the next owner would have
 * to know that it sees the last write. */
static void take_shard(segment_header *segment) {
    uint32_t used = atomic_load(&segment->shards_used);
    while (used < SEGMENT_SHARDS) {
        uint32_t next = used ? used : 1;
        if (!segment_back(segment, segment_shard(segment, next), segment->shard_bytes)) break;
        if (!atomic_compare_exchange_strong(&segment->shards_used, &used, next + 1)) continue;
        own_shard = segment_shard(segment, next);
        segment_cut_note_header(segment);
        return;
    }
    shares_shard = true;
}

/* The thread's first record, or any of a thread that has no shard of its own. Not inlined: the registers that
 * it saves would be saved at every record. */
__attribute__((noinline)) static void record_without_shard(int which, uint64_t nanoseconds) {
    segment_header *segment = segment_make();
    if (!segment) return;
    if (!shares_shard) take_shard(segment);
    if (own_shard) record_alone(&own_shard[which], nanoseconds, bucket_of(nanoseconds));
    else histogram_record(&segment_shard(segment, 0)[which], nanoseconds);
}

void vrange_latency_record(int kind, int latency, uint64_t nanoseconds) {
    if (!RECORDING || !is_latency(kind, latency)) return;
    const int which = kind * VRANGE_LATENCIES + latency;
    segment_histogram *shard = own_shard;
    if (shard) record_alone(&shard[which], nanoseconds, bucket_of(nanoseconds));
    else record_without_shard(which, nanoseconds);
}

void stats_record_fast(int which, int kind, int latency, uint64_t start_ns) {
    if (!RECORDING) return;
    stats_fast_path *path = &stats_fast[which];
    if (start_ns) {
        path->ns = os_now_ns() - start_ns;
        path->bucket = (uint32_t)bucket_of(path->ns);
    }
    segment_histogram *shard = own_shard;
    if (shard) record_alone(&shard[kind * VRANGE_LATENCIES + latency], path->ns, path->bucket);
    else vrange_latency_record(kind, latency, path->ns);
}

void vrange_latency_read(int kind, int latency, vrange_histogram *out) {
    memset(out, 0, sizeof *out);
    segment_header *segment = segment_make();
    if (!is_latency(kind, latency) || !segment) return;
    for (uint32_t shard = 0; shard < SEGMENT_SHARDS; shard++) {
        if (shard > 0 && shard >= atomic_load(&segment->shards_used)) break;
        segment_histogram *histogram =
            &segment_shard(segment, shard)[kind * VRANGE_LATENCIES + latency];
        out->sum_ns += histogram->sum_ns;
        for (size_t bucket = 0; bucket < VRANGE_BUCKETS; bucket++)
            out->buckets[bucket] += histogram->buckets[bucket];
    }
    /* From the buckets, so that the count is always their sum. */
    for (size_t bucket = 0; bucket < VRANGE_BUCKETS; bucket++) out->count += out->buckets[bucket];
}

void latencies_after_fork(void) {
    own_shard = NULL;
    shares_shard = false;
}
