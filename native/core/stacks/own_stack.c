/* Own stacks: those that the kernel or the C library made for a thread, used as deep stacks.
 *
 * `vrange run --deep` and deep_threads() move no thread to another stack: virtual machines, garbage collectors
 * and debuggers find each thread on the stack that pthread_getattr_np reports. The stack is only larger. As
 * much as any thread has stays as it was. The part below that is closed, and is opened step by step as memory
 * allows (stack_room.c). When the thread is shallow again, that part is freed and closed (deep_threads.c).
 *
 * A thread's stack is large because it was started with that size. Main's stack is what the kernel grows at a
 * touch. It would have to grow through all of a gap that exec left below it, as large as RLIMIT_STACK was then.
 * vrange could not check memory during that growth, so it reserves the gap, and main's frames go on from the
 * kernel's mapping into that one. Every address in it is therefore known to be stack: the danger that folly
 * met, to free what another mapping holds (facebook/folly#1488), is not there. */
#define _GNU_SOURCE
#include "stacks/own_stack.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/space_budget.h"
#include "base/gate.h"
#include "os/os.h"
#include "os/os_main_stack.h"
#include "os/os_thread.h"
#include "stacks/stack.h"
#include "stacks/stack_mapping.h"
#include "stacks/stack_pages.h"
#include "stacks/stack_room.h"

#define GAP_BYTES ((size_t)1 << 20) /* that stays free below main's stack, as the kernel keeps it */
#define CLOSED_LEAST ((size_t)1 << 20)
#define LITTLE_BYTES ((size_t)256 << 10)

static struct {
    stack all[OWN_STACKS_MOST]; /* never moved: a signal handler reads this */
    _Atomic uint32_t count;
    stack *main;           /* NULL: main's stack was not made deep */
    _Atomic bool must_fit; /* the limits may have changed */
    _Atomic size_t ended;  /* the stack of a thread that has ended, and that the C library may keep; 0: none */
} own;

static uintptr_t self(void) { return (uintptr_t)pthread_self(); }

static char *page_down(char *address) {
    return (char *)((uintptr_t)address / os_page_bytes() * os_page_bytes());
}

static void end_at(stack *s, char *low) {
    const size_t bytes = (size_t)(s->top - low), eighth = bytes / 8;
    s->mapping = s->low = low;
    s->bytes = bytes;
    s->warning_top = s->warning_low = s->huge_top =
        page_down(low + (eighth < stack_warning_most ? eighth : stack_warning_most));
}

static void lay_out(stack *s, char *low, char *top, char *first_low) {
    s->top = top;
    s->automatic = s->is_own = true;
    end_at(s, low);
    s->first_low = s->open_low = first_low;
    s->offered_low = top; /* nothing is offered here */
    s->counter = s->levels = NULL;
    s->outer = NULL;
    s->greenlets = NULL;
    s->reusable = true;
    s->crowded = false;
    s->cuts = 0;
    atomic_store(&s->warned, false);
    atomic_store(&s->is_deep, false);
    atomic_store(&s->high_water, 0);
    atomic_store(&s->thread_id, os_thread_id());
    stack_room_begin(s);
    s->base = __builtin_frame_address(0);
}

/* Inside the gate: a child must not inherit a closed stack that nothing describes. */
static int adopt(char *low, char *top, char *first_low, bool is_main, stack **out) {
    stack *s = stack_claim(own.all, OWN_STACKS_MOST, &own.count);
    if (!s) return -ENOSPC;
    lay_out(s, low, top, first_low);
    s->name = is_main ? "main" : "thread";
    s->mapped = is_main ? (size_t)(first_low - low) : 0;
    const int result = is_main ? 0 : os_protect(low, (size_t)(first_low - low));
    atomic_store(&s->owner, result < 0 ? (uintptr_t)STACK_NONE : self());
    *out = s;
    return result;
}

int own_stack_of_thread(size_t least, stack **out) {
    char *low, *top, *sp = __builtin_frame_address(0);
    int result = os_thread_stack(&low, &top);
    if (result < 0) return result;
    if (sp < low || sp >= top) return -ENOTSUP;
    if ((size_t)(top - low) < least) return -ERANGE;
    char *first_low = page_down(top - VRANGE_STACK_USUAL_BYTES);
    if (first_low < low + CLOSED_LEAST || sp < first_low + CLOSED_LEAST) return -ERANGE;
    gate_enter();
    result = adopt(low, top, first_low, false, out);
    gate_leave();
    return result;
}

int own_stack_of_main(size_t bytes, size_t usual, stack **out) {
    os_main_stack_place place;
    int result = os_main_stack(&place);
    if (result < 0) return result;
    char *const sp = __builtin_frame_address(0);
    if (!os_is_main_thread() || sp < place.low || sp >= place.top) return -ENOTSUP;
    const uint64_t limit = os_stack_limit();
    if (bytes > limit) bytes = (size_t)limit;
    char *low = bytes < (uintptr_t)place.top ? page_down(place.top - bytes) : place.end_below;
    if (low < place.end_below + GAP_BYTES) low = place.end_below + GAP_BYTES;
    char *first_low = page_down(place.top - usual);
    if (first_low > place.low) first_low = place.low;
    if (first_low < low + CLOSED_LEAST) return -ERANGE;
    if (first_low < place.low && (result = os_grow_main_stack(first_low)) < 0) return result;
    size_t reserved = (size_t)(first_low - low);
    while (!space_take(reserved, SPACE_NEEDED)) { /* RLIMIT_AS */
        reserved = (size_t)(first_low - page_down(first_low - reserved / 2));
        if (reserved < CLOSED_LEAST) return -ENOMEM;
    }
    low = first_low - reserved;
    gate_enter();
    result = os_reserve_at(low, reserved);
    if (result == 0 && (result = adopt(low, place.top, first_low, true, out)) < 0)
        os_unreserve(low, reserved);
    gate_leave();
    if (result < 0) space_give(reserved, SPACE_NEEDED);
    else own.main = *out;
    return result;
}

int own_stack_ask_fit(void) {
    stack *s = own.main;
    if (!s) return 0;
    atomic_store(&own.must_fit, true);
    if (atomic_load(&s->owner) != self()) return atomic_load(&s->thread_id);
    own_stack_fit(s);
    return 0;
}

/* Threads that were started before the limit was set have more than later ones, until they end. */
static uint64_t bytes_of_threads(void) {
    uint64_t bytes = atomic_load(&own.ended);
    for (uint32_t i = 0; i < own_stacks_count(); i++) {
        const stack *s = own_stack_at(i);
        if (s && s != own.main) bytes += s->bytes;
    }
    return bytes;
}

/* Frames that lie in the lowest part keep what is around them. */
void own_stack_fit(stack *s) {
    if (s != own.main || atomic_load(&s->warned) || !atomic_exchange(&own.must_fit, false)) return;
    const uint64_t most = space_most_instead(s->mapped, bytes_of_threads());
    if (most >= s->mapped) return;
    char *const old = s->low;
    char *low = s->first_low - most / os_page_bytes() * os_page_bytes();
    if (low > s->open_low - CLOSED_LEAST) {
        low = s->open_low - CLOSED_LEAST;
        atomic_store(&own.must_fit, s->open_low < s->first_low); /* again, when it is shallow */
    }
    if (low <= old) return;
    const size_t returned = (size_t)(low - old);
    end_at(s, low); /* first: a step that this thread opens meanwhile must end there */
    s->mapped -= returned;
    if (stack_set_bounds && s->thread && !s->is_cut) stack_set_bounds(s->thread, s->low, s->bytes);
    os_unreserve(old, returned);
    space_give(returned, SPACE_NEEDED);
}

stack *own_stack_around(const void *address) {
    const uint32_t count = atomic_load(&own.count);
    for (uint32_t i = 0; i < count; i++) {
        stack *s = &own.all[i];
        if (atomic_load(&s->owner) <= STACK_CHANGING) continue;
        if ((const char *)address >= s->low && (const char *)address < s->top) return s;
    }
    return NULL;
}

uint32_t own_stacks_count(void) { return atomic_load(&own.count); }

stack *own_stack_at(uint32_t number) {
    return atomic_load(&own.all[number].owner) > STACK_CHANGING ? &own.all[number] : NULL;
}

void own_stack_close(stack *s, const char *sp, size_t returned) {
    if (sp < s->first_low + VRANGE_STACK_KEPT_BYTES) return;
    stack_close_warning(s);
    stack_room_end(s);
    /* The trim may have come while calls were still returning. */
    if (returned < LITTLE_BYTES || sp + LITTLE_BYTES > s->base) atomic_store(&s->is_deep, false);
}

/* The C library may give the stack to another thread. It never gives main's stack to another thread, and what
 * vrange reserved below that one is of no more use. */
static void open_all(stack *s) {
    if (s != own.main) {
        os_open(s->low, (size_t)(s->first_low - s->low));
        return;
    }
    own.main = NULL;
    os_unreserve(s->low, s->mapped);
    space_give(s->mapped, SPACE_NEEDED);
}

void own_stack_end(stack *s) {
    gate_enter();
    if (s != own.main) atomic_store(&own.ended, s->bytes);
    stack_room_end(s);
    open_all(s);
    atomic_store(&s->thread_id, 0);
    atomic_store(&s->owner, STACK_NONE);
    gate_leave();
}

/* Fails while that thread is not quite over. */
void own_stacks_return_ended(void) {
    size_t bytes = atomic_load(&own.ended);
    if (bytes && os_thread_return_stacks(bytes) == 0) atomic_compare_exchange_strong(&own.ended, &bytes, 0);
}

void own_stacks_after_fork(void) {
    const uint32_t count = atomic_load(&own.count);
    for (uint32_t i = 0; i < count; i++) {
        stack *s = &own.all[i];
        const uintptr_t owner = atomic_load(&s->owner);
        if (owner == self()) atomic_store(&s->thread_id, os_thread_id());
        if (owner <= STACK_CHANGING || owner == self()) continue;
        /* Its thread exists only in the parent, but its stack is here. */
        stack_room_end(s);
        open_all(s);
        atomic_store(&s->owner, STACK_NONE);
    }
}
