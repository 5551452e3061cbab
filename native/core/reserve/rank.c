/* Choosing the least valuable ranges without keeping them in order.
 *
 * A hit must not pay for an order that it does not use, so nothing is sorted when a range is used. When
 * victims are needed, one pass over the descriptors sums bytes by value in coarse buckets. (A bucket is a
 * float's exponent and the first bits of its mantissa, which sort like the float itself.) The sums show up
 * to which bucket enough bytes lie; a second pass collects only the ranges in those buckets and sorts them. */
#include "reserve/rank.h"

#include <string.h>

#include "base/amounts.h"
#include "counters/stats.h"
#include "os/os.h"
#include "ranges/arena.h"
#include "ranges/range_shared.h"
#include "ranges/worth.h"

#define BUCKET_BITS 20 /* the low bits that are dropped; 8 buckets an octave remain */
#define BUCKETS 4096u
#define LOOK_NS 1000ull /* what a look at the page tables takes */
#define SHARED_NS 1000000000ull
#define LOOKS_SHARE 10 /* at most one part in so many of the time is spent on them */

static uint32_t bucket_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (bits >> BUCKET_BITS) & (BUCKETS - 1); /* values are positive */
}

typedef struct {
    struct vrange_arena *arena;
    unsigned which;
    bool looks; /* at the page tables, for ranges that may be shared */
    uint32_t looked_at;
    uint64_t left_out; /* bytes */
} search;

/* One ranking in a while looks at the page tables. The others go by what it found. */
static _Atomic uint64_t looks_from_ns;

/* At the last ranking of what is idle. Soon forgotten: the child that shares them may end at any time. */
static _Atomic uint64_t shared_bytes, shared_until_ns;

uint64_t rank_offerable_bytes(void) {
    const uint64_t idle = atomic_load(&stats_idle_bytes), shared = atomic_load(&shared_bytes);
    return shared && os_now_ns() < atomic_load(&shared_until_ns) ? above(idle, shared) : idle;
}

void rank_forget(void) { atomic_store(&shared_bytes, 0); }

static bool is_left_out(range *r, search *s) {
    if (s->which & RANK_SHARED || !atomic_load_explicit(&r->shared, memory_order_relaxed)) return false;
    s->looked_at += s->looks;
    if (!range_is_shared(r, s->looks)) return false;
    s->left_out += range_bytes(r);
    return true;
}

static bool is_candidate(range *r, search *s, candidate *out) {
    uint64_t word = atomic_load_explicit(range_word(r), memory_order_relaxed);
    uint64_t state = word_state(word);
    /* BUSY is a transition between two of these states; a caller that then acts on the range waits for it. */
    if (state != RESIDENT && !(s->which & RANK_OFFERED && (state == OFFERED || state == BUSY))) return false;
    if (word_pins(word) || word & WORD_DOOMED) return false;
    struct vrange_arena *owner = atomic_load_explicit(&r->arena, memory_order_relaxed);
    if (!owner || (s->arena && owner != s->arena)) return false;
    if (is_left_out(r, s)) return false;
    out->index = r->index;
    out->generation = word & WORD_GENERATION;
    out->released_ns = atomic_load_explicit(&r->released_ns, memory_order_relaxed);
    uses_gather(r, aging_epoch(arena_aging(owner)));
    out->value = value_of(r, owner);
    out->order = aging_keeps(arena_aging(owner)) ? ~out->released_ns : out->released_ns;
    return true;
}

static bool is_less(const candidate *a, const candidate *b) {
    return a->value != b->value ? a->value < b->value : a->order < b->order;
}

static void sink(candidate *items, size_t at, size_t count) {
    const candidate item = items[at];
    for (size_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && is_less(&items[child], &items[child + 1])) child++;
        if (!is_less(&item, &items[child])) break;
        items[at] = items[child];
    }
    items[at] = item;
}

/* A heap sort. qsort would allocate, and the first allocation in a thread makes glibc reserve an arena of 64
 * MiB for that thread: half of what vrange may have of the address space under a limit of 1 GiB. */
static void sort(candidate *items, size_t count) {
    for (size_t at = count / 2; at-- > 0;) sink(items, at, count);
    for (size_t last = count; last-- > 1;) {
        const candidate most = items[0];
        items[0] = items[last];
        items[last] = most;
        sink(items, 0, last);
    }
}

static bool add(ranking *out, const candidate *item) {
    if (out->count == out->capacity) {
        size_t capacity = out->capacity ? out->capacity * 2 : 256;
        candidate *items =
            os_map_larger(out->items, out->capacity * sizeof *items, capacity * sizeof *items);
        if (!items) return false;
        out->items = items;
        out->capacity = capacity;
    }
    out->items[out->count++] = *item;
    return true;
}

void rank_end(ranking *ranked) {
    if (ranked->items) os_unreserve(ranked->items, ranked->capacity * sizeof *ranked->items);
    *ranked = (ranking){.items = NULL};
}

void rank_least(ranking *out, struct vrange_arena *arena, unsigned which, uint64_t bytes) {
    uint64_t in_bucket[BUCKETS] = {0};
    candidate item;
    const uint64_t now = os_now_ns();
    search s = {.arena = arena, .which = which, .looks = now >= atomic_load(&looks_from_ns)};
    const uint32_t end = table_count();
    for (uint32_t index = 1; index < end; index++) {
        range *r = table_at(index);
        if (is_candidate(r, &s, &item))
            in_bucket[bucket_of(item.value)] += range_bytes(r);
    }
    if (s.looked_at) atomic_store(&looks_from_ns, now + LOOKS_SHARE * LOOK_NS * s.looked_at);
    if (!arena && which == 0) {
        atomic_store(&shared_bytes, s.left_out);
        atomic_store(&shared_until_ns, now + SHARED_NS);
    }
    s.looks = false;
    uint32_t last = 0;
    for (uint64_t sum = in_bucket[0]; sum < bytes && last < BUCKETS - 1;) sum += in_bucket[++last];

    out->count = 0;
    for (uint32_t index = 1; index < end && out->count < RANKED_MOST; index++) {
        range *r = table_at(index);
        if (!is_candidate(r, &s, &item) || bucket_of(item.value) > last) continue;
        if (!add(out, &item)) break;
    }
    if (out->count) sort(out->items, out->count);
}
