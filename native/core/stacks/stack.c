/* The pool of deep stacks: reserved, run on, returned.
 *
 * A deep stack is address space with a guard at each end. It can be of any size, because only the pages
 * that a call touches become memory. When the call is over, nothing needs that memory any more. The pages
 * more than 64 KiB from the top are then offered to the kernel (volatile), discarded (now) or left (keep),
 * and the stack waits in the pool for the next call.
 *
 * stack_pages.c finds out how much that is, and frees it. */
#define _GNU_SOURCE
#include "stacks/stack.h"

#include <errno.h>
#include <pthread.h>

#include "base/gate.h"
#include "os/os.h"
#include "os/os_thread.h"
#include "stacks/stack_current.h"
#include "stacks/stack_mapping.h"
#include "stacks/stack_pages.h"
#include "stacks/stack_room.h"
#include "counters/stats.h"

#define POOLED_MOST 64

static struct {
    stack all[VRANGE_STACKS_MOST]; /* never moved: a signal handler reads this */
    _Atomic uint32_t count; /* every used descriptor has a smaller index */
    _Atomic uint32_t existing; /* pooled or in use */
    _Atomic uint64_t epoch;    /* raised when a thread takes another stack than last time */
    _Atomic uint64_t taken_before; /* from stacks that do not exist any more */
} stacks;

static _Thread_local stack *favourite;
static _Thread_local int own_id; /* 0: not asked yet, as asking is a system call */

static uintptr_t self(void) { return (uintptr_t)pthread_self(); }

/* ---- making and unmaking ----------------------------------------------------------------------- */

stack *stack_claim(stack *all, uint32_t most, _Atomic uint32_t *count) {
    for (uint32_t i = 0; i < most; i++) {
        uintptr_t none = STACK_NONE;
        if (!atomic_compare_exchange_strong(&all[i].owner, &none, STACK_CHANGING)) continue;
        uint32_t known = atomic_load(count);
        while (known <= i && !atomic_compare_exchange_weak(count, &known, i + 1)) {
        }
        return &all[i];
    }
    return NULL;
}

static int make(size_t bytes, bool automatic, stack **out) {
    gate_enter(); /* a child must not inherit a mapping that has no descriptor */
    stack *s = stack_claim(stacks.all, VRANGE_STACKS_MOST, &stacks.count);
    int result = s ? stack_map(s, bytes, automatic) : -ENOMEM;
    if (s) atomic_store(&s->owner, result < 0 ? (uintptr_t)STACK_NONE : self());
    if (result == 0) atomic_fetch_add(&stacks.existing, 1);
    gate_leave();
    *out = s;
    return result;
}

static void unmake_inside(stack *s) {
    atomic_store(&s->owner, STACK_CHANGING);
    stack_unmap(s);
    tally(&stacks.taken_before, atomic_exchange(&s->taken, 0));
    atomic_store(&s->owner, STACK_NONE);
    atomic_fetch_sub(&stacks.existing, 1);
}

static void unmake(stack *s) {
    gate_enter();
    unmake_inside(s);
    gate_leave();
}

static bool claim(stack *s, size_t bytes, bool automatic) {
    uintptr_t pooled = STACK_POOLED;
    if (!atomic_compare_exchange_strong(&s->owner, &pooled, self())) return false;
    if (s->bytes != bytes || s->automatic != automatic) {
        atomic_store(&s->owner, STACK_POOLED);
        return false;
    }
    return true;
}

static stack *pooled_stack(size_t bytes, bool automatic) {
    if (favourite && claim(favourite, bytes, automatic)) return favourite;
    atomic_fetch_add(&stacks.epoch, 1);
    const uint32_t count = atomic_load(&stacks.count);
    for (uint32_t i = 0; i < count; i++) {
        if (claim(&stacks.all[i], bytes, automatic)) return &stacks.all[i];
    }
    return NULL;
}

/* Otherwise sizes that were asked for only once would fill the pool for good. */
static void make_place_in_pool(void) {
    stack *oldest = NULL;
    uint32_t pooled = 0;
    const uint32_t count = atomic_load(&stacks.count);
    for (uint32_t i = 0; i < count; i++) {
        stack *s = &stacks.all[i];
        if (atomic_load(&s->owner) != STACK_POOLED) continue;
        pooled++;
        if (!oldest || atomic_load(&s->given) < atomic_load(&oldest->given)) oldest = s;
    }
    uintptr_t expected = STACK_POOLED;
    if (pooled >= POOLED_MOST && atomic_compare_exchange_strong(&oldest->owner, &expected, self()))
        unmake(oldest);
}

/* Address space may be short (RLIMIT_AS), and pooled stacks of other sizes only save time. */
static bool unmake_pooled(uint64_t *resident, void (*unmake_one)(stack *s)) {
    bool any = false;
    const uint32_t count = atomic_load(&stacks.count);
    for (uint32_t i = 0; i < count; i++) {
        stack *s = &stacks.all[i];
        uintptr_t pooled = STACK_POOLED;
        if (!atomic_compare_exchange_strong(&s->owner, &pooled, self())) continue;
        if (resident) *resident += os_resident_bytes(s->warning_top, s->top);
        unmake_one(s);
        any = true;
    }
    return any;
}

/* ---- taking ------------------------------------------------------------------------------------ */

static int take_new(size_t bytes, bool automatic, stack **out) {
    const uint64_t begun = os_now_ns();
    int result = make(bytes, automatic, out);
    if (result == -ENOMEM && unmake_pooled(NULL, unmake)) result = make(bytes, automatic, out);
    if (result == 0)
        vrange_latency_record(VRANGE_KIND_STACK, VRANGE_REALLOCATE_PURGED, os_now_ns() - begun);
    return result;
}

/* Whether the pages that the last deep call left are still resident. Checked once, as it takes a system
 * call. */
static void record_reallocation(stack *s) {
    s->offered_lately = false;
    const uint64_t begun = os_now_ns();
    char *below_tripwire = stack_kept_low(s) - 2 * os_page_bytes();
    bool resident = below_tripwire > s->low && os_is_resident(below_tripwire);
    vrange_latency_record(VRANGE_KIND_STACK,
                          resident ? VRANGE_REALLOCATE_RESIDENT : VRANGE_REALLOCATE_PURGED,
                          os_now_ns() - begun);
}

int stack_take(size_t bytes, bool automatic, stack **out) {
    bytes = stack_whole_pages(bytes);
    stack *s = pooled_stack(bytes, automatic);
    if (!s) {
        int result = take_new(bytes, automatic, &s);
        if (result < 0) return result;
    } else if (s->offered_lately) {
        record_reallocation(s);
    }
    if (!own_id) own_id = os_thread_id();
    atomic_store_explicit(&s->thread_id, own_id, memory_order_relaxed);
    favourite = s;
    s->outer = NULL;
    s->counter = s->levels = NULL;
    s->crowded = false;
    s->greenlets = NULL;
    s->reusable = true;
    stack_room_begin(s);
    tally_alone(&s->taken, 1);
    *out = s;
    return 0;
}

/* ---- returning --------------------------------------------------------------------------------- */

uint64_t vrange_stacks_trim_pooled(void) {
    uint64_t resident = 0;
    unmake_pooled(&resident, unmake);
    if (resident) stack_count_returned(resident, true);
    return resident;
}

void stacks_return_pooled(void) { unmake_pooled(NULL, unmake_inside); }

void stack_give(stack *s, size_t used, int release) {
    if (used > VRANGE_STACK_KEPT_BYTES) stack_give_back(s, used, release);
    stack_room_end(s);
    if (atomic_load(&stacks.existing) > POOLED_MOST) make_place_in_pool();
    atomic_store_explicit(&s->given, atomic_load_explicit(&stacks.epoch, memory_order_relaxed),
                          memory_order_relaxed);
    atomic_store_explicit(&s->owner, STACK_POOLED, memory_order_release);
}

void stack_retire(stack *s) {
    stack_room_end(s);
    if (favourite == s) favourite = NULL;
    atomic_store(&s->thread_id, 0);
    /* The stack stays owned by an id that no thread has, so that no thread takes it, in a child neither. */
    atomic_store(&s->owner, UINTPTR_MAX);
}

void stack_abandon_all(stack *innermost) {
    for (stack *s = innermost; s && !s->is_own;) {
        stack *outer = s->outer;
        s->counter = s->levels = NULL;
        char *lowest = os_lowest_resident(s->low, stack_kept_low(s));
        stack_give(s, (size_t)(s->top - lowest), VRANGE_RELEASE_NOW);
        s = outer;
    }
    stack_set_current(NULL);
}

void stacks_after_fork(void) {
    own_id = os_thread_id();
    const uint32_t count = atomic_load(&stacks.count);
    for (uint32_t i = 0; i < count; i++) {
        stack *s = &stacks.all[i];
        uintptr_t owner = atomic_load(&s->owner);
        if (owner == self()) atomic_store(&s->thread_id, own_id);
        if (owner <= STACK_CHANGING || owner == self() || owner == UINTPTR_MAX) continue;
        /* Its thread exists only in the parent. */
        stack_close_warning(s);
        stack_room_end(s);
        os_discard(s->warning_top, (size_t)(s->top - s->warning_top));
        s->offered_low = stack_kept_low(s);
        s->offered_lately = false;
        atomic_store(&s->owner, STACK_POOLED);
    }
}

/* ---- looking up and listing -------------------------------------------------------------------- */

stack *stack_around(const void *address) {
    const uint32_t count = atomic_load(&stacks.count);
    for (uint32_t i = 0; i < count; i++) {
        stack *s = &stacks.all[i];
        if (atomic_load(&s->owner) <= STACK_POOLED) continue;
        if ((const char *)address >= s->mapping && (const char *)address < s->mapping + s->mapped)
            return s;
    }
    return NULL;
}

size_t vrange_stacks_read(vrange_stack_info *out, size_t capacity) {
    size_t found = 0;
    const uint32_t count = atomic_load(&stacks.count);
    for (uint32_t i = 0; i < count; i++) {
        stack *s = &stacks.all[i];
        uintptr_t owner = atomic_load(&s->owner);
        if (owner == STACK_NONE || owner == STACK_CHANGING) continue;
        if (found++ >= capacity) continue;
        /* If the stack is unmapped meanwhile, the checks of its pages return nothing: at worst the entry
         * is stale. */
        size_t depth = (size_t)(s->top - os_lowest_resident(s->low, s->top));
        size_t high = atomic_load(&s->high_water);
        out[found - 1] = (vrange_stack_info){
            .number = i,
            .bytes = s->bytes,
            .resident_bytes = os_resident_bytes(s->low, s->top),
            .high_water_bytes = depth > high ? depth : high,
            .thread_id = owner == STACK_POOLED ? 0 : atomic_load(&s->thread_id)};
    }
    return found;
}

void vrange_stack_totals_read(vrange_stack_totals *out) {
    *out = (vrange_stack_totals){.taken = atomic_load(&stacks.taken_before)};
    const uint32_t count = atomic_load(&stacks.count);
    for (uint32_t i = 0; i < count; i++) {
        uintptr_t owner = atomic_load(&stacks.all[i].owner);
        out->taken += atomic_load(&stacks.all[i].taken);
        if (owner == STACK_NONE || owner == STACK_CHANGING) continue;
        out->stacks++;
        out->reserved_bytes += stacks.all[i].bytes;
        if (owner != STACK_POOLED) out->used_stacks++;
    }
    out->returned_bytes = stack_returned_bytes();
    out->trims = stack_trims();
}
