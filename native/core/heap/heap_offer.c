/* Offering freed blocks, trimming, and the heap's figures.
 *
 * Both work in steps under a zone's lock. An allocation that arrives during a step waits until it ends: some
 * hundred microseconds, or milliseconds on kernels that need milliseconds to free a huge page. */
#include "heap/heap_offer.h"

#include "base/gate.h"
#include "base/rung.h"
#include "heap/heap_cells.h"
#include "heap/heap_state.h"
#include "os/os.h"
#include "pressure/memory_limits.h"

/* Longer than a temporary of 256 MiB stays unused between two iterations of a loop. */
#define IDLE_NS 100000000u
#define RETURN_NS 1000000000u /* a loop that allocates again within this time meets no page fault */
#define BATCH_BYTES ((size_t)4 << 20)
#define LET_IN_TRIES 100
#define LET_IN_NS 20000u

/* Called between the steps of long work. pthread mutexes are unfair: the releasing thread usually wins the
 * lock back before the waiters wake up, so this thread yields to them. The wait is bounded, because a
 * waiter without a processor may take long to run. */
static void let_others_in(heap_zone *zone) {
    for (int tries = 0; tries < LET_IN_TRIES && atomic_load(&zone->waiting); tries++)
        os_sleep_ns(LET_IN_NS);
}

static int offer_part(void *part, size_t bytes, bool discards) {
    return discards || os_lazyfree(part, bytes) < 0 ? os_discard(part, bytes) : 0;
}

/* Whether the process is judged by its resident set, of which the kernel takes nothing while it has memory. */
static bool is_judged(void) { return atomic_load(&heap.returns_idle) || limits_has_set(); }

/* Without an account nothing but malloc uses this library, and its rung was never looked up. */
static bool has_no_lazyfree(void) { return heap_account() && vrange_rung() == VRANGE_RUNG_EAGER; }

void vrange_heap_return_idle(int returns) { atomic_store(&heap.returns_idle, returns != 0); }

static void offer_zone(heap_zone *zone, uint64_t before_ns) {
    const bool discards = is_judged() || has_no_lazyfree();
    for (bool more = true; more;) {
        size_t bytes = 0;
        uint64_t freed_ns = 0;
        heap_lock(zone);
        const heap_usage before = heap_usage_of(zone);
        /* Offer under the lock: a thread that took the block between the two steps would lose what it wrote. */
        void *part = zone_idle_part(zone, before_ns, BATCH_BYTES, &bytes, &freed_ns);
        more = part != NULL;
        /* If the kernel refuses, the part stays resident and counts as offered: nothing more can be done. */
        if (part) (void)offer_part(part, bytes, discards);
        heap_unlock(zone, &before);
        if (part) {
            const uint64_t now = stats_now_ns();
            heap_record(VRANGE_FREE_OFFERED, now > freed_ns ? now - freed_ns : 0);
            let_others_in(zone);
        }
    }
}

static void empty_cells(uint64_t now_ns, uint64_t before_ns) {
    heap_zone *zone = &heap.zones[HEAP_PAGES];
    if (!zone->base) return;
    heap_give_deferred(now_ns);
    heap_lock(zone);
    const heap_usage before = heap_usage_of(zone);
    heap_empty_cells(now_ns, before_ns);
    heap_unlock(zone, &before);
}

void heap_set_short(bool is_short) { atomic_store(&heap.is_short, is_short); }

bool heap_is_open(void) { return atomic_load(&heap.open); }

bool heap_offer(bool at_once) {
    if (!atomic_load(&heap.open)) return false;
    const uint64_t now = os_now_ns(), before_ns = now - (is_judged() ? RETURN_NS : IDLE_NS);
    uint64_t idle = 0;
    empty_cells(now, at_once ? UINT64_MAX : before_ns);
    for (int i = 0; i < HEAP_ZONES; i++) {
        heap_zone *zone = &heap.zones[i];
        if (!zone->base) continue;
        offer_zone(zone, at_once ? now : before_ns);
        heap_lock(zone);
        idle += zone->idle_units;
        pthread_mutex_unlock(&zone->lock);
    }
    heap_count_cells();
    return idle || cells_read().blocks;
}

/* Returns the resident bytes of free parts, which are discarded or only counted. */
static uint64_t trim_zone(heap_zone *zone, bool discards) {
    uint64_t found = 0;
    uint32_t from = 1;
    for (bool more = true; more;) {
        heap_usage before;
        size_t bytes = 0;
        heap_enter(zone, &before);
        char *part = zone_free_part(zone, &from, BATCH_BYTES, &bytes, discards);
        more = part != NULL;
        if (part) {
            const size_t resident = os_resident_bytes(part, part + bytes);
            if (resident && (!discards || os_discard(part, bytes) == 0)) found += resident;
        }
        heap_leave(zone, &before);
        if (more) let_others_in(zone);
    }
    return found;
}

static uint64_t trim_zones(bool discards) {
    uint64_t found = 0;
    for (int i = 0; i < HEAP_ZONES; i++) {
        if (heap.zones[i].base) found += trim_zone(&heap.zones[i], discards);
    }
    return found;
}

uint64_t vrange_heap_trim(void) {
    if (!atomic_load(&heap.open)) return 0;
    gate_enter();
    empty_cells(os_now_ns(), UINT64_MAX);
    heap_count_cells();
    gate_leave();
    const uint64_t gone = trim_zones(true);
    tally(&heap.trimmed_bytes, gone);
    return gone;
}

uint64_t vrange_heap_unused(void) {
    if (!atomic_load(&heap.open)) return 0;
    return trim_zones(false) + cells_read().units * heap.zones[HEAP_PAGES].unit_bytes;
}

void vrange_heap_read(vrange_heap_info *out) {
    *out = (vrange_heap_info){.trimmed_bytes = atomic_load(&heap.trimmed_bytes)};
    if (!atomic_load(&heap.open)) return;
    gate_enter();
    heap_give_deferred(os_now_ns());
    gate_leave();
    for (int i = 0; i < HEAP_ZONES; i++) {
        heap_zone *zone = &heap.zones[i];
        if (!zone->base) continue;
        heap_usage now;
        heap_enter(zone, &now);
        const cells_content aside = i == HEAP_PAGES ? cells_read() : (cells_content){0};
        out->blocks += zone->blocks - aside.blocks;
        out->reserved_bytes += now.reserved;
        char *from = zone->base, *to = from + (size_t)zone->fresh * zone->unit_bytes;
        heap_leave(zone, &now);
        out->used_bytes += now.used - aside.units * zone->unit_bytes;
        out->idle_bytes += now.idle + aside.units * zone->unit_bytes;
        out->offered_bytes += now.offered;
        out->resident_bytes += os_resident_bytes(from + zone->unit_bytes, to);
    }
}
