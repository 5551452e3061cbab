#ifndef VRANGE_STATS_H
#define VRANGE_STATS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "os/os.h"
#include "counters/segment_layout.h"
#include "counters/tally.h"
#include "vrange.h"

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

/* In the child of a fork: makes a segment of its own. Owners of accounts go on reading from where they
 * were. */
void stats_after_fork(void);

#endif
