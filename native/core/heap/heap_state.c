/* The heap's state; see heap_state.h. */
#include "heap/heap_state.h"

#include "base/gate.h"
#include "heap/heap_cells.h"
#include "heap/heap_zone_space.h"

#define YIELD_NS 2000000u
#define YIELD_TRIES 2

heap_state heap = {.lock = PTHREAD_MUTEX_INITIALIZER,
                   .zones = {{.lock = PTHREAD_MUTEX_INITIALIZER}, {.lock = PTHREAD_MUTEX_INITIALIZER}}};

heap_usage heap_usage_of(const heap_zone *zone) {
    return (heap_usage){zone->used_units * zone->unit_bytes, zone_idle_bytes(zone), zone_offered_bytes(zone),
                        zone->blocks, zone_reserved_bytes(zone)};
}

void heap_record(int latency, uint64_t nanoseconds) {
    if (heap_account()) vrange_latency_record(VRANGE_KIND_HEAP, latency, nanoseconds);
}

void heap_lock(heap_zone *zone) {
    if (pthread_mutex_trylock(&zone->lock) == 0) return;
    atomic_fetch_add(&zone->waiting, 1);
    pthread_mutex_lock(&zone->lock);
    atomic_fetch_sub(&zone->waiting, 1);
    zone->got_in = true;
}

/* Looking at `waiting` every 20 us took the processor from the program's threads ten thousand times a second,
 * and each time another one went on: with 16 threads on two processors, copying took a third longer. */
void heap_let_others_in(heap_zone *zone) {
    const uint32_t before = atomic_load(&zone->waiting);
    if (!before) return;
    atomic_fetch_add(&zone->yielding, 1);
    uint32_t now = before; /* one that comes to wait ends the futex's wait, too */
    for (int tries = 0; now >= before && tries < YIELD_TRIES; tries++) {
        os_wait(&zone->waiting, now, YIELD_NS / YIELD_TRIES);
        now = atomic_load(&zone->waiting);
    }
    atomic_fetch_sub(&zone->yielding, 1);
}

/* The account is not part of the bytes that the reserve counts. The kernel may have reclaimed heap bytes
 * already without any notice; if the reserve relied on them, it would offer too little else. */
static void count(const heap_zone *zone, const heap_usage *before) {
    const heap_usage now = heap_usage_of(zone);
    vrange_account *account = heap_account();
    if (!account) return;
    tally(&account->range_bytes,
          now.used + now.idle + now.offered - before->used - before->idle - before->offered);
    tally(&account->idle_bytes, now.idle - before->idle);
    tally(&account->offered_bytes, now.offered - before->offered);
    tally(&account->ranges, now.blocks - before->blocks);
    tally(&account->reserved_bytes, now.reserved - before->reserved);
}

void heap_unlock(heap_zone *zone, const heap_usage *before) {
    count(zone, before);
    const bool wakes = zone->got_in && atomic_load(&zone->yielding);
    zone->got_in = false;
    pthread_mutex_unlock(&zone->lock);
    if (wakes) os_wake(&zone->waiting); /* not under the lock, which is what the thread asks for next */
}

void heap_enter(heap_zone *zone, heap_usage *before) {
    gate_enter();
    heap_lock(zone);
    *before = heap_usage_of(zone);
}

bool heap_try_enter(heap_zone *zone, heap_usage *before) {
    if (!gate_try_enter()) return false;
    heap_lock(zone);
    *before = heap_usage_of(zone);
    return true;
}

void heap_leave(heap_zone *zone, const heap_usage *before) {
    heap_unlock(zone, before);
    gate_leave();
}

heap_zone *heap_zone_of(const void *pointer) {
    for (int i = 0; i < HEAP_ZONES; i++) {
        if (zone_has(&heap.zones[i], pointer)) return &heap.zones[i];
    }
    return NULL;
}

void heap_empty_cells(uint64_t now_ns, uint64_t before_ns) {
    uint32_t at = 0;
    for (cell_block block; (block = cells_drain(&at, now_ns, before_ns)).first;)
        zone_give(&heap.zones[HEAP_PAGES], block.first, before_ns < now_ns ? before_ns : now_ns);
}

void heap_defer(void *block) {
    void *first = atomic_load(&heap.deferred);
    do {
        *(void **)block = first;
    } while (!atomic_compare_exchange_weak(&heap.deferred, &first, block));
}

void heap_give_deferred(uint64_t now_ns) {
    if (!atomic_load_explicit(&heap.deferred, memory_order_relaxed)) return;
    for (void *block = atomic_exchange(&heap.deferred, NULL), *next; block; block = next) {
        heap_zone *zone = heap_zone_of(block);
        next = *(void **)block;
        heap_lock(zone);
        const heap_usage before = heap_usage_of(zone);
        zone_give(zone, zone_unit_of(zone, block), now_ns);
        heap_unlock(zone, &before);
    }
}

uint64_t heap_cell_bytes(void) { return cells_read().units * heap.zones[HEAP_PAGES].unit_bytes; }

void heap_count_cells(void) {
    vrange_account *account = heap_account();
    if (!account) return;
    const uint64_t now = heap_cell_bytes();
    tally(&account->idle_bytes, now - atomic_exchange(&heap.cached_bytes, now));
}
