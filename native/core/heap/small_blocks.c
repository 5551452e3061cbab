/* What glibc keeps of small blocks; see small_blocks.h.
 *
 * Large blocks are the heap's and small ones glibc's. So what glibc keeps of small blocks that were freed can't
 * become a large block, as it can where glibc serves both: a program that survives with glibc would be killed
 * for want of it. The kernel can't take it, since glibc has not offered it. */
#include "heap/small_blocks.h"

#include <stddef.h>

#include "base/amounts.h"
#include "heap/heap_left.h"
#include "heap/heap_offer.h"
#include "heap/heap_state.h"
#include "os/os.h"

/* glibc's alone. It takes each arena's lock in turn, so threads that use small blocks wait: for milliseconds,
 * as near a limit there are few. */
extern int malloc_trim(size_t kept) __attribute__((weak));

/* How much more large blocks have to hold: what glibc returned may be needed for small blocks again. */
#define GROWN_BYTES ((uint64_t)4 << 20)
#define GROWN_BYTES_SHORT ((uint64_t)1 << 20)
/* The pause after a trim, in its durations: trims take at most 5 % of the time, where little is left half. */
#define PAUSE_TIMES 20
#define PAUSE_TIMES_SHORT 1

static struct {
    _Atomic bool is_taken; /* by the thread that looks; others need not */
    uint64_t least_bytes;  /* in use as large blocks, since the last trim */
    uint64_t ended_ns, took_ns; /* the last trim */
} seen;

static uint64_t large_bytes(void) {
    uint64_t used = 0;
    for (int i = 0; i < HEAP_ZONES; i++) {
        heap_zone *zone = &heap.zones[i];
        if (!zone->base) continue;
        heap_lock(zone);
        used += heap_usage_of(zone).used;
        pthread_mutex_unlock(&zone->lock);
    }
    return above(used, heap_cell_bytes());
}

static void return_if_grown(uint64_t now_bytes, uint64_t left) {
    const bool is_short = left < HEAP_SHORT_BYTES;
    seen.least_bytes = lesser(seen.least_bytes, now_bytes);
    if (left >= HEAP_NEAR_BYTES || !malloc_trim) return;
    if (now_bytes - seen.least_bytes < (is_short ? GROWN_BYTES_SHORT : GROWN_BYTES)) return;
    const uint64_t start = os_now_ns();
    if (start < seen.ended_ns + (is_short ? PAUSE_TIMES_SHORT : PAUSE_TIMES) * seen.took_ns) return;
    malloc_trim(0);
    seen.ended_ns = os_now_ns();
    seen.took_ns = seen.ended_ns - start;
    seen.least_bytes = now_bytes;
}

void small_blocks_return(uint64_t left) {
    if (!heap_is_open() || atomic_exchange(&seen.is_taken, true)) return;
    return_if_grown(large_bytes(), left);
    atomic_store(&seen.is_taken, false);
}

bool small_blocks_may_lack(void) {
    static uint64_t before; /* only the caretaker uses it */
    if (!heap_is_open()) return false;
    const uint64_t now = large_bytes(), then = before;
    before = now;
    return now > then;
}

void small_blocks_after_fork(void) { atomic_store(&seen.is_taken, false); }
