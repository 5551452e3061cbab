/* The heap: blocks that are used again without a page fault, and that the kernel can reclaim when it
 * needs memory.
 *
 * A freed block is idle: it keeps its pages. One below 1 MiB lies in a cell of the processor (heap_cells.h) at
 * first, and the next block of about its size is that one, without a lock. What has no room in a cell, or lies
 * there for a while, is joined with its neighbours in a zone; the next block is cut from it without a system
 * call.
 *
 * The caretaker offers (MADV_FREE) what has been idle for a while. It does so before it offers any
 * cached value, because the content of a freed block is worth nothing. The freeing thread never offers: a
 * loop of temporaries would pay once for offering each block and again for taking it back.
 *
 * The heap needs no rung, so it is not registered with userfaultfd: a page that the kernel reclaimed reads
 * as zeros, and zeros are as good as the old content of a freed block.
 *
 * Blocks lie in two zones. One zone counts in huge pages and asks the kernel for them. Blocks that would
 * not fill their huge pages well lie in the other zone, which counts in pages. So a huge page belongs to
 * one block, is offered as a whole, and is never split. */
#define _GNU_SOURCE
#include "heap/heap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/caretaker.h"
#include "base/gate.h"
#include "base/space_budget.h"
#include "heap/heap_cells.h"
#include "heap/heap_left.h"
#include "heap/heap_offer.h"
#include "heap/heap_peak.h"
#include "heap/heap_state.h"
#include "heap/heap_zone_space.h"
#include "heap/small_blocks.h"
#include "os/os.h"
#include "os/os_thread.h"

#define HUGE_WASTE_SHARE 4 /* the unused rest of the last huge page: at most this fraction (1/4) of a block */
#define DISCARD_TO_CLEAR_BYTES ((size_t)32 << 20)
#define UNITS_TO_SPREAD 16
#define ZONE_SHARE 8 /* of the address space that may be reserved, for each zone */

/* What the cells of a processor hold at most, and those of all processors as a share of memory. */
#define CELLS_BYTES_MOST ((uint64_t)8 << 20)
#define CELLS_SHARE 64
/* Cells are emptied once the heap has grown by this share of what they hold. */
#define CELLS_GROWN_SHARE 4

/* A smaller block is copied in less time than its pages are moved in. */
#define MOVED_BYTES_LEAST ((size_t)1 << 20)
#define MOVES_MOST 8192

/* ---- opening ----------------------------------------------------------------------------------- */

static int open_zones(void) {
    uint64_t used, total;
    int result = os_machine_usage(&used, &total);
    if (result < 0) return result;
    heap.bytes_most = total; /* glibc refuses a larger block with the right error */
    /* Twice the memory leaves room for holes; it is reserved as it is used. If address space is limited, leave
     * most of it to caches. What finds no room here goes to the allocator that was there before. */
    const uint64_t most = space_most(SPACE_FIRST) / ZONE_SHARE;
    const uint64_t wanted = 2 * total < most ? 2 * total : most;
    for (int i = 0; i < HEAP_ZONES; i++) {
        const bool huge = i == HEAP_HUGE;
        zone_open(&heap.zones[i], wanted, huge ? OS_HUGE_BYTES : os_page_bytes(), huge);
    }
    const uint64_t cells = total / CELLS_SHARE / os_processors();
    if (heap.zones[HEAP_PAGES].base)
        cells_open((cells < CELLS_BYTES_MOST ? cells : CELLS_BYTES_MOST) / os_page_bytes());
    heap_forget_left();
    return 0;
}

/* The account begins with what the heap has already. */
static void attach(vrange_account *account) {
    for (int i = 0; i < HEAP_ZONES; i++) heap_lock(&heap.zones[i]);
    for (int i = 0; i < HEAP_ZONES; i++) {
        const heap_zone *zone = &heap.zones[i];
        if (!zone->base) continue;
        const heap_usage now = heap_usage_of(zone);
        tally(&account->reserved_bytes, now.reserved);
        tally(&account->range_bytes, now.used + now.idle + now.offered);
        tally(&account->idle_bytes, now.idle);
        tally(&account->offered_bytes, now.offered);
        tally(&account->ranges, zone->blocks);
    }
    atomic_store(&heap.account, account);
    for (int i = 0; i < HEAP_ZONES; i++) pthread_mutex_unlock(&heap.zones[i].lock);
}

int heap_open(const char *name) {
    if (atomic_load(&heap.open) && (!name || heap_account())) return 0;
    vrange_account *account = name ? vrange_account_open(name, VRANGE_KIND_HEAP) : NULL;
    if (name && !account) return -ENOMEM;
    if (!name && !gate_try_enter()) return -EAGAIN;
    if (name) gate_enter();
    pthread_mutex_lock(&heap.lock);
    int result = atomic_load(&heap.open) ? 0 : open_zones();
    if (result == 0 && account && !heap_account()) {
        attach(account);
        account = NULL;
    }
    if (result == 0) atomic_store(&heap.open, true);
    if (result == 0 && name) caretaker_ensure();
    pthread_mutex_unlock(&heap.lock);
    gate_leave();
    if (account) vrange_account_close(account);
    return result;
}

void heap_use_huge_pages(bool use) { atomic_store(&heap.uses_huge, use); }

/* ---- zones ------------------------------------------------------------------------------------- */

static size_t rounded(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

static heap_zone *zone_for(size_t bytes) {
    if (atomic_load_explicit(&heap.uses_huge, memory_order_relaxed) && heap.zones[HEAP_HUGE].base &&
        rounded(bytes, OS_HUGE_BYTES) - bytes <= bytes / HUGE_WASTE_SHARE)
        return &heap.zones[HEAP_HUGE];
    return &heap.zones[HEAP_PAGES];
}

/* Without this, arrays of one size would lie a multiple of a power of two apart, and a loop over three of
 * them takes 1.5 times as long (measured at 256 MiB, with every allocator that places arrays that way). An
 * odd number of huge pages avoids that. The additional huge page is address space that is never touched. */
static uint32_t units_for(const heap_zone *zone, size_t bytes) {
    const uint32_t units = (uint32_t)((bytes + zone->unit_bytes - 1) / zone->unit_bytes);
    return zone->huge && units >= UNITS_TO_SPREAD ? units | 1 : units;
}

bool heap_has(const void *pointer) { return heap_zone_of(pointer) != NULL; }

size_t heap_spans(heap_span spans[HEAP_SPANS]) {
    _Static_assert(HEAP_SPANS == HEAP_ZONES, "a span for each zone");
    for (int i = 0; i < HEAP_ZONES; i++) {
        const heap_zone *zone = &heap.zones[i];
        spans[i] = (heap_span){(uintptr_t)zone->base, zone->base ? (size_t)zone->units * zone->unit_bytes : 0};
    }
    return HEAP_ZONES;
}

void heap_return_unused(void) {
    if (!atomic_load_explicit(&heap.open, memory_order_acquire)) return;
    for (int i = 0; i < HEAP_ZONES; i++) {
        heap_zone *zone = &heap.zones[i];
        if (!zone->base) continue;
        heap_lock(zone);
        const heap_usage before = heap_usage_of(zone);
        if (i == HEAP_PAGES) heap_empty_cells(os_now_ns(), UINT64_MAX);
        zone_forget_last(zone);
        zone_return_unused(zone);
        heap_unlock(zone, &before);
    }
}

/* ---- blocks ------------------------------------------------------------------------------------ */

/* Cells are of use to one processor only. If the heap grows while they hold much, their blocks go back to the
 * zone, where every allocation finds them. Under the zone's lock. */
static void note_growth(uint64_t units) {
    if (!units) return;
    heap.grown_units += units;
    const uint64_t held = cells_read().units;
    if (!held || heap.grown_units < held / CELLS_GROWN_SHARE) return;
    heap.grown_units = 0;
    heap_empty_cells(os_now_ns(), UINT64_MAX);
}

typedef struct {
    void *block;
    uint32_t stale_units; /* may have old content */
    uint64_t new_units;   /* were not idle: the kernel may have taken what was offered */
    bool exceeds_peak;
} taken_block;

static taken_block take_from_zone(heap_zone *zone, uint32_t units) {
    heap_usage before;
    taken_block taken = {0};
    if (!heap_try_enter(zone, &before)) return taken;
    taken.block = zone_take(zone, units, &taken.stale_units);
    if (taken.block) taken.new_units = units - (before.idle - zone_idle_bytes(zone)) / zone->unit_bytes;
    if (taken.block && !zone->huge) note_growth(taken.new_units);
    taken.exceeds_peak = heap_note_peak(zone, units);
    heap_leave(zone, &before);
    return taken;
}

/* A block gets new pages. Where little is left, this thread does what the caretaker might do too late. */
static void note_new_pages(size_t bytes) {
    const uint64_t left = heap_left_with_new(bytes);
    if (left < HEAP_SHORT_BYTES) small_blocks_return(left);
}

void *heap_allocate(size_t bytes, size_t *stale_bytes) {
    if (bytes < HEAP_BLOCK_BYTES_LEAST || !atomic_load_explicit(&heap.open, memory_order_acquire) ||
        bytes > heap.bytes_most)
        return NULL;
    caretaker_rouse();
    const uint64_t start = heap_account() && stats_times_fast(STATS_FAST_TAKE) ? stats_now_ns() : 0;
    heap_zone *zone = zone_for(bytes);
    const uint32_t units = units_for(zone, bytes);
    cell_loan loan;
    const cell_block found = zone->huge ? (cell_block){0} : cells_take(units, &loan);
    if (found.first) {
        *stale_bytes = bytes;
        if (heap_account())
            stats_record_fast(STATS_FAST_TAKE, VRANGE_KIND_HEAP, VRANGE_REALLOCATE_RESIDENT, start);
        return zone_use_again(zone, found.first, loan);
    }
    stats_was_slow(STATS_FAST_TAKE);
    const uint64_t slow_start = start || !heap_account() ? start : stats_now_ns();
    const taken_block taken = take_from_zone(zone, units);
    if (!taken.block) return NULL;
    *stale_bytes = (size_t)taken.stale_units * zone->unit_bytes;
    if (*stale_bytes > bytes) *stale_bytes = bytes;
    if (taken.stale_units && heap_account())
        heap_record(VRANGE_REALLOCATE_RESIDENT, stats_now_ns() - slow_start);
    if (taken.exceeds_peak) heap_keep_peak(zone, bytes);
    if (taken.new_units) note_new_pages(taken.new_units * zone->unit_bytes);
    return taken.block;
}

void heap_clear(void *block, size_t stale_bytes) {
    size_t discarded = 0;
    /* From this size on glibc maps new memory. Discarding does the same: untouched pages cost nothing. */
    if (stale_bytes >= DISCARD_TO_CLEAR_BYTES) {
        discarded = stale_bytes / OS_HUGE_BYTES * OS_HUGE_BYTES;
        if (os_discard(block, discarded) < 0) discarded = 0;
    }
    memset((char *)block + discarded, 0, stale_bytes - discarded);
}

static void refuse(void) {
    static const char message[] =
        "vrange: a block was freed that is not allocated: it was freed twice, or overwritten\n";
    os_complain(message, sizeof message - 1);
    abort();
}

size_t heap_block_bytes(const void *block) {
    heap_zone *zone = heap_zone_of(block);
    const uint32_t units = zone_block_units(zone, block);
    if (!units) refuse();
    return (size_t)units * zone->unit_bytes;
}

bool heap_resize(void *block, size_t bytes) {
    heap_zone *zone = heap_zone_of(block);
    if (!zone_block_units(zone, block)) refuse();
    /* In the wrong zone the block would hold a huge page for little content, or none for much. */
    if (bytes > heap.bytes_most || zone != zone_for(bytes)) return false;
    heap_usage before;
    if (!heap_try_enter(zone, &before)) return false;
    const bool done = zone_resize(zone, block, units_for(zone, bytes));
    const bool exceeds_peak = heap_note_peak(zone, units_for(zone, bytes));
    heap_leave(zone, &before);
    if (exceeds_peak) heap_keep_peak(zone, bytes);
    return done;
}

int heap_move(void *to, void *from, size_t bytes) {
    /* Each move may leave two mappings more, and a process may have 65530 of them. */
    static _Atomic uint32_t moves;
    const size_t moved = rounded(bytes, os_page_bytes());
    if (bytes < MOVED_BYTES_LEAST || atomic_load_explicit(&moves, memory_order_relaxed) >= MOVES_MOST)
        return -EINVAL;
    if (os_move_pages(to, from, moved) < 0) {
        /* The kernel may unmap the destination before it refuses: older ones refuse if the old block lies in
         * several mappings, as after other moves, or if the program has protected a part of it. */
        if (os_map_missing(to, moved) < 0) return -ENOMEM;
        if (heap_zone_of(to)->huge) os_prefer_huge_pages(to, moved);
        return -EINVAL;
    }
    atomic_fetch_add_explicit(&moves, 1, memory_order_relaxed);
    return 0;
}

static void offer_soon(heap_zone *zone, uint64_t idle, uint64_t now) {
    caretaker_ensure(); /* there is none before the first such block, and in the child of a fork */
    if (caretaker_is_absent()) heap_offer(true);
    else if (idle > heap_idle_most(now)) heap_offer_idle(zone);
}

static void give_to_zone(heap_zone *zone, void *block, bool is_warm) {
    if (!gate_try_enter()) {
        heap_defer(block);
        return;
    }
    const uint64_t now = os_now_coarse_ns(); /* takes less time to read, and some milliseconds don't matter */
    heap_give_deferred(now);
    heap_lock(zone);
    const heap_usage before = heap_usage_of(zone);
    const uint32_t span = zone_give(zone, zone_unit_of(zone, block), now);
    if (is_warm) zone_note_warm(zone, span);
    const uint64_t idle = zone_idle_bytes(zone);
    heap_unlock(zone, &before);
    if (!atomic_load_explicit(&heap.is_retired, memory_order_relaxed)) offer_soon(zone, idle, now);
    gate_leave();
}

void heap_free(void *block) {
    heap_zone *zone = heap_zone_of(block);
    cell_loan loan;
    const uint32_t units = zone_set_aside(zone, block, &loan);
    if (!units) refuse();
    if (loan) cells_repay(loan);
    const bool is_counted = heap_account() != NULL;
    const uint64_t start = is_counted && stats_times_fast(STATS_FAST_FREE) ? stats_now_ns() : 0;
    const uint32_t first = zone_unit_of(zone, block);
    cell_block left = {first, units};
    /* Cells are emptied by the thread: without it the block goes to the zone, and starts one. */
    if (!zone->huge && caretaker_is_running()) left = cells_put(left);
    if (!left.first) {
        caretaker_rouse(); /* the block is offered once no allocation has used it for a moment */
        if (is_counted) stats_record_fast(STATS_FAST_FREE, VRANGE_KIND_HEAP, VRANGE_FREE_RELEASED, start);
        return;
    }
    stats_was_slow(STATS_FAST_FREE);
    const uint64_t slow_start = start || !is_counted ? start : stats_now_ns();
    /* What a full row gives up is its oldest block. */
    give_to_zone(zone, zone->base + (size_t)left.first * zone->unit_bytes, left.first == first);
    caretaker_rouse();
    if (is_counted) heap_record(VRANGE_FREE_RELEASED, stats_now_ns() - slow_start);
}

bool heap_retire(void) {
    if (heap_account() || !caretaker_is_of_this_process()) return false;
    caretaker_stop();
    gate_enter();
    heap_offer(true);
    atomic_store(&heap.is_retired, true);
    gate_leave();
    return true;
}

static void forget_waiters(heap_zone *zone) {
    atomic_store(&zone->waiting, 0);
    atomic_store(&zone->yielding, 0);
}

void heap_renew_locks(void) {
    (void)os_lock_renew(&heap.lock);
    for (int i = 0; i < HEAP_ZONES; i++) {
        heap_zone *zone = &heap.zones[i];
        forget_waiters(zone);
        if (os_lock_renew(&zone->lock)) zone->torn = true;
    }
}

void heap_after_fork(void) {
    /* Who lets others in waits outside the gate. */
    for (int i = 0; i < HEAP_ZONES; i++) forget_waiters(&heap.zones[i]);
    cells_after_fork();
    small_blocks_after_fork();
}
