/* The reserve: the least valuable idle bytes, offered to the kernel ahead of need.
 *
 * Advising the kernel at every release costs more than it saves, and the kernel would discard in the order
 * of the releases, whatever has been used since. So a released range stays idle. This thread keeps just as
 * many bytes offered as may be needed before it can look again. Under pressure the kernel takes from them
 * at once, without waiting for any thread. This thread then sees what was taken, discards what is left of
 * those ranges, and offers the next least valuable ones. While the process itself allocates memory, vrange
 * discards the oldest ranges of the reserve before the kernel would reclaim them, which is cheaper.
 *
 * How large is the reserve? The rate at which memory is allocated times the longest time for which the
 * thread may not run. Measured on one core with two busy loops beside the process: 64 MB with a look every
 * 5 ms always survived, 16 MB with a look every 50 ms did not.
 *
 * If no thread can be started, a range is offered when it is released. On the eager rung there is nothing
 * to offer: the thread compares usage with the limit and discards by itself. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "ranges/arena.h"
#include "ranges/range_offer.h"
#include "ranges/range_reuse.h"
#include "ranges/range_table.h"
#include "arrays/array_offer.h"
#include "arrays/array_places.h"
#include "base/caretaker.h"
#include "reserve/demand.h"
#include "base/gate.h"
#include "base/inherit.h"
#include "pressure/alarm.h"
#include "pressure/headroom.h"
#include "pressure/limits.h"
#include "heap/heap.h"
#include "base/mend.h"
#include "reserve/offered.h"
#include "os/os.h"
#include "reserve/rank.h"
#include "reserve/rest.h"
#include "reserve/return_memory.h"
#include "reserve/victims.h"
#include "arrays/sigbus.h"
#include "base/rung.h"
#include "counters/stats.h"
#include "ranges/worth.h"

#define DEFAULT_BYTES (64ull << 20)
#define BATCH_RANGES 64
#define BATCH_BYTES (4u << 20) /* a pin of a range in the batch waits for it: some hundred microseconds */
#define TICK_BYTES (64u << 20) /* a fork waits for the tick */
#define LOOKS_AT_OTHERS 4   /* a look is a system call */
#define LOOKS_FROM_OLDEST 8 /* after this many untouched ranges the kernel has taken no more */
#define AHEAD_SHARE 4       /* at most this share of the reserve is discarded ahead of demand */
#define MACHINE_AGE_NS 50000000u
#define OUTSIZED_SHARE 8 /* of the reserve */
#define OUTSIZED_TIMES 4 /* several threads may each allocate as much, twice */
#define TOP_UP_SHARE 16  /* this share of the reserve may be missing */
#define SHORT_BYTES (1ull << 20) /* with so little free, the kernel reclaims for a store */

typedef struct {
    size_t stale, lost;
} looked;

static struct {
    _Atomic bool always; /* offers even while enough is free */
    _Atomic uint64_t bytes;

    /* Everything below belongs to the thread that holds `turn`. */
    pthread_mutex_t turn;
    offered_queue offered; /* some entries may be stale: see offered.h */
    size_t next_look;
    uint64_t taken; /* bytes found taken since the last tick */
    demand demand;
    bool offers_to_sleep; /* also if enough is free */
    victims victims;
    bool lacks_victims; /* a store found none to replace */

    _Atomic bool is_near; /* at the last turn, the limit was near */
    _Atomic uint64_t offers, losses;
} reserve = {.turn = PTHREAD_MUTEX_INITIALIZER, .bytes = DEFAULT_BYTES};

/* Free memory is available as fast as offered memory. So nothing is offered as long as more is free than
 * can be used up before this thread looks again: below the limits, and, with twice as much for what other
 * processes will need, on the machine. */
static free_memory look_for_memory(void) {
    const uint64_t bytes = atomic_load(&reserve.bytes);
    free_memory r = {.below_set = look_below_set_limit(bytes), .of_machine = headroom_of_machine(MACHINE_AGE_NS)};
    const bool is_known = headroom_below_limits(NEAR_RESERVES * bytes, &r.below_limits);
    r.is_near = r.below_limits / NEAR_RESERVES < bytes;
    r.is_enough = is_known && !r.is_near && !atomic_load(&reserve.always) &&
                  r.of_machine / (2 * NEAR_RESERVES) >= bytes;
    return r;
}

static bool collect(const candidate *item) {
    range *r = table_at(item->index);
    const uint64_t bytes = range_bytes(r);
    if (!range_collect(r, item->generation)) return false;
    tally(&reserve.losses, 1);
    reserve.taken += bytes;
    return true;
}

/* Looks at offered ranges, from a place in the queue on, until `whole_most` of them were found whole. */
static void look_from(size_t place, size_t whole_most, looked *seen) {
    size_t whole = 0;
    for (size_t i = 0; i < reserve.offered.count && whole < whole_most; i++) {
        const candidate *item = &reserve.offered.items[(place + i) % reserve.offered.count];
        if (offered_is_stale(item)) seen->stale++;
        else if (collect(item)) seen->lost++;
        else whole++;
    }
}

/* The kernel takes pages roughly in the order in which they were offered, so looking starts at the oldest
 * and goes on for as long as it finds losses. But the kernel skips pages that another processor still has
 * in a batch of its own, for as long as that processor is idle. So some of the other ranges are looked at
 * in turn, and all of them if that finds losses that the oldest ones did not show. */
static void collect_losses(void) {
    looked oldest = {0}, others = {0};
    look_from(0, LOOKS_FROM_OLDEST, &oldest);
    if (!oldest.lost) {
        look_from(reserve.next_look, LOOKS_AT_OTHERS, &others);
        reserve.next_look += LOOKS_AT_OTHERS;
        if (others.lost) look_from(0, SIZE_MAX, &others);
    }
    if (oldest.stale + oldest.lost + others.stale + others.lost > LOOKS_FROM_OLDEST)
        offered_drop_stale(&reserve.offered);
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
    tally(&reserve.losses, b->count);
    b->count = b->bytes = 0;
}

/* Near the limit, discards the oldest offered ranges while the process allocates memory, so that it finds
 * free memory (demand.c). */
static void give_ahead(uint64_t free_bytes) {
    const uint64_t most = atomic_load(&reserve.bytes) / AHEAD_SHARE;
    uint64_t held;
    if (free_bytes > 2 * most || os_anonymous_bytes(&held) < 0) {
        reserve.demand = (demand){0};
        return;
    }
    uint64_t wanted = demand_look(&reserve.demand, held, reserve.taken, os_now_ns());
    if (wanted > most) wanted = most;
    batch b = {.count = 0};
    size_t looked_at = 0;
    while (looked_at < reserve.offered.count && free_bytes < wanted) {
        const candidate *item = &reserve.offered.items[looked_at++];
        range *r = table_at(item->index);
        if (offered_is_stale(item) || !range_take_begin(r, item->generation)) continue;
        const uint64_t bytes = range_bytes(r);
        free_bytes += bytes;
        reserve.demand.held_bytes -= bytes < reserve.demand.held_bytes ? bytes : 0;
        batch_add(&b, item, r);
        if (batch_is_full(&b)) take_batch(&b);
    }
    take_batch(&b);
    if (looked_at) offered_drop_stale(&reserve.offered);
}

/* ---- offering --------------------------------------------------------------------------------- */

static void offer_batch(batch *b) {
    if (b->count == 0) return;
    bool offered = os_lazyfree_many(b->spans, b->count) == 0;
    if (!offered) rung_offer_failed();
    for (size_t i = 0; i < b->count; i++) {
        range_offer_end(table_at(b->items[i].index), offered);
        if (offered) offered_add(&reserve.offered, &b->items[i]);
    }
    if (offered) tally(&reserve.offers, b->count);
    b->count = b->bytes = 0;
}

/* Returns whether more has to be done at once. */
static bool top_up(void) {
    const uint64_t wanted = atomic_load(&reserve.bytes);
    uint64_t offered = atomic_load(&stats_offered_bytes), done = 0;
    /* Not for every value that a hit takes back from the reserve: ranking costs the same for one range as
     * for many. */
    if (offered + wanted / TOP_UP_SHARE > wanted || atomic_load(&stats_idle_bytes) == 0) return false;
    if (victims_are_old(&reserve.victims)) victims_rank(&reserve.victims, wanted);
    batch b = {.count = 0};
    while (offered + done < wanted && done < TICK_BYTES) {
        const candidate *item = victims_next(&reserve.victims);
        if (!item) break;
        range *r = table_at(item->index);
        if (!range_offer_begin(r, item->generation)) continue;
        batch_add(&b, item, r);
        done += range_bytes(r);
        if (batch_is_full(&b)) offer_batch(&b);
    }
    offer_batch(&b);
    return done >= TICK_BYTES;
}

/* ---- the eager rung --------------------------------------------------------------------------- */

static bool shed_over_limit(uint64_t free_bytes) {
    const uint64_t spare = atomic_load(&reserve.bytes);
    if (free_bytes == UINT64_MAX) free_bytes = headroom_of_machine(0);
    if (spare <= free_bytes) return false;
    const uint64_t wanted = spare - free_bytes;
    victims_rank(&reserve.victims, wanted);
    uint64_t gone = 0;
    for (const candidate *item; gone < wanted && (item = victims_next(&reserve.victims));) {
        range *r = table_at(item->index);
        uint64_t bytes = range_bytes(r);
        if (range_shed(r, item->generation)) gone += bytes;
    }
    return gone > 0;
}

/* ---- the turn --------------------------------------------------------------------------------- */

/* One turn of the reserve. Returns whether the next one has to come at once. Inside the gate, holding
 * `turn`. */
static bool take_turn(free_memory now) {
    bool goes_on;
    reserve.taken = 0;
    return_memory(&now.below_set);
    atomic_store(&reserve.is_near, now.is_near);
    if (vrange_rung() == VRANGE_RUNG_EAGER) {
        goes_on = shed_over_limit(now.below_limits);
    } else {
        collect_losses();
        give_ahead(now.below_limits);
        goes_on = (!now.is_enough || reserve.offers_to_sleep) && top_up();
    }
    if (reserve.lacks_victims && victims_are_old(&reserve.victims)) {
        victims_rank(&reserve.victims, atomic_load(&reserve.bytes));
        reserve.lacks_victims = false;
    }
    return goes_on;
}

static uint64_t look_after_everything(uint64_t slept_ns) {
    const free_memory now = look_for_memory();
    /* Before any value: free heap memory is worth nothing. */
    heap_offer(now.is_near || now.below_set.is_short);
    if (!rung_holds()) mend(); /* without holding `turn`, which other threads wait for inside the gate */
    pthread_mutex_lock(&reserve.turn);
    const bool in_a_hurry = take_turn(now);
    const rest r = rest_after(slept_ns, &now, atomic_load(&reserve.bytes), reserve.taken, in_a_hurry);
    reserve.offers_to_sleep = r.needs_offered;
    pthread_mutex_unlock(&reserve.turn);
    if (vrange_rung() != VRANGE_RUNG_EAGER) {
        arrays_offer();
        refault_look();
    }
    return r.sleep_ns;
}

static bool help(void) {
    if (!rung_holds()) mend();
    if (pthread_mutex_trylock(&reserve.turn) != 0) return false;
    take_turn(look_for_memory());
    pthread_mutex_unlock(&reserve.turn);
    return true;
}

/* In the child of a fork, where all volatile ranges are purged. The queue and the ranking are of the
 * parent's ranges, and looking them up would read, and so copy, their words. */
static void forget_ranges_of_parent(void) {
    reserve.offered.count = 0;
    reserve.next_look = 0;
    victims_forget(&reserve.victims);
    reserve.demand = (demand){0};
    rest_forget();
}

/* ---- for users -------------------------------------------------------------------------------- */

int vrange_reserve_start(uint64_t bytes, uint64_t tick_ns, int always) {
    atomic_store(&reserve.bytes, bytes);
    atomic_store(&reserve.always, always);
    /* Here and not in the thread's first turn: it allocates, and glibc would reserve an arena for the thread. */
    limits_follow_outside();
    return caretaker_start(tick_ns);
}

void vrange_reserve_stop(void) {
    caretaker_stop();
    alarm_end();
}

void vrange_reserve_read(vrange_reserve_info *out) {
    caretaker_info thread;
    caretaker_read(&thread);
    *out = (vrange_reserve_info){.running = thread.running,
                                 .bytes = reserve.bytes,
                                 .tick_ns = caretaker_tick_ns(),
                                 .offered_bytes = stats_offered_bytes,
                                 .idle_bytes = stats_idle_bytes,
                                 .ticks = thread.ticks,
                                 .helped = thread.helped,
                                 .offers = reserve.offers,
                                 .losses = reserve.losses,
                                 .rankings = reserve.victims.rankings,
                                 .busy_ns = thread.busy_ns};
}

/* Whether a range of `bytes` is too large to be left idle now: if little memory is free, all that the
 * thread frees could come too late. */
static bool is_outsized(uint64_t bytes) {
    const uint64_t reserve_bytes = atomic_load(&reserve.bytes);
    if (bytes < reserve_bytes / OUTSIZED_SHARE || !caretaker_is_running()) return false;
    /* On the eager rung the range would not be offered but purged. */
    const uint64_t times = vrange_rung() == VRANGE_RUNG_EAGER ? 1 : OUTSIZED_TIMES;
    const uint64_t enough = times * (reserve_bytes + bytes);
    uint64_t below_limits;
    headroom_below_limits(enough, &below_limits);
    return below_limits < enough;
}

static bool offer_outsized(range *r, uint64_t generation) {
    if (!is_outsized(range_bytes(r))) return false;
    if (vrange_rung() == VRANGE_RUNG_EAGER) {
        range_offer_now(r, generation);
        return true;
    }
    gate_enter();
    pthread_mutex_lock(&reserve.turn);
    if (range_offer_begin(r, generation)) {
        const candidate item = {.index = r->index,
                                .generation = generation,
                                .released_ns = atomic_load(&r->released_ns)};
        const uint64_t bytes = range_bytes(r);
        tally(&stats_copying_bytes, bytes); /* until it counts as offered */
        const bool offered = os_lazyfree(range_address(r), bytes) == 0;
        range_offer_end(r, offered);
        untally(&stats_copying_bytes, bytes);
        if (offered) offered_add(&reserve.offered, &item);
    }
    pthread_mutex_unlock(&reserve.turn);
    gate_leave();    return true;
}

/* Whether new pages for a store would make the kernel reclaim; on the eager rung, make the thread discard. */
static bool is_short_of(uint64_t bytes) {
    if (!atomic_load(&reserve.is_near) || atomic_load(&stats_idle_bytes) < bytes) return false;
    const bool is_eager = vrange_rung() == VRANGE_RUNG_EAGER;
    const uint64_t enough = bytes + (is_eager ? atomic_load(&reserve.bytes) : SHORT_BYTES);
    uint64_t below_limits;
    return headroom_below_limits(enough, &below_limits) && below_limits < enough;
}

/* Near the limit, a store replaces an idle range. What is offered is worth less than idle ranges, but writing
 * over it takes a system call to secure it and another one to offer as much again: that costs what new pages do. */
static bool replace_one(range *fresh, float worth) {
    if (!is_short_of(range_bytes(fresh)) || pthread_mutex_trylock(&reserve.turn) != 0) return false;
    const bool replaced = victims_replace_one(&reserve.victims, fresh, worth);
    reserve.lacks_victims |= !replaced;
    pthread_mutex_unlock(&reserve.turn);
    return replaced;
}

__attribute__((constructor)) static void register_turn(void) {
    range_register_outsized(offer_outsized);
    range_register_reuse(replace_one);
    inherit_register(forget_ranges_of_parent);
    caretaker_register((caretaker_turn){look_after_everything, help, return_before_use});
}
