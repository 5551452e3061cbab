/* Offers ranges to the kernel, and finds those that it took; see offer.h. reserve.c decides when, and how
 * much. */
#include "reserve/offer.h"

#include <sys/uio.h>

#include "base/amounts.h"
#include "counters/stats.h"
#include "base/rung.h"
#include "os/os.h"
#include "ranges/range_offer.h"
#include "ranges/range_table.h"
#include "reserve/demand.h"
#include "reserve/offered_queue.h"
#include "reserve/rank.h"

#define BATCH_RANGES 64
#define BATCH_BYTES (4u << 20) /* a pin of a range in the batch waits for it: some hundred microseconds */
#define TICK_BYTES (64u << 20) /* a fork waits for the tick */
#define LOOKS_AT_OTHERS 4   /* a look is a system call */
#define LOOKS_FROM_OLDEST 8 /* after this many untouched ranges the kernel has taken no more */
#define LOOKS_TO_ESTIMATE 16u
#define LOSSES_A_TURN 256 /* each costs three system calls, and meanwhile nothing is offered */
#define RANKED_TIMES 4    /* what is wanted, while the kernel takes it */
#define AHEAD_SHARE 4       /* at most this share of the reserve is discarded ahead of demand */
#define REFUSED_NS 1000000000ull
#define LOW_SHARE 2      /* with less than this share of the reserve, victims are ranked at any cost */
#define TOP_UP_SHARE 16  /* this share of the reserve may be missing */

/* Belongs to the thread that has the reserve's turn, except for the counters. */
static struct {
    offered_queue queue; /* some entries may be stale: see offered_queue.h */
    size_t next_look;
    uint64_t taken; /* bytes found taken at the last look */
    demand demand;
    _Atomic uint64_t refused_ns; /* 0: the last offer was not refused */
    _Atomic uint64_t offers, losses;
} offered;

typedef struct {
    size_t stale, lost;
} looked;

/* ---- what the kernel took --------------------------------------------------------------------- */

static bool collect(const candidate *item) {
    range *r = table_at(item->index);
    const uint64_t bytes = range_bytes(r);
    if (!range_collect(r, item->generation)) return false;
    tally(&offered.losses, 1);
    offered.taken += bytes;
    return true;
}

/* Looks at offered ranges, from a place in the queue on, until `whole_most` of them were found whole, or as
 * many losses as one turn has time for. */
static void look_from(size_t place, size_t whole_most, looked *seen) {
    size_t whole = 0;
    for (size_t i = 0; i < offered.queue.count && whole < whole_most && seen->lost < LOSSES_A_TURN; i++) {
        const candidate *item = &offered.queue.items[(place + i) % offered.queue.count];
        if (offered_is_stale(item)) seen->stale++;
        else if (collect(item)) seen->lost++;
        else whole++;
    }
}

/* The kernel takes pages roughly in the order in which they were offered, so looking starts at the oldest
 * and goes on for as long as it finds losses. But the kernel skips pages that another processor still has
 * in a batch of its own, for as long as that processor is idle. So some of the other ranges are looked at
 * in turn, and all of them if that finds losses that the oldest ones did not show. */
uint64_t offer_collect_losses(bool *goes_on) {
    offered.taken = 0;
    looked oldest = {0}, others = {0};
    look_from(0, LOOKS_FROM_OLDEST, &oldest);
    if (!oldest.lost) {
        look_from(offered.next_look, LOOKS_AT_OTHERS, &others);
        offered.next_look += LOOKS_AT_OTHERS;
        if (others.lost) look_from(0, SIZE_MAX, &others);
    }
    if (oldest.stale + oldest.lost + others.stale + others.lost > LOOKS_FROM_OLDEST)
        offered_drop_stale(&offered.queue);
    *goes_on = oldest.lost >= LOSSES_A_TURN || others.lost >= LOSSES_A_TURN;
    return offered.taken;
}

/* To collect thousands of small ranges takes longer than a burst takes to use up the reserve. The first pages
 * of a few ranges, spread over the queue, show at once how much of it is gone. */
uint64_t offer_estimate_taken(void) {
    const size_t count = offered.queue.count;
    const size_t looks = count < LOOKS_TO_ESTIMATE ? count : LOOKS_TO_ESTIMATE;
    uint64_t present = 0, lost = 0;
    for (size_t i = 0; i < looks; i++) {
        const candidate *item = &offered.queue.items[i * count / looks];
        if (offered_is_stale(item)) continue;
        if (range_seems_taken(table_at(item->index))) lost++;
        else present++;
    }
    return lost ? atomic_load(&stats_offered_bytes) / (present + lost) * lost : 0;
}

/* Ranges that are BUSY, for one system call. */
typedef struct {
    candidate items[BATCH_RANGES];
    struct iovec spans[BATCH_RANGES];
    size_t count, bytes;
} batch;

static bool batch_is_full(const batch *b) { return b->count == BATCH_RANGES || b->bytes >= BATCH_BYTES; }

static void batch_add(batch *b, const candidate *item, range *r) {
    b->items[b->count] = *item;
    b->items[b->count].released_ns = atomic_load(&r->released_ns);
    b->spans[b->count++] = (struct iovec){range_address(r), range_bytes(r)};
    b->bytes += range_bytes(r);
}

/* ---- discarding ahead of the kernel ----------------------------------------------------------- */

static void take_batch(batch *b) {
    if (b->count == 0) return;
    const bool is_empty = os_discard_many(b->spans, b->count) == 0;
    for (size_t i = 0; i < b->count; i++) range_take_end(table_at(b->items[i].index), is_empty);
    tally(&offered.losses, b->count);
    b->count = b->bytes = 0;
}

void offer_give_ahead(uint64_t free_bytes, uint64_t reserve_bytes) {
    const uint64_t most = reserve_bytes / AHEAD_SHARE;
    uint64_t held;
    if (free_bytes > 2 * most || os_anonymous_bytes(&held) < 0) {
        offered.demand = (demand){0};
        return;
    }
    uint64_t wanted = demand_look(&offered.demand, held, offered.taken, os_now_ns());
    if (wanted > most) wanted = most;
    batch b = {.count = 0};
    size_t looked_at = 0;
    while (looked_at < offered.queue.count && free_bytes < wanted) {
        const candidate *item = &offered.queue.items[looked_at++];
        range *r = table_at(item->index);
        if (offered_is_stale(item) || !range_take_begin(r, item->generation)) continue;
        const uint64_t bytes = range_bytes(r);
        free_bytes += bytes;
        offered.demand.held_bytes -= bytes < offered.demand.held_bytes ? bytes : 0;
        batch_add(&b, item, r);
        if (batch_is_full(&b)) take_batch(&b);
    }
    take_batch(&b);
    if (looked_at) offered_drop_stale(&offered.queue);
}

/* ---- offering --------------------------------------------------------------------------------- */

static void note_offer(bool is_offered) {
    atomic_store(&offered.refused_ns, is_offered ? 0 : os_now_ns());
    if (!is_offered) rung_offer_failed();
}

static bool is_refused(void) {
    const uint64_t refused_ns = atomic_load(&offered.refused_ns);
    return refused_ns && os_now_ns() - refused_ns < REFUSED_NS;
}

bool offer_is_possible(void) { return vrange_rung() != VRANGE_RUNG_EAGER && !is_refused(); }

static void offer_batch(batch *b) {
    if (b->count == 0) return;
    const bool is_offered = os_lazyfree_many(b->spans, b->count) == 0;
    note_offer(is_offered);
    for (size_t i = 0; i < b->count; i++) {
        range_offer_end(table_at(b->items[i].index), is_offered);
        if (is_offered) offered_add(&offered.queue, &b->items[i]);
    }
    if (is_offered) tally(&offered.offers, b->count);
    b->count = b->bytes = 0;
}

static uint64_t offer_victims(victims *v, uint64_t wanted, bool may_rank, uint64_t ranked_bytes) {
    uint64_t done = 0;
    batch b = {.count = 0};
    while (done < wanted && done < TICK_BYTES) {
        const candidate *item = victims_next(v);
        if (!item && may_rank) {
            /* Whatever it costs: while the kernel takes from the reserve, there must be victims. */
            victims_rank(v, ranked_bytes);
            may_rank = false;
            continue;
        }
        if (!item) break;
        range *r = table_at(item->index);
        if (!range_offer_begin(r, item->generation)) continue;
        batch_add(&b, item, r);
        done += range_bytes(r);
        if (batch_is_full(&b)) offer_batch(&b);
    }
    offer_batch(&b);
    return done;
}

uint64_t offer_more(victims *v, uint64_t bytes) {
    uint64_t done = 0, now;
    do {
        if (atomic_load(&stats_idle_bytes) == 0 || is_refused()) break;
        now = offer_victims(v, bytes - done, true, bytes - done);
        done += now;
    } while (now && done < bytes);
    return done;
}

bool offer_top_up(victims *v, uint64_t wanted, uint64_t taken, bool is_burst) {
    const uint64_t bytes = atomic_load(&stats_offered_bytes), present = above(bytes, taken);
    /* Not for every value that a hit takes back from the reserve: ranking costs the same for one range as
     * for many. */
    if (present + wanted / TOP_UP_SHARE > wanted || atomic_load(&stats_idle_bytes) == 0) return false;
    if (is_refused()) return false;
    /* With thousands of small values a ranking takes milliseconds, so that the victims may not be ranked again
     * for a tenth of a second. In less time a burst uses up the reserve, little by little. */
    const bool is_old = victims_are_old(v);
    if (is_old) victims_rank(v, wanted);
    const bool is_low = present < wanted / LOW_SHARE && rank_offerable_bytes() > wanted / TOP_UP_SHARE;
    const bool may_rank = !is_old && (is_burst || is_low);
    return offer_victims(v, above(wanted, present), may_rank, RANKED_TIMES * wanted) >= TICK_BYTES;
}

bool offer_take_back(void) {
    uint64_t done = 0;
    for (size_t i = 0; i < offered.queue.count && done < TICK_BYTES; i++) {
        const candidate *item = &offered.queue.items[i];
        if (offered_is_stale(item)) continue;
        range *r = table_at(item->index);
        const uint64_t bytes = range_bytes(r);
        if (range_take_back(r, item->generation)) done += bytes;
    }
    offered_drop_stale(&offered.queue); /* a range that is offered again has a newer entry */
    return done >= TICK_BYTES;
}

void offer_range(range *r, uint64_t generation) {
    if (!range_offer_begin(r, generation)) return;
    const candidate item = {.index = r->index,
                            .generation = generation,
                            .released_ns = atomic_load(&r->released_ns)};
    const uint64_t bytes = range_bytes(r);
    tally(&stats_copying_bytes, bytes); /* until it counts as offered */
    const bool is_offered = os_lazyfree(range_address(r), bytes) == 0;
    note_offer(is_offered);
    range_offer_end(r, is_offered);
    untally(&stats_copying_bytes, bytes);
    if (is_offered) offered_add(&offered.queue, &item);
}

uint64_t offer_offers(void) { return offered.offers; }
uint64_t offer_losses(void) { return offered.losses; }

void offer_forget_memory(void) { offered.queue = (offered_queue){.items = NULL}; }

void offer_forget(void) {
    offered.queue.count = 0;
    offered.next_look = 0;
    offered.demand = (demand){0};
}
