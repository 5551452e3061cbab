/* Burst: the reserve follows the rate at which it is used up.
 *
 * The reserve must last until the thread has looked again. How long that takes depends on how many threads
 * run and on how many processors, and how much is used up meanwhile depends on how many of them allocate. Each
 * look shows how many bytes were used up since the last one. The reserve keeps several times that, and returns
 * to its normal size after a burst: the kernel takes what is offered beyond it in the order of the offers, and
 * that costs hits. */
#include "reserve/burst.h"

#define FORGOTTEN_NS 2000000000ull
#define TIMES 4      /* the next look may be so much later, or several more threads may run by then */
#define TIMES_MOST 4 /* the reserve: half of a limit, as the reserve is an eighth of it by default */

static struct {
    uint64_t most, seen_ns; /* what was gone at a look, and when */
} burst;

uint64_t burst_reserve(uint64_t reserve_bytes, uint64_t gone, uint64_t now_ns) {
    const uint64_t passed_ns = now_ns - burst.seen_ns;
    const double left = passed_ns < FORGOTTEN_NS ? 1.0 - (double)passed_ns / (double)FORGOTTEN_NS : 0;
    const uint64_t remembered = (uint64_t)((double)burst.most * left);
    if (gone > remembered) {
        burst.most = gone;
        burst.seen_ns = now_ns;
    }
    const uint64_t wanted = TIMES * (gone > remembered ? gone : remembered);
    if (wanted < reserve_bytes) return reserve_bytes;
    return wanted < TIMES_MOST * reserve_bytes ? wanted : TIMES_MOST * reserve_bytes;
}

void burst_forget(void) { burst.most = burst.seen_ns = 0; }
