/* Buffers in which content is put together before it is mapped.
 *
 * UFFDIO_COPY makes a page appear with its content in place, so that no other thread ever sees it half
 * filled. The content must be put together elsewhere first. A signal handler can't allocate, so the buffers
 * are reserved ahead, and taking one is a single atomic exchange. There are a few for each processor, because
 * what is reserved counts against RLIMIT_AS; a regenerator that touches another array takes a second
 * one. If all are in use, one more is mapped, at the price of one system call. Where the process may map no
 * more, the caller waits a moment for a buffer to come back. It can't wait for long, because the buffers'
 * holders may be waiting for the caller (for the GIL, for example): then it gets none. */
#include "base/scratch.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/amounts.h"
#include "base/space_budget.h"
#include "os/os.h"

#define SLOTS_MOST 64
#define SLOTS_LEAST 2
#define SLOTS_EACH 4 /* of a processor: threads in a handler may wait for another one */
#define SPACE_SHARE 16 /* of the address space that vrange may still reserve */
#define TAKE_TRIES 100
#define TAKE_PAUSE_NS 1000000u
#define SLOTS_KEPT 4 /* the other buffers are offered once they are returned */

/* Few suffice: a caller that finds none takes an ordinary buffer and copies. */
#define HUGE_SLOTS 4
#define HUGE_PAUSE 64 /* calls to skip after a refusal: huge pages are scarce, and asking takes time */

static char *_Atomic huge_memory;
static _Atomic unsigned char huge_in_use[HUGE_SLOTS];
static _Atomic int huge_pause;

static char *_Atomic memory;
static _Atomic unsigned slot_count; /* set before `memory` */
static _Atomic unsigned char in_use[SLOTS_MOST];
/* The others are accessible from their first use on: mlockall makes all accessible memory resident. */
static _Atomic bool is_open[SLOTS_MOST];

/* Everything works without huge buffers, but sequential access takes longer. */
static void prepare_huge(void) {
    const size_t bytes = HUGE_SLOTS * OS_HUGE_BYTES;
    if (bytes > space_most(SPACE_MORE) / SPACE_SHARE || !space_take(bytes, SPACE_MORE)) return;
    char *fresh = os_map_huge(HUGE_SLOTS), *expected = NULL;
    if (fresh && atomic_compare_exchange_strong(&huge_memory, &expected, fresh)) {
        os_leave_out_of_dumps(fresh, bytes);
        return;
    }
    if (fresh) os_unreserve(fresh, bytes);
    space_give(bytes, SPACE_MORE);
}

/* A process with little address space gets few buffers. The budget does not count the first ones, because a
 * thread that fills a page can't go on without a buffer. */
static unsigned slots_by_budget(void) {
    const uint64_t by_budget = space_most(SPACE_NEEDED) / SPACE_SHARE / SCRATCH_BYTES;
    const uint64_t by_processors = (uint64_t)SLOTS_EACH * os_processors();
    const uint64_t slots = lesser(lesser(by_budget, by_processors), SLOTS_MOST);
    return slots < SLOTS_LEAST ? SLOTS_LEAST : (unsigned)slots;
}

int scratch_prepare(void) {
    unsigned none = 0, slots = slots_by_budget();
    if (atomic_load(&memory)) return 0;
    if (!atomic_compare_exchange_strong(&slot_count, &none, slots)) slots = none;
    const size_t bytes = (size_t)slots * SCRATCH_BYTES;
    const space_use use = space_take(bytes, SPACE_NEEDED) ? SPACE_NEEDED : SPACE_ASKED;
    if (use == SPACE_ASKED) space_take(bytes, use);
    char *fresh = os_reserve(bytes), *expected = NULL;
    if (fresh && atomic_compare_exchange_strong(&memory, &expected, fresh)) {
        prepare_huge();
        return 0;
    }
    if (fresh) os_unreserve(fresh, bytes);
    space_give(bytes, use);
    return fresh ? 0 : -ENOMEM;
}

static bool opens(unsigned slot, char *address) {
    if (atomic_load(&is_open[slot])) return true;
    if (os_commit(address, SCRATCH_BYTES) < 0) return false;
    atomic_store(&is_open[slot], true);
    return true;
}

static char *take_slot(void) {
    char *slots = atomic_load(&memory);
    for (unsigned slot = 0; slots && slot < atomic_load_explicit(&slot_count, memory_order_relaxed); slot++) {
        if (!atomic_load_explicit(&in_use[slot], memory_order_relaxed) &&
            !atomic_exchange(&in_use[slot], 1)) {
            char *taken = slots + (size_t)slot * SCRATCH_BYTES;
            if (opens(slot, taken)) return taken;
            atomic_store(&in_use[slot], 0);
            return NULL;
        }
    }
    return NULL;
}

char *scratch_take(void) {
    for (int tries = 0; tries < TAKE_TRIES; tries++) {
        if (tries) os_sleep_ns(TAKE_PAUSE_NS);
        char *taken = take_slot();
        if (!taken) taken = os_map(SCRATCH_BYTES);
        if (taken) return taken;
    }
    return NULL;
}

void scratch_give(char *scratch) {
    size_t slot = (size_t)(scratch - atomic_load(&memory)) / SCRATCH_BYTES;
    if (slot >= atomic_load_explicit(&slot_count, memory_order_relaxed)) {
        os_unreserve(scratch, SCRATCH_BYTES);
        return;
    }
    if (slot >= SLOTS_KEPT) os_lazyfree(scratch, SCRATCH_BYTES);
    atomic_store(&in_use[slot], 0);
}

/* The first touch brings the page; if it is a huge page, its second half is resident too. Kernels before
 * 6.13 move huge pages in pieces: there no huge page comes a second time, and every caller copies. */
static bool is_huge_page(char *slot) {
    *(volatile char *)slot = 0;
    return os_is_resident(slot + OS_HUGE_BYTES / 2);
}

char *scratch_take_huge(void) {
    char *slots = atomic_load(&huge_memory);
    if (!slots) return NULL;
    if (atomic_load(&huge_pause) > 0 && atomic_fetch_sub(&huge_pause, 1) > 0) return NULL;
    for (unsigned slot = 0; slot < HUGE_SLOTS; slot++) {
        if (atomic_exchange(&huge_in_use[slot], 1)) continue;
        char *taken = slots + slot * OS_HUGE_BYTES;
        if (is_huge_page(taken)) return taken;
        scratch_give_huge(taken);
        atomic_store(&huge_pause, HUGE_PAUSE);
        return NULL;
    }
    return NULL;
}

void scratch_give_huge(char *scratch) {
    os_discard(scratch, OS_HUGE_BYTES);
    atomic_store(&huge_in_use[(size_t)(scratch - atomic_load(&huge_memory)) / OS_HUGE_BYTES], 0);
}

void scratch_forget_owners(void) {
    /* A page that parent and child share can't be moved, so drop it. */
    if (atomic_load(&huge_memory)) os_discard(huge_memory, HUGE_SLOTS * OS_HUGE_BYTES);
    for (unsigned slot = 0; slot < HUGE_SLOTS; slot++) atomic_store(&huge_in_use[slot], 0);
    for (unsigned slot = 0; slot < SLOTS_MOST; slot++) atomic_store(&in_use[slot], 0);
}
