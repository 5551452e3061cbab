/* The turn where malloc alone is used; see malloc_turn.h.
 *
 * Any program may be preloaded with malloc, also one that does not expect descriptors that it has not opened.
 * So vrange opens the files that report the limits only while freed blocks are idle, and closes them again.
 *
 * glibc returns a large block at its free. A program that would survive with it must survive here: where little
 * is left, the next allocations may need what was freed before it has been idle for long. */
#include "reserve/malloc_turn.h"

#include <stdbool.h>

#include "base/amounts.h"
#include "base/caretaker.h"
#include "heap/heap_left.h"
#include "heap/heap_offer.h"
#include "heap/small_blocks.h"
#include "os/os.h"
#include "pressure/headroom.h"

#define IDLE_TICKS 4 /* while something is idle; in a longer sleep each freed block would wake the thread */
#define SLEEP_NS 1000000000u
#define REST_NS (600ull * 1000000000u) /* the next freed block ends it */
/* Threads on several processors allocate no faster. */
#define BYTES_A_NS 4
#define LOOK_NS_LEAST 20000000u
#define LOOK_NS_MOST 1000000000u
#define CALLED_NS_LEAST 1000000u /* a thread waits for it */
#define LATE_NS 50000000u /* the next look may come so much later */

/* Only the caretaker uses it. In the child of a fork it is as good as in the parent. */
static struct {
    uint64_t left, then_ns, next_ns;
} seen;

static void look(uint64_t now, bool was_called) {
    if (now < (was_called ? seen.then_ns + CALLED_NS_LEAST : seen.next_ns)) return;
    seen.then_ns = now;
    seen.left = headroom_found_anew();
    const uint64_t until = seen.left / BYTES_A_NS;
    seen.next_ns = now + (until < LOOK_NS_LEAST ? LOOK_NS_LEAST : lesser(until, LOOK_NS_MOST));
    heap_bound_idle(seen.left, seen.next_ns + LATE_NS);
}

/* With nothing idle. What was found of the limits holds for a while: a loop uses its block at most turns. */
static uint64_t rest_after_nothing(uint64_t slept_ns, uint64_t due_ns, uint64_t often_ns) {
    const uint64_t now = os_now_ns(), holds_ns = above(seen.next_ns, now);
    uint64_t rest_ns = lesser(due_ns, slept_ns < SLEEP_NS ? SLEEP_NS : REST_NS);
    if (holds_ns) rest_ns = lesser(rest_ns, holds_ns);
    else heap_forget_left();
    return rest_ns < often_ns ? often_ns : rest_ns;
}

uint64_t malloc_turn(uint64_t slept_ns) {
    const uint64_t due_ns = heap_discard_unused(), often_ns = IDLE_TICKS * caretaker_tick_ns();
    const bool is_idle = heap_offer(false), was_called = slept_ns == 0;
    if (!small_blocks_may_lack() && !is_idle && !was_called)
        return rest_after_nothing(slept_ns, due_ns, often_ns);
    look(os_now_ns(), was_called);
    if (seen.left >= HEAP_NEAR_BYTES) return often_ns;
    heap_offer_near(seen.left);
    small_blocks_return(seen.left);
    return caretaker_tick_ns();
}
