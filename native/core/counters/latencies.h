/* Latency histograms: recording what took how long. vrange.h has what else is called. */
#ifndef VRANGE_LATENCIES_H
#define VRANGE_LATENCIES_H

#include <stdbool.h>
#include <stdint.h>

#include "counters/segment_layout.h"
#include "os/os.h"

/* benchmarks/metrics.py measures the cost of recording against a library that is built without it. */
#ifdef VRANGE_WITHOUT_RECORDING
#define RECORDING 0
#else
#define RECORDING 1
#endif

/* The time at which an operation began or ended, used for latencies only. */
#define stats_now_ns() (RECORDING ? os_now_ns() : 0)

/* Pins, releases and blocks of the heap that need no system call take less time than reading the clock twice.
 * So each thread times one in 64, and that time stands for the 63 after it; each one is counted. One in
 * sixteen would cost 5 ns an operation. */
#define STATS_FAST_PIN 0
#define STATS_FAST_RELEASE 1
#define STATS_FAST_TAKE 2 /* a block of the heap */
#define STATS_FAST_FREE 3
#define STATS_FASTS 4
#define STATS_TIMED_EVERY 64
typedef struct {
    uint32_t turn, bucket; /* the bucket of `ns` */
    uint64_t ns;
} stats_fast_path;
extern _Thread_local stats_fast_path stats_fast[STATS_FASTS];

static inline bool stats_times_fast(int which) {
    stats_fast_path *path = &stats_fast[which];
    return RECORDING && (path->turn++ % STATS_TIMED_EVERY == 0 || path->ns == 0);
}

/* The operation to be timed took the slow path: the next one is timed instead. */
static inline void stats_was_slow(int which) { stats_fast[which].turn = 0; }

/* `start_ns` is 0 if this one was not timed. */
void stats_record_fast(int which, int kind, int latency, uint64_t start_ns);

/* In a histogram that several threads may record into. */
void histogram_record(segment_histogram *histogram, uint64_t nanoseconds);

/* In the child of a fork: the thread takes a shard of the segment that is made there. */
void latencies_after_fork(void);

#endif
