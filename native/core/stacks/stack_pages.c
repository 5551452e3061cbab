/* The pages that a deep call leaves on its stack: how many they are, and how they are freed.
 *
 * How far down did the call go? The page tables know, but reading them takes a system call, several times
 * the cost of a whole shallow call. So the lowest page of the kept part is left empty and read after the
 * call: it is all zeros unless frames were written there. A frame that jumps over a whole page would be
 * missed, so every 1024th release reads the page tables as well. There, offered pages look the same
 * whether they were used again or not. Pages that are taken out of the offered part at doubling depths,
 * the tripwires, show how deep a second, shallower use went, within a factor of two.
 *
 * The part deeper than 2 MiB is on huge pages, if the machine has them: touching it costs a tenth,
 * offering it a thirtieth, and touching what was offered a twentieth. That is so little that all of that
 * part is offered again after any call that reached it. */
#define _GNU_SOURCE
#include "stacks/stack_pages.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "os/os.h"
#include "pressure/memory_limits.h"
#include "counters/stats.h"

#define UNLOOKED_MOST 1024u
#define GLANCE_BYTES (1u << 20)

/* ---- how far down the call went ---------------------------------------------------------------- */

/* As wide as the processor's vectors, or two of them: reading the page is most of what this check costs. */
typedef uint64_t lane __attribute__((vector_size(32), may_alias));

__attribute__((always_inline)) static inline bool is_zero_by_lanes(const char *page, size_t bytes) {
    const lane *lanes = (const lane *)(const void *)page;
    lane a = {0}, b = {0};
    for (size_t i = 0; i < bytes / sizeof *lanes; i += 4) {
        a |= lanes[i] | lanes[i + 1];
        b |= lanes[i + 2] | lanes[i + 3];
    }
    a |= b;
    return (a[0] | a[1] | a[2] | a[3]) == 0;
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static bool is_zero_avx2(const char *page, size_t bytes) {
    return is_zero_by_lanes(page, bytes);
}
#endif

static bool is_zero(const char *page, size_t bytes) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) return is_zero_avx2(page, bytes);
#endif
    return is_zero_by_lanes(page, bytes);
}

/* Tripwire i is the page that ends at this depth below the top. */
static size_t tripwire_depth(unsigned i) { return (size_t)VRANGE_STACK_KEPT_BYTES << i; }

/* Tripwires end where huge pages begin: a tripwire inside a huge page would split it. */
static bool is_tripwire(const stack *s, unsigned i, const char *offered_low) {
    const char *tripwire = s->top - tripwire_depth(i) - os_page_bytes();
    return tripwire >= offered_low && tripwire >= s->huge_top;
}

static bool has_offered_huge(const stack *s) {
    return s->huge_top > s->warning_top && s->offered_low < s->huge_top;
}

static size_t used_since_offer(stack *s) {
    const size_t page = os_page_bytes();
    const size_t offered = (size_t)(s->top - s->offered_low);
    char *beyond = s->offered_low > s->low ? os_lowest_resident(s->low, s->offered_low) : s->offered_low;
    if (beyond < s->offered_low) return (size_t)(s->top - beyond);
    if (has_offered_huge(s) && os_is_resident(s->huge_top)) return offered;
    size_t used = 0;
    for (unsigned i = 0; is_tripwire(s, i, s->offered_low); i++) {
        if (!os_is_resident(s->top - tripwire_depth(i) - page)) continue;
        size_t next = tripwire_depth(i + 1);
        used = next < offered ? next : offered;
    }
    return used;
}

/* A frame that jumped over a page was followed by frames near it. Before Linux 6.7 checking a whole stack
 * takes long. */
static bool anything_just_below(const stack *s) {
    char *const kept = stack_kept_low(s);
    char *from = (size_t)(kept - s->low) > GLANCE_BYTES ? kept - GLANCE_BYTES : s->low;
    return os_lowest_resident(from, kept) < kept;
}

size_t stack_used(stack *s) {
    const size_t page = os_page_bytes();
    char *const kept = stack_kept_low(s);
    bool went_down = !is_zero(kept, page) || atomic_load(&s->warned);
    if (!went_down) {
        if (++s->unlooked < UNLOOKED_MOST) return 0;
        s->unlooked = 0;
        if (s->offered_low == kept && !anything_just_below(s)) return 0;
    }
    size_t used;
    if (s->offered_low < kept) {
        used = used_since_offer(s);
    } else {
        char *lowest = os_lowest_resident(s->low, kept);
        used = lowest < kept ? (size_t)(s->top - lowest) : 0;
    }
    if (went_down && used == 0) os_discard(kept, page); /* zeros again, for the next check */
    if (used > atomic_load(&s->high_water)) {
        atomic_store(&s->high_water, used);
        stats_stack_used(used, (uint64_t)(s->top - s->low));
    }
    return used;
}

/* ---- freeing pages ----------------------------------------------------------------------------- */

void stack_close_warning(stack *s) {
    if (!atomic_load(&s->warned)) return;
    os_discard(s->low, (size_t)(s->warning_top - s->low));
    os_protect(s->low, (size_t)(s->warning_top - s->low));
    s->warning_low = s->warning_top;
    atomic_store(&s->warned, false);
}

static void offer(stack *s, char *from) {
    const size_t page = os_page_bytes();
    char *const kept = stack_kept_low(s);
    if (from < s->warning_top) from = s->warning_top; /* the rest was discarded just now */
    if (os_lazyfree(from, (size_t)(kept - from)) < 0) {
        os_discard(from, (size_t)(kept - from)); /* no MADV_FREE here */
        return;
    }
    for (unsigned i = 0; is_tripwire(s, i, from); i++)
        os_discard(s->top - tripwire_depth(i) - page, page);
    if (from < s->offered_low) s->offered_low = from;
    /* The last ordinary page: every call that reaches the huge ones passes it. */
    if (has_offered_huge(s)) os_discard(s->huge_top, page);
    s->offered_lately = true;
}

void stack_give_back(stack *s, size_t used, int release) {
    const uint64_t begun = os_now_ns();
    char *const kept = stack_kept_low(s);
    stack_close_warning(s);
    os_discard(kept, os_page_bytes());
    if (release == VRANGE_RELEASE_KEEP) return;
    if (release == VRANGE_RELEASE_VOLATILE && !limits_has_set()) {
        offer(s, s->top - used);
    } else {
        char *from = s->top - used < s->offered_low ? s->top - used : s->offered_low;
        os_discard(from, (size_t)(kept - from));
        s->offered_low = kept;
    }
    stack_count_returned(used - VRANGE_STACK_KEPT_BYTES, false);
    const uint64_t took = os_now_ns() - begun;
    /* Both at the same time: when the call returns, the kernel can already take the pages. */
    vrange_latency_record(VRANGE_KIND_STACK, VRANGE_FREE_RELEASED, took);
    vrange_latency_record(VRANGE_KIND_STACK, VRANGE_FREE_OFFERED, took);
}

size_t stack_trim_below(char *low, char *sp, int release) {
    const size_t page = os_page_bytes();
    char *end = (char *)((uintptr_t)(sp - VRANGE_STACK_KEPT_BYTES / 2) / page * page);
    if (end <= low) return 0;
    size_t resident = os_resident_bytes(low, end);
    if (resident == 0) return 0;
    char *from = os_lowest_resident(low, end);
    const bool offers = release == VRANGE_RELEASE_VOLATILE && !limits_has_set();
    int result = offers ? os_lazyfree(from, (size_t)(end - from))
                        : os_discard(from, (size_t)(end - from));
    return result < 0 ? 0 : resident;
}

static _Atomic uint64_t returned_bytes, trims;

uint64_t stack_returned_bytes(void) { return atomic_load(&returned_bytes); }
uint64_t stack_trims(void) { return atomic_load(&trims); }

void stack_count_returned(size_t bytes, bool trim) {
    tally(&returned_bytes, bytes);
    stats_stack_returned(bytes);
    if (!trim) return;
    tally(&trims, 1);
    stats_trimmed();
}
