/* Keeping to the peak; see heap_peak.h.
 *
 * Where blocks grow, as those of a DataFrame that is concatenated in a loop, none of the freed ones is large
 * enough for the next. They would lie idle while new pages are used, and the process would be larger than with
 * an allocator that returns each at once. So the thread whose block needs new pages discards as many that are
 * idle: what has been offered, then what has not been used for some milliseconds. A block that is small beside
 * the heap makes it little larger, and what is idle is soon used by others of its kind.
 *
 * Two blocks that can't use each other's memory may be needed in turn. Then each page that is discarded is soon
 * needed again. So once as much as the whole peak gave way, nothing more does for as long as it had to be kept
 * (heap_kept_ns), and the peak rises to what both need. Blocks of 32 MiB and more have an account of their
 * own, with a shorter time, as a program meets those page faults without vrange, too: glibc maps and unmaps
 * each.
 *
 * The interpreter maps its arenas itself. Where its objects grow, as those of a document that is parsed, a text
 * that was freed before would lie idle beside them. So its arenas count as used. */
#include "heap/heap_peak.h"

#include "heap/heap_state.h"
#include "os/os.h"

#define IDLE_NS 10000000u
#define BLOCK_SHARE 16 /* a smaller part of the peak is a small block */
#define MAPPED_BYTES ((size_t)32 << 20) /* glibc's DEFAULT_MMAP_THRESHOLD_MAX, mallopt(3) */
#define MAPPED_KEPT_SHARE 10
/* Smaller parts would be a system call for each block that is allocated. */
#define PART_BYTES_LEAST ((size_t)1 << 20)

/* The kernel may have taken some of what is offered. */
static uint64_t units_in_use(const heap_zone *zone) {
    const uint64_t elsewhere = atomic_load_explicit(&heap.elsewhere_bytes, memory_order_relaxed);
    return zone->used_units + zone->queues[HEAP_IDLE].units + zone->queues[HEAP_OFFERED].units +
           elsewhere / zone->unit_bytes;
}

static bool exceeds_peak(const heap_zone *zone) { return units_in_use(zone) > zone->peak_units; }

bool heap_note_peak(heap_zone *zone, uint32_t units) {
    if (!exceeds_peak(zone)) return false;
    if (units >= zone->peak_units / BLOCK_SHARE) return true;
    zone->peak_units = units_in_use(zone);
    return false;
}

static int kind_of(size_t block_bytes) {
    return block_bytes >= MAPPED_BYTES ? HEAP_BLOCK_MAPPED : HEAP_BLOCK_ORDINARY;
}

static uint64_t kept_ns(const heap_zone *zone, uint64_t units, int kind) {
    return heap_kept_ns(zone, units) / (kind == HEAP_BLOCK_MAPPED ? MAPPED_KEPT_SHARE : 1);
}

static bool may_discard(heap_zone *zone, size_t bytes, int kind, uint64_t now) {
    heap_gave_way *gave_way = &zone->gave_way[kind];
    if (gave_way->until_ns <= now) *gave_way = (heap_gave_way){.until_ns = now};
    const uint64_t kept = kept_ns(zone, bytes / zone->unit_bytes, kind);
    if (gave_way->until_ns + kept - now > kept_ns(zone, zone->peak_units, kind)) gave_way->is_over = true;
    return !gave_way->is_over;
}

/* Returns whether a part was discarded. Under the zone's lock. */
static bool discard_part(heap_zone *zone, int kind) {
    const uint64_t now = os_now_ns();
    const size_t excess = (size_t)(units_in_use(zone) - zone->peak_units) * zone->unit_bytes;
    const size_t most = excess < PART_BYTES_LEAST  ? PART_BYTES_LEAST
                        : excess > HEAP_STEP_BYTES ? HEAP_STEP_BYTES
                                                   : excess;
    size_t bytes;
    uint64_t since_ns;
    if (!may_discard(zone, most, kind, now)) return false;
    void *part = zone_offered_part(zone, now, most, &bytes, &since_ns);
    if (!part) part = zone_idle_part(zone, now - IDLE_NS, 0, most, &bytes, &since_ns);
    if (!part) return false;
    zone->gave_way[kind].until_ns += kept_ns(zone, bytes / zone->unit_bytes, kind);
    (void)os_discard(part, bytes); /* if the kernel refuses, nothing more can be done */
    return true;
}

void heap_keep_peak(heap_zone *zone, size_t block_bytes) {
    const int kind = kind_of(block_bytes);
    for (bool more = true; more;) {
        heap_usage before;
        if (!heap_try_enter(zone, &before)) return;
        if (exceeds_peak(zone) && !discard_part(zone, kind)) zone->peak_units = units_in_use(zone);
        more = exceeds_peak(zone);
        heap_leave(zone, &before);
        if (more) heap_let_others_in(zone);
    }
}

void heap_note_elsewhere(uint64_t bytes) {
    const uint64_t before = atomic_exchange_explicit(&heap.elsewhere_bytes, bytes, memory_order_relaxed);
    if (bytes <= before || !atomic_load_explicit(&heap.open, memory_order_acquire)) return;
    for (int i = 0; i < HEAP_ZONES; i++) heap_keep_peak(&heap.zones[i], 0);
}
