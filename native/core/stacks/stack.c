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
#include <string.h>

#include "base/space_budget.h"
#include "base/gate.h"
#include "os/os.h"
#include "os/os_thread.h"
#include "stacks/stack_current.h"
#include "stacks/stack_pages.h"
#include "stacks/stack_room.h"
#include "counters/stats.h"

#define POOLED_MOST 64
#define GUARD_BYTES (64u * 1024)
#define DUMPED_MOST ((size_t)256 << 20)

size_t stack_warning_most;

static struct {
    stack all[VRANGE_STACKS_MOST]; /* never moved: a signal handler reads this */
    _Atomic uint32_t count; /* every used descriptor has a smaller index */
    _Atomic int pooled;
    _Atomic uint64_t taken;
} stacks;

static _Thread_local stack *favourite;
static _Thread_local int own_id; /* 0: not asked yet, as asking is a system call */

static uintptr_t self(void) { return (uintptr_t)pthread_self(); }

/* ---- making and unmaking ----------------------------------------------------------------------- */

static size_t page_up(size_t bytes) {
    const size_t page = os_page_bytes();
    return (bytes + page - 1) / page * page;
}

static size_t warning_bytes(size_t bytes) {
    size_t eighth = page_up(bytes / 8);
    return eighth < stack_warning_most ? eighth : stack_warning_most;
}

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

/* The top is aligned to the end of a huge page, because the part that may be huge begins one huge page
 * below it. */
static void lay_out(stack *s, size_t bytes) {
    const uintptr_t end = (uintptr_t)s->mapping + GUARD_BYTES + bytes + OS_HUGE_BYTES - 1;
    s->top = (char *)(end / OS_HUGE_BYTES * OS_HUGE_BYTES);
    s->low = s->top - bytes;
    s->warning_top = s->low + warning_bytes(bytes);
    s->huge_top = s->warning_top;
    /* An automatic stack is open down to where huge pages begin, so that no step splits a huge page. */
    s->first_low = s->warning_top;
    if (s->automatic && bytes > OS_HUGE_BYTES + (size_t)(s->warning_top - s->low))
        s->first_low = s->top - OS_HUGE_BYTES;
    s->open_low = s->first_low;
    s->warning_low = s->warning_top;
}

static void make_huge(stack *s) {
    char *const huge_top = s->top - OS_HUGE_BYTES;
    const uintptr_t low = (uintptr_t)s->warning_top + OS_HUGE_BYTES - 1;
    char *const huge_low = (char *)(low / OS_HUGE_BYTES * OS_HUGE_BYTES);
    if (huge_low >= huge_top || !os_has_huge_pages()) return;
    os_prefer_huge_pages(huge_low, (size_t)(huge_top - huge_low));
    s->huge_top = huge_top;
}

/* A dump has what is opened of an automatic stack. A stack of a size is open as a whole, and mostly empty. */
static void dump_top(stack *s) {
    char *const top_part = s->bytes > DUMPED_MOST ? s->top - DUMPED_MOST : s->first_low;
    char *const from = top_part > s->first_low ? top_part : s->first_low;
    os_dump(from, (size_t)(s->top - from));
}

static space_use use_of(const stack *s) { return s->automatic ? SPACE_NEEDED : SPACE_ASKED; }

static int map(stack *s, size_t bytes, bool automatic) {
    if (bytes > SIZE_MAX / 4) return -ENOMEM;
    s->mapped = bytes + 2 * GUARD_BYTES + OS_HUGE_BYTES;
    s->bytes = bytes;
    s->automatic = automatic;
    s->mapping = space_reserve(s->mapped, 0, use_of(s));
    if (!s->mapping) return -ENOMEM;
    lay_out(s, bytes);
    int result = os_commit(s->first_low, (size_t)(s->top - s->first_low));
    if (result < 0) {
        space_return(s->mapping, s->mapped, use_of(s));
        return -ENOMEM; /* EACCES and other errors can't happen for our own memory */
    }
    dump_top(s);
    if (s->first_low > s->warning_top)
        os_forbid_huge_pages(s->warning_top, (size_t)(s->first_low - s->warning_top));
    make_huge(s);
    s->offered_low = stack_kept_low(s);
    s->offered_lately = false;
    s->unlooked = 0;
    atomic_store(&s->warned, false);
    atomic_store(&s->high_water, 0);
    return 0;
}

static int make(size_t bytes, bool automatic, stack **out) {
    gate_enter(); /* a child must not inherit a mapping that has no descriptor */
    stack *s = stack_claim(stacks.all, VRANGE_STACKS_MOST, &stacks.count);
    int result = s ? map(s, bytes, automatic) : -ENOMEM;
    if (s) atomic_store(&s->owner, result < 0 ? (uintptr_t)STACK_NONE : self());
    gate_leave();
    *out = s;
    return result;
}

static void unmake(stack *s) {
    gate_enter();
    atomic_store(&s->owner, STACK_CHANGING);
    space_return(s->mapping, s->mapped, use_of(s));
    atomic_store(&s->owner, STACK_NONE);
    gate_leave();
}

static bool claim(stack *s, size_t bytes, bool automatic) {
    uintptr_t pooled = STACK_POOLED;
    if (!atomic_compare_exchange_strong(&s->owner, &pooled, self())) return false;
    if (s->bytes != bytes || s->automatic != automatic) {
        atomic_store(&s->owner, STACK_POOLED);
        return false;
    }
    atomic_fetch_sub(&stacks.pooled, 1);
    return true;
}

static stack *pooled_stack(size_t bytes, bool automatic) {
    if (favourite && claim(favourite, bytes, automatic)) return favourite;
    const uint32_t count = atomic_load(&stacks.count);
    for (uint32_t i = 0; i < count; i++) {
        if (claim(&stacks.all[i], bytes, automatic)) return &stacks.all[i];
    }
    return NULL;
}

/* Otherwise sizes that were asked for only once would fill the pool for good. */
static void unmake_oldest_pooled(void) {
    stack *oldest = NULL;
    const uint32_t count = atomic_load(&stacks.count);
    for (uint32_t i = 0; i < count; i++) {
        stack *s = &stacks.all[i];
        if (atomic_load(&s->owner) != STACK_POOLED) continue;
        if (!oldest || atomic_load(&s->given) < atomic_load(&oldest->given)) oldest = s;
    }
    uintptr_t pooled = STACK_POOLED;
    if (!oldest || !atomic_compare_exchange_strong(&oldest->owner, &pooled, self())) return;
    atomic_fetch_sub(&stacks.pooled, 1);
    unmake(oldest);
}

/* Address space may be short (RLIMIT_AS), and pooled stacks of other sizes only save time. */
static bool unmake_pooled(uint64_t *resident) {
    bool any = false;
    const uint32_t count = atomic_load(&stacks.count);
    for (uint32_t i = 0; i < count; i++) {
        stack *s = &stacks.all[i];
        uintptr_t pooled = STACK_POOLED;
        if (!atomic_compare_exchange_strong(&s->owner, &pooled, self())) continue;
        atomic_fetch_sub(&stacks.pooled, 1);
        if (resident) *resident += os_resident_bytes(s->warning_top, s->top);
        unmake(s);
        any = true;
    }
    return any;
}

/* ---- taking ------------------------------------------------------------------------------------ */

static int take_new(size_t bytes, bool automatic, stack **out) {
    const uint64_t begun = os_now_ns();
    int result = make(bytes, automatic, out);
    if (result == -ENOMEM && unmake_pooled(NULL)) result = make(bytes, automatic, out);
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
    bytes = page_up(bytes);
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
    tally(&stacks.taken, 1);
    *out = s;
    return 0;
}

/* ---- returning --------------------------------------------------------------------------------- */

uint64_t vrange_stacks_trim_pooled(void) {
    uint64_t resident = 0;
    unmake_pooled(&resident);
    if (resident) stack_count_returned(resident, true);
    return resident;
}

void stack_give(stack *s, size_t used, int release) {
    if (used > VRANGE_STACK_KEPT_BYTES) stack_give_back(s, used, release);
    stack_room_end(s);
    if (atomic_load(&stacks.pooled) >= POOLED_MOST) unmake_oldest_pooled();
    atomic_store_explicit(&s->given, atomic_load_explicit(&stacks.taken, memory_order_relaxed),
                          memory_order_relaxed);
    atomic_fetch_add(&stacks.pooled, 1);
    atomic_store(&s->owner, STACK_POOLED);
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
    int pooled = 0;
    for (uint32_t i = 0; i < count; i++) {
        stack *s = &stacks.all[i];
        uintptr_t owner = atomic_load(&s->owner);
        if (owner == STACK_POOLED) pooled++;
        if (owner == self()) atomic_store(&s->thread_id, own_id);
        if (owner <= STACK_CHANGING || owner == self() || owner == UINTPTR_MAX) continue;
        /* Its thread exists only in the parent. */
        stack_close_warning(s);
        stack_room_end(s);
        os_discard(s->warning_top, (size_t)(s->top - s->warning_top));
        s->offered_low = stack_kept_low(s);
        s->offered_lately = false;
        atomic_store(&s->owner, STACK_POOLED);
        pooled++;
    }
    atomic_store(&stacks.pooled, pooled);
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
    memset(out, 0, sizeof *out);
    const uint32_t count = atomic_load(&stacks.count);
    for (uint32_t i = 0; i < count; i++) {
        uintptr_t owner = atomic_load(&stacks.all[i].owner);
        if (owner == STACK_NONE || owner == STACK_CHANGING) continue;
        out->stacks++;
        out->reserved_bytes += stacks.all[i].bytes;
        if (owner != STACK_POOLED) out->used_stacks++;
    }
    out->taken = atomic_load(&stacks.taken);
    out->returned_bytes = stack_returned_bytes();
    out->trims = stack_trims();
}
