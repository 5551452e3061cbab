/* Offering freed blocks, discarding what nobody used again, trimming, and the heap's figures.
 *
 * Both work in steps under a zone's lock. An allocation that arrives during a step waits until it ends: some
 * hundred microseconds, or milliseconds on kernels that need milliseconds to free a huge page. */
#include "heap/heap_offer.h"

#include "base/amounts.h"
#include "base/gate.h"
#include "base/rung.h"
#include "heap/heap_cells.h"
#include "heap/heap_left.h"
#include "heap/heap_state.h"
#include "os/os.h"
#include "pressure/memory_limits.h"

/* Longer than a temporary of 256 MiB stays unused between two iterations of a loop. */
#define IDLE_NS 100000000u
#define RETURN_NS 1000000000u /* a loop that allocates again within this time meets no page fault */
#define KEPT_NS_LEAST 2000000000u
#define SHORT_IDLE_NS 5000000u /* longer than a block of some MiB stays unused between two copies */
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
        const uint64_t now = os_now_ns();
        heap_lock(zone);
        const heap_usage before = heap_usage_of(zone);
        /* Offer under the lock: a thread that took the block between the two steps would lose what it wrote. */
        void *part = zone_idle_part(zone, before_ns, discards ? 0 : now, HEAP_STEP_BYTES, &bytes, &freed_ns);
        more = part != NULL;
        /* If the kernel refuses, the part stays resident and counts as offered: nothing more can be done. */
        if (part) (void)offer_part(part, bytes, discards);
        heap_unlock(zone, &before);
        if (part) {
            const uint64_t then = stats_now_ns();
            heap_record(VRANGE_FREE_OFFERED, then > freed_ns ? then - freed_ns : 0);
            heap_let_others_in(zone);
        }
    }
}

/* Returns in how many nanoseconds more is due. */
static uint64_t discard_in_zone(heap_zone *zone) {
    for (;;) {
        size_t bytes = 0;
        uint64_t offered_ns = 0;
        heap_lock(zone);
        const heap_usage before = heap_usage_of(zone);
        const uint64_t cost_ns = heap_kept_ns(zone, zone->queues[HEAP_OFFERED].units), now = os_now_ns();
        const uint64_t kept_ns = cost_ns > KEPT_NS_LEAST ? cost_ns : KEPT_NS_LEAST;
        void *part = zone_offered_part(zone, now - kept_ns, HEAP_STEP_BYTES, &bytes, &offered_ns);
        if (part) (void)os_discard(part, bytes);
        heap_unlock(zone, &before);
        if (!part) return offered_ns == UINT64_MAX ? UINT64_MAX : offered_ns + kept_ns - now;
        heap_let_others_in(zone);
    }
}

uint64_t heap_discard_unused(void) {
    uint64_t due_ns = UINT64_MAX;
    if (!atomic_load(&heap.open)) return due_ns;
    for (int i = 0; i < HEAP_ZONES; i++) {
        if (heap.zones[i].base) due_ns = lesser(due_ns, discard_in_zone(&heap.zones[i]));
    }
    return due_ns;
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

bool heap_is_open(void) { return atomic_load(&heap.open); }

/* Offers what has been idle since before `before_ns`, in cells or else in zones. Returns the bytes that are
 * idle still. */
static uint64_t offer_since(uint64_t now_ns, uint64_t before_ns) {
    uint64_t idle = 0;
    empty_cells(now_ns, before_ns);
    for (int i = 0; i < HEAP_ZONES; i++) {
        heap_zone *zone = &heap.zones[i];
        if (!zone->base) continue;
        offer_zone(zone, lesser(before_ns, now_ns));
        heap_lock(zone);
        idle += zone_idle_bytes(zone);
        pthread_mutex_unlock(&zone->lock);
    }
    heap_count_cells();
    return idle + heap_cell_bytes();
}

bool heap_offer(bool at_once) {
    if (!atomic_load(&heap.open)) return false;
    const uint64_t now = os_now_ns();
    return offer_since(now, at_once ? UINT64_MAX : now - (is_judged() ? RETURN_NS : IDLE_NS)) > 0;
}

void heap_offer_idle(heap_zone *zone) { offer_zone(zone, os_now_ns()); }

void heap_offer_near(uint64_t left) {
    if (!atomic_load(&heap.open)) return;
    const uint64_t now = os_now_ns();
    const bool is_short = left < HEAP_SHORT_BYTES;
    if (is_short || offer_since(now, now - SHORT_IDLE_NS) > heap_idle_most_of(left)) heap_offer(true);
}

/* Returns the resident bytes of free parts, which are discarded or only counted. */
static uint64_t trim_zone(heap_zone *zone, bool discards) {
    uint64_t found = 0;
    uint32_t from = 1;
    for (bool more = true; more;) {
        heap_usage before;
        size_t bytes = 0;
        heap_enter(zone, &before);
        char *part = zone_free_part(zone, &from, HEAP_STEP_BYTES, &bytes, discards);
        more = part != NULL;
        if (part) {
            const size_t resident = os_resident_bytes(part, part + bytes);
            if (resident && (!discards || os_discard(part, bytes) == 0)) found += resident;
        }
        heap_leave(zone, &before);
        if (more) heap_let_others_in(zone);
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
    return trim_zones(false) + heap_cell_bytes();
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
