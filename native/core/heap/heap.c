/* The heap: blocks that are used again without a page fault, and that the kernel can reclaim when it
 * needs memory.
 *
 * A freed block is idle: it keeps its pages, and the next block of its size is cut from it without a
 * system call. The reserve thread offers (MADV_FREE) what has been idle for a while. It does so before it
 * offers any cached value, because the content of a freed block is worth nothing. The freeing thread never
 * offers: a loop of temporaries would pay once for offering each block and again for taking it back.
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
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/space_budget.h"
#include "base/caretaker.h"
#include "base/gate.h"
#include "heap/heap_zone.h"
#include "os/os.h"
#include "pressure/limits.h"
#include "os/os_thread.h"
#include "base/rung.h"
#include "counters/stats.h"

/* Longer than a temporary of 256 MiB stays unused between two iterations of a loop. */
#define IDLE_NS 100000000u
/* An allocation that arrives during a batch waits until the batch ends: some hundred microseconds, or
 * milliseconds on kernels that need milliseconds to free a huge page. */
#define BATCH_BYTES ((size_t)4 << 20)
#define LET_IN_TRIES 100
#define LET_IN_NS 20000u
#define HUGE_WASTE_SHARE 4 /* the unused rest of the last huge page: at most this fraction (1/4) of a block */
#define DISCARD_TO_CLEAR_BYTES ((size_t)32 << 20)
#define UNITS_TO_SPREAD 16
#define ZONE_SHARE 8 /* of the address space that may be reserved, for each zone */

enum {
    PAGES,
    HUGE,
    ZONES,
};

static struct {
    pthread_mutex_t lock; /* held while the heap is opened */
    heap_zone zones[ZONES];
    vrange_account *account;
    size_t bytes_most; /* the machine could never back a larger block; glibc refuses it with the right error */
    _Atomic bool open, uses_huge;
    _Atomic uint64_t trimmed_bytes;
} heap = {.lock = PTHREAD_MUTEX_INITIALIZER,
          .zones = {{.lock = PTHREAD_MUTEX_INITIALIZER}, {.lock = PTHREAD_MUTEX_INITIALIZER}}};

/* ---- opening ----------------------------------------------------------------------------------- */

static int open_zones(void) {
    uint64_t usage, total;
    int result = os_machine_usage(&usage, &total);
    if (result < 0) return result;
    heap.bytes_most = total;
    /* Twice the memory leaves room for holes. If address space is limited, leave most of it to caches. What
     * finds no room here goes to the allocator that was there before, perhaps all of it. */
    const uint64_t most = space_most(SPACE_FIRST) / ZONE_SHARE;
    const uint64_t wanted = 2 * total < most ? 2 * total : most;
    uint64_t reserved = 0;
    for (int i = 0; i < ZONES; i++) {
        const bool huge = i == HUGE;
        if (zone_open(&heap.zones[i], wanted, huge ? OS_HUGE_BYTES : os_page_bytes(), huge) == 0)
            reserved += wanted;
    }
    tally(&heap.account->reserved_bytes, reserved);
    return 0;
}

int heap_open(void) {
    if (atomic_load(&heap.open)) return 0;
    vrange_account *account = vrange_account_open("numpy", VRANGE_KIND_HEAP);
    if (!account) return -ENOMEM;
    gate_enter();
    pthread_mutex_lock(&heap.lock);
    int result = 0;
    if (!atomic_load(&heap.open)) {
        heap.account = account;
        account = NULL;
        result = open_zones();
        if (result == 0) {
            atomic_store(&heap.open, true);
        } else {
            account = heap.account;
            heap.account = NULL;
        }
    }
    caretaker_ensure();
    pthread_mutex_unlock(&heap.lock);
    gate_leave();
    if (account) vrange_account_close(account);
    return result;
}

void heap_use_huge_pages(bool use) { atomic_store(&heap.uses_huge, use); }

/* ---- zones ------------------------------------------------------------------------------------- */

typedef struct {
    uint64_t used, idle, offered;
} usage;

static usage usage_of(const heap_zone *zone) {
    return (usage){zone->used_units * zone->unit_bytes, zone_idle_bytes(zone),
                   zone_offered_bytes(zone)};
}

static void lock_zone(heap_zone *zone) {
    if (pthread_mutex_trylock(&zone->lock) == 0) return;
    atomic_fetch_add(&zone->waiting, 1);
    pthread_mutex_lock(&zone->lock);
    atomic_fetch_sub(&zone->waiting, 1);
}

/* Called between the steps of long work. pthread mutexes are unfair: the releasing thread usually wins the
 * lock back before the waiters wake up, so this thread yields to them. The wait is bounded, because a
 * waiter without a processor may take long to run. */
static void let_others_in(heap_zone *zone) {
    for (int tries = 0; tries < LET_IN_TRIES && atomic_load(&zone->waiting); tries++)
        os_sleep_ns(LET_IN_NS);
}

static void enter(heap_zone *zone, usage *before) {
    gate_enter();
    lock_zone(zone);
    *before = usage_of(zone);
}

/* The account is not part of the bytes that the reserve counts. The kernel may have reclaimed heap bytes
 * already without any notice; if the reserve relied on them, it would offer too little else. */
static void count(const heap_zone *zone, const usage *before) {
    const usage now = usage_of(zone);
    vrange_account *account = heap.account;
    tally(&account->range_bytes,
          now.used + now.idle + now.offered - before->used - before->idle - before->offered);
    tally(&account->idle_bytes, now.idle - before->idle);
    tally(&account->offered_bytes, now.offered - before->offered);
}

static void leave(heap_zone *zone, const usage *before) {
    count(zone, before);
    pthread_mutex_unlock(&zone->lock);
    gate_leave();
}

static size_t rounded(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

static heap_zone *zone_for(size_t bytes) {
    if (atomic_load_explicit(&heap.uses_huge, memory_order_relaxed) && heap.zones[HUGE].base &&
        rounded(bytes, OS_HUGE_BYTES) - bytes <= bytes / HUGE_WASTE_SHARE)
        return &heap.zones[HUGE];
    return &heap.zones[PAGES];
}

static heap_zone *zone_of(const void *pointer) {
    for (int i = 0; i < ZONES; i++) {
        if (zone_has(&heap.zones[i], pointer)) return &heap.zones[i];
    }
    return NULL;
}

/* Without this, arrays of one size would lie a multiple of a power of two apart, and a loop over three of
 * them takes 1.5 times as long (measured at 256 MiB, with every allocator that places arrays that way). An
 * odd number of huge pages avoids that. The additional huge page is address space that is never touched. */
static uint32_t units_for(const heap_zone *zone, size_t bytes) {
    const uint32_t units = (uint32_t)((bytes + zone->unit_bytes - 1) / zone->unit_bytes);
    return zone->huge && units >= UNITS_TO_SPREAD ? units | 1 : units;
}

bool heap_has(const void *pointer) { return zone_of(pointer) != NULL; }

/* ---- blocks ------------------------------------------------------------------------------------ */

void *heap_allocate(size_t bytes, size_t *stale_bytes) {
    if (bytes < HEAP_BLOCK_BYTES_LEAST || bytes > heap.bytes_most || !atomic_load(&heap.open))
        return NULL;
    caretaker_rouse();
    const uint64_t start = stats_now_ns();
    heap_zone *zone = zone_for(bytes);
    uint32_t stale_units = 0;
    usage before;
    enter(zone, &before);
    void *block = zone_take(zone, units_for(zone, bytes), &stale_units);
    if (block) tally(&heap.account->ranges, 1);
    leave(zone, &before);
    if (!block) return NULL;
    *stale_bytes = (size_t)stale_units * zone->unit_bytes;
    if (*stale_bytes > bytes) *stale_bytes = bytes;
    if (stale_units)
        vrange_latency_record(VRANGE_KIND_HEAP, VRANGE_REALLOCATE_RESIDENT, stats_now_ns() - start);
    return block;
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

static void refuse(const void *pointer) {
    (void)pointer;
    static const char message[] =
        "vrange: array data was freed that is not allocated: it was freed twice, or overwritten\n";
    os_complain(message, sizeof message - 1);
    abort();
}

size_t heap_block_bytes(const void *block) {
    heap_zone *zone = zone_of(block);
    usage before;
    enter(zone, &before);
    const uint32_t units = zone_block_units(zone, block);
    leave(zone, &before);
    if (!units) refuse(block);
    return (size_t)units * zone->unit_bytes;
}

bool heap_resize(void *block, size_t bytes) {
    heap_zone *zone = zone_of(block);
    /* In the wrong zone the block would hold a huge page for little content, or none for much. */
    if (bytes > heap.bytes_most || zone != zone_for(bytes)) return false;
    usage before;
    enter(zone, &before);
    bool done = zone_resize(zone, block, units_for(zone, bytes));
    leave(zone, &before);
    return done;
}

void heap_free(void *block) {
    const uint64_t start = stats_now_ns();
    heap_zone *zone = zone_of(block);
    usage before;
    enter(zone, &before);
    if (!zone_block_units(zone, block)) refuse(block);
    zone_give(zone, block, os_now_ns());
    untally(&heap.account->ranges, 1);
    count(zone, &before);
    pthread_mutex_unlock(&zone->lock);
    /* The child of a fork has no reserve thread until something starts one, so offer the block here. */
    caretaker_ensure();
    caretaker_rouse(); /* the block is offered once nobody has wanted it for a moment */
    if (caretaker_is_absent()) heap_offer(true);
    gate_leave();
    vrange_latency_record(VRANGE_KIND_HEAP, VRANGE_FREE_RELEASED, stats_now_ns() - start);
}

/* ---- offering and trimming ---------------------------------------------------------------------- */

static void offer_zone(heap_zone *zone, uint64_t before_ns) {
    const bool discards = vrange_rung() == VRANGE_RUNG_EAGER || limits_has_set();
    for (bool more = true; more;) {
        size_t bytes = 0;
        uint64_t freed_ns = 0;
        lock_zone(zone);
        const usage before = usage_of(zone);
        /* Offer under the lock: a thread that took the block between the two steps would lose what it wrote. */
        void *part = zone_idle_part(zone, before_ns, BATCH_BYTES, &bytes, &freed_ns);
        more = part != NULL;
        /* If the kernel refuses, the part stays resident and counts as offered: nothing more can be done. */
        if (part) (void)(discards ? os_discard(part, bytes) : os_lazyfree(part, bytes));
        count(zone, &before);
        pthread_mutex_unlock(&zone->lock);
        if (part) {
            const uint64_t now = stats_now_ns();
            vrange_latency_record(VRANGE_KIND_HEAP, VRANGE_FREE_OFFERED,
                                  now > freed_ns ? now - freed_ns : 0);
            let_others_in(zone);
        }
    }
}

void heap_offer(bool at_once) {
    if (!atomic_load(&heap.open) || atomic_load(&heap.account->idle_bytes) == 0) return;
    const uint64_t now = os_now_ns(), before_ns = at_once ? now : now - IDLE_NS;
    for (int i = 0; i < ZONES; i++) {
        if (heap.zones[i].base) offer_zone(&heap.zones[i], before_ns);
    }
}

static uint64_t trim_zone(heap_zone *zone) {
    uint64_t gone = 0;
    uint32_t from = 1;
    for (bool more = true; more;) {
        usage before;
        size_t bytes = 0;
        enter(zone, &before);
        char *part = zone_free_part(zone, &from, BATCH_BYTES, &bytes);
        more = part != NULL;
        if (part) {
            const size_t resident = os_resident_bytes(part, part + bytes);
            if (resident && os_discard(part, bytes) == 0) gone += resident;
        }
        leave(zone, &before);
        if (more) let_others_in(zone);
    }
    return gone;
}

uint64_t vrange_heap_trim(void) {
    uint64_t gone = 0;
    if (!atomic_load(&heap.open)) return 0;
    for (int i = 0; i < ZONES; i++) {
        if (heap.zones[i].base) gone += trim_zone(&heap.zones[i]);
    }
    tally(&heap.trimmed_bytes, gone);
    return gone;
}

void vrange_heap_read(vrange_heap_info *out) {
    *out = (vrange_heap_info){.trimmed_bytes = atomic_load(&heap.trimmed_bytes)};
    if (!atomic_load(&heap.open)) return;
    for (int i = 0; i < ZONES; i++) {
        heap_zone *zone = &heap.zones[i];
        if (!zone->base) continue;
        usage now;
        enter(zone, &now);
        out->blocks += zone->blocks;
        out->reserved_bytes += (uint64_t)zone->units * zone->unit_bytes;
        char *from = zone->base, *to = from + (size_t)zone->fresh * zone->unit_bytes;
        leave(zone, &now);
        out->used_bytes += now.used;
        out->idle_bytes += now.idle;
        out->offered_bytes += now.offered;
        out->resident_bytes += os_resident_bytes(from + zone->unit_bytes, to);
    }
}
