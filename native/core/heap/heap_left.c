/* What is left below the limits; see heap_left.h. */
#include "heap/heap_left.h"

#include <stdatomic.h>
#include <stdbool.h>

#include "base/amounts.h"
#include "base/caretaker.h"
#include "heap/heap_cells.h"
#include "os/os.h"

/* How much may be idle. What is left below a limit may be used up before the caretaker looks again; then what
 * is idle is missing. */
#define LEFT_SHARE 4 /* of what was left */
#define SHORT_BYTES_MOST (1ull << 20)
#define UNKNOWN_BYTES_MOST (4ull << 20) /* before the caretaker has looked: it may run late */
/* New pages that may be used before it is known how much is left, and how long a thread waits to know it. */
#define UNSEEN_BYTES_MOST ((uint64_t)4 << 20)
#define LOOK_TRIES 200
#define LOOK_TRY_NS 50000u
#define LOOK_PAUSE_NS 2000000u
#define LATE_NS 1000000000u
#define SMALL_BYTES_A_NS 1 /* what small blocks may use up meanwhile, which nobody counts */

/* As the caretaker found below the limits, less what large blocks have used since; when it looked, and how long
 * that holds. */
static struct {
    _Atomic uint64_t bytes, looked_ns, until_ns;
} left_below;

/* A caretaker that does not get to run is not waited for again for a while. */
static _Atomic uint64_t late_until_ns;

/* ---- what may be idle -------------------------------------------------------------------------- */

uint64_t heap_idle_most_of(uint64_t left) {
    if (left == UINT64_MAX) return UNKNOWN_BYTES_MOST;
    return left < HEAP_SHORT_BYTES ? SHORT_BYTES_MOST : left / LEFT_SHARE;
}

/* As it was told last; UINT64_MAX if it is not known any more. */
static uint64_t left_at(uint64_t now_ns) {
    const bool is_known = now_ns < atomic_load_explicit(&left_below.until_ns, memory_order_relaxed);
    return is_known ? atomic_load_explicit(&left_below.bytes, memory_order_relaxed) : UINT64_MAX;
}

uint64_t heap_idle_most(uint64_t now_ns) { return heap_idle_most_of(left_at(now_ns)); }

static void tell(uint64_t left, uint64_t until_ns) {
    atomic_store(&left_below.bytes, left);
    atomic_store(&left_below.until_ns, until_ns);
    atomic_store(&left_below.looked_ns, os_now_ns());
    cells_bound(heap_idle_most_of(left) / os_page_bytes());
}

void heap_bound_idle(uint64_t left, uint64_t until_ns) { tell(lesser(left, UINT64_MAX - 1), until_ns); }

void heap_forget_left(void) { tell(UINT64_MAX, 0); }

/* ---- new pages --------------------------------------------------------------------------------- */

/* What is left, less new pages of a block, and when the caretaker looked. */
static uint64_t use(uint64_t now_ns, size_t bytes, uint64_t *looked_ns) {
    uint64_t left = left_at(now_ns);
    *looked_ns = atomic_load(&left_below.looked_ns);
    if (left == UINT64_MAX) return left;
    left = atomic_load(&left_below.bytes);
    while (!atomic_compare_exchange_weak(&left_below.bytes, &left, above(left, bytes))) {
    }
    return above(left, bytes);
}

/* Whether the caretaker has to look how much is left, before new pages are used. */
static bool has_to_look(uint64_t left, uint64_t age_ns, size_t bytes) {
    static _Atomic uint64_t unseen_bytes;
    if (left == UINT64_MAX) {
        if (atomic_fetch_add(&unseen_bytes, bytes) + bytes < UNSEEN_BYTES_MOST) return false;
        atomic_store(&unseen_bytes, 0);
        return true;
    }
    return left >= HEAP_SHORT_BYTES && age_ns > LOOK_PAUSE_NS &&
           above(left, age_ns * SMALL_BYTES_A_NS) < HEAP_SHORT_BYTES;
}

static bool is_late(uint64_t now) { return now < atomic_load_explicit(&late_until_ns, memory_order_relaxed); }

uint64_t heap_left_with_new(size_t bytes) {
    const uint64_t now = os_now_ns();
    uint64_t looked_ns, left = use(now, bytes, &looked_ns);
    if (has_to_look(left, above(now, looked_ns), bytes) && caretaker_is_running() && !is_late(now)) {
        caretaker_call();
        for (int i = 0; i < LOOK_TRIES && looked_ns <= now; i++) {
            os_sleep_ns(LOOK_TRY_NS);
            left = use(os_now_ns(), 0, &looked_ns);
        }
        if (looked_ns <= now) atomic_store(&late_until_ns, os_now_ns() + LATE_NS);
    }
    return left;
}
