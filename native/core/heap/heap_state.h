/* The heap's state, and how its files change it.
 *
 * Lock order: the gate, then a zone's lock. The lock of a zone is a leaf: its holder calls nothing that could
 * wait for another lock, or allocate. */
#ifndef VRANGE_HEAP_STATE_H
#define VRANGE_HEAP_STATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "counters/stats.h"
#include "heap/heap_zone.h"
#include "os/os.h"

enum {
    HEAP_PAGES, /* cells hold blocks of this zone only */
    HEAP_HUGE,
    HEAP_ZONES,
};

typedef struct {
    pthread_mutex_t lock; /* held while the heap is opened */
    heap_zone zones[HEAP_ZONES];
    vrange_account *_Atomic account; /* NULL: the figures have no reader, and no latency is recorded */
    size_t bytes_most;               /* the machine could never back a larger block */
    _Atomic bool open, uses_huge;
    _Atomic bool is_retired;   /* heap_retire */
    _Atomic bool returns_idle; /* discards what has been idle for a while, where it would only offer it */
    void *_Atomic deferred;        /* freed while a fork was under way; each one begins with the next */
    _Atomic uint64_t cached_bytes; /* in cells, as the account was last told */
    _Atomic uint64_t elsewhere_bytes; /* used outside the heap: heap_note_elsewhere */
    uint64_t grown_units;          /* since the cells were last emptied; under the lock of PAGES */
    _Atomic uint64_t trimmed_bytes;
} heap_state;

extern heap_state heap;

/* A page that is discarded and then used again costs a fault. So what is discarded was kept for 20 times as
 * long as the faults for all of it take: discarding costs a program at most 5 % of one processor for each zone,
 * whatever it does (but see heap_peak.c for blocks that glibc would map). Measured on 6.18, beside using an
 * offered page again; less on most machines. */
#define HEAP_FAULT_NS_A_PAGE 1500
#define HEAP_KEPT_TIMES 20

static inline uint64_t heap_kept_ns(const heap_zone *zone, uint64_t units) {
    return units * (zone->unit_bytes / os_page_bytes()) * HEAP_FAULT_NS_A_PAGE * HEAP_KEPT_TIMES;
}

typedef struct {
    uint64_t used, idle, offered, blocks, reserved;
} heap_usage;

heap_usage heap_usage_of(const heap_zone *zone);

static inline vrange_account *heap_account(void) {
    return atomic_load_explicit(&heap.account, memory_order_acquire);
}

void heap_record(int latency, uint64_t nanoseconds);

void heap_lock(heap_zone *zone);
void heap_unlock(heap_zone *zone, const heap_usage *before); /* counts what changed since `before` */

/* Long work discards at most so much under the lock. */
#define HEAP_STEP_BYTES ((size_t)4 << 20)

/* Between its steps. pthread mutexes are unfair: the releasing thread usually wins the lock back
 * before the waiters wake up, so this thread yields to the first of them. The wait is bounded, because a waiter
 * without a processor may take long to run. */
void heap_let_others_in(heap_zone *zone);

/* Through the gate as well. heap_try_enter returns false while a fork is under way. */
void heap_enter(heap_zone *zone, heap_usage *before);
bool heap_try_enter(heap_zone *zone, heap_usage *before);
void heap_leave(heap_zone *zone, const heap_usage *before);

heap_zone *heap_zone_of(const void *pointer);

/* Puts blocks from cells back into their zone, those that have not moved since `before_ns`; UINT64_MAX: all of
 * them. Call under the lock of that zone. */
void heap_empty_cells(uint64_t now_ns, uint64_t before_ns);

/* A block that was set aside but can't be given back now. */
void heap_defer(void *block);
/* Gives such blocks back. Call inside the gate, without a lock. */
void heap_give_deferred(uint64_t now_ns);

uint64_t heap_cell_bytes(void);
/* Tells the account how much lies in cells. Call inside the gate. */
void heap_count_cells(void);

#endif
