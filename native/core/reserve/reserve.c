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
#include <pthread.h>

#include "ranges/all_arenas.h"
#include "ranges/arena.h"
#include "ranges/range_offer.h"
#include "ranges/range_reuse.h"
#include "ranges/range_table.h"
#include "arrays/array_offer.h"
#include "arrays/array_places.h"
#include "base/amounts.h"
#include "base/caretaker.h"
#include "base/gate.h"
#include "base/inherit.h"
#include "pressure/alarm.h"
#include "pressure/headroom.h"
#include "pressure/memory_limits.h"
#include "pressure/watcher.h"
#include "counters/accounts.h"
#include "counters/requests.h"
#include "counters/segment.h"
#include "heap/heap_left.h"
#include "heap/heap_offer.h"
#include "heap/small_blocks.h"
#include "base/userfault_closed.h"
#include "reserve/burst.h"
#include "reserve/malloc_turn.h"
#include "reserve/offer.h"
#include "os/os.h"
#include "os/os_thread.h"
#include "reserve/rank.h"
#include "reserve/reserve.h"
#include "reserve/return_space.h"
#include "reserve/shed.h"
#include "reserve/turn_interval.h"
#include "reserve/below_set_limit.h"
#include "reserve/victims.h"
#include "stacks/deep_threads.h"
#include "arrays/sigbus.h"
#include "base/rung.h"
#include "counters/stats.h"

#define DEFAULT_BYTES (64ull << 20)
#define MACHINE_AGE_NS 50000000u /* every turn asks, and `is_enough` leaves twice the room */
#define BURST_SHARE 8    /* of the reserve: if so much is taken between two looks, it is refilled first */
#define OUTSIZED_SHARE 8 /* of the reserve */
#define OUTSIZED_TIMES 4 /* several threads may each allocate as much, twice */
#define HEAP_LOOK_NS 1000000000u /* a freed block ends a longer sleep */
#define REST_NS 1000000000u /* without anything to offer */
#define SHORT_BYTES (1ull << 20) /* with so little free, the kernel reclaims for a store */

static struct {
    _Atomic bool always; /* offers even while enough is free */
    _Atomic uint64_t bytes;

    /* Everything below belongs to the thread that holds `turn`. */
    pthread_mutex_t turn;
    uint64_t taken; /* bytes found taken since the last tick */
    uint64_t free_bytes; /* on the eager rung, after the last turn */
    bool offers_to_sleep; /* also if enough is free */
    bool has_offered_to_sleep; /* and enough is free still */
    victims victims;
    bool lacks_victims; /* a store found none to replace */

    _Atomic bool is_near; /* at the last turn, the limit was near */
} reserve = {.turn = PTHREAD_MUTEX_INITIALIZER, .bytes = DEFAULT_BYTES};

/* Free memory is available as fast as offered memory. So nothing is offered as long as more is free than
 * can be used up before this thread looks again: below the limits, and, with twice as much for what other
 * processes will need, on the machine. */
static free_memory look_for_memory(void) {
    const uint64_t bytes = atomic_load(&reserve.bytes);
    free_memory r = {.can_offer = offer_is_possible(),
                     .below_set = look_below_set_limit(bytes),
                     .of_machine = headroom_of_machine(MACHINE_AGE_NS)};
    const bool is_known = headroom_below_limits(NEAR_RESERVES * bytes, &r.below_limits);
    r.is_near = r.below_limits / NEAR_RESERVES < bytes;
    r.is_enough = is_known && !r.is_near && !atomic_load(&reserve.always) &&
                  r.of_machine / (2 * NEAR_RESERVES) >= bytes;
    return r;
}

/* ---- where nothing can be offered: the eager rung, and locked memory ---------------------------- */

static bool shed_over_limit(uint64_t free_bytes) {
    if (free_bytes == UINT64_MAX) free_bytes = headroom_of_machine(0);
    /* What was used up since the last turn. Far from the limit it does not matter. */
    const uint64_t before = reserve.free_bytes, bytes = atomic_load(&reserve.bytes);
    const bool is_near = before < NEAR_RESERVES * bytes;
    const uint64_t used = is_near ? above(before, free_bytes) : 0;
    const uint64_t spare = burst_reserve(bytes, used, os_now_ns());
    reserve.free_bytes = free_bytes;
    if (spare <= free_bytes) return false;
    const uint64_t wanted = spare - free_bytes;
    uint64_t gone = 0;
    /* What is offered does not go by itself, either. */
    if (vrange_rung() != VRANGE_RUNG_EAGER) return shed_least(NULL, wanted, false) > 0;
    victims_rank(&reserve.victims, wanted);
    for (const candidate *item; gone < wanted && (item = victims_next(&reserve.victims));) {
        range *r = table_at(item->index);
        const uint64_t size = range_bytes(r);
        if (range_shed(r, item->generation)) gone += size;
    }
    reserve.free_bytes += gone;
    return gone > 0;
}

/* ---- the turn --------------------------------------------------------------------------------- */

/* While enough is free and the kernel reclaims all the same, files are being read. In their turn it would take
 * the values that are offered only so that this thread can sleep: each rest would cost a reserve, and the cache
 * would end as page cache. */
static bool take_back_from_files(const free_memory *now) {
    const bool has_offered = reserve.has_offered_to_sleep;
    reserve.has_offered_to_sleep = now->is_enough && (has_offered || reserve.offers_to_sleep);
    if (!reserve.has_offered_to_sleep || (!alarm_has_come() && !reserve.taken)) return false;
    if (now->below_set.by_offering) return false; /* below that limit, taken back would count again */
    reserve.offers_to_sleep = false;
    const bool has_more = offer_take_back();
    reserve.has_offered_to_sleep = has_more;
    return has_more;
}

/* In a burst the reserve is topped up before its losses are collected, which takes longer. */
static bool keep_offered(const free_memory *now, uint64_t bytes, uint64_t to_offer) {
    const uint64_t gone = offer_estimate_taken(), wanted = burst_reserve(bytes, gone, os_now_ns());
    const bool is_burst = gone > bytes / BURST_SHARE;
    bool has_more_losses;
    if (!now->is_enough && is_burst) offer_top_up(&reserve.victims, wanted, gone, true);
    reserve.taken = offer_collect_losses(&has_more_losses);
    offer_give_ahead(now->below_limits, bytes);
    const uint64_t left = has_more_losses ? offer_estimate_taken() : 0;
    bool has_more = take_back_from_files(now);
    if (!now->is_enough || reserve.offers_to_sleep)
        has_more = offer_top_up(&reserve.victims, wanted, left, is_burst);
    if (to_offer) offer_more(&reserve.victims, to_offer);
    return has_more || has_more_losses;
}

/* One turn of the reserve. Returns whether the next one has to come at once. Inside the gate, holding
 * `turn`. */
static bool take_turn(free_memory now) {
    const uint64_t bytes = atomic_load(&reserve.bytes);
    bool goes_on;
    reserve.taken = 0;
    const uint64_t to_offer = return_memory(&now.below_set);
    atomic_store(&reserve.is_near, now.is_near);
    if (!now.can_offer) {
        goes_on = shed_over_limit(now.below_limits);
    } else {
        goes_on = keep_offered(&now, bytes, to_offer);
    }
    if (reserve.lacks_victims && victims_are_old(&reserve.victims)) {
        victims_rank(&reserve.victims, bytes);
        reserve.lacks_victims = false;
    }
    return goes_on;
}

/* A program that only recurses deep has nothing to offer: how much is used below its limits is not read. Its
 * first store calls the thread. */
static bool has_anything_to_offer(void) { return arenas_exist() || arrays_exist() || heap_is_open(); }

static uint64_t look_after_everything(uint64_t slept_ns) {
    return_space_look();
    if (!atomic_load(&segment_here)) return malloc_turn(slept_ns);
    if (!has_anything_to_offer()) {
        limits_follow();
        watcher_rouse(); /* no figure is read here that would show a change */
        const uint64_t stacks_ns = deep_threads_look();
        return stacks_ns < REST_NS ? stacks_ns : REST_NS;
    }
    const free_memory now = look_for_memory();
    /* Before any value: free heap memory is worth nothing. */
    heap_discard_unused();
    const uint64_t left = now.below_set.is_short ? 0 : lesser(now.below_limits, now.below_set.left);
    const bool is_near = now.is_near || now.below_set.is_short;
    heap_bound_idle(left, os_now_ns() + HEAP_LOOK_NS);
    if (is_near) heap_offer_near(left);
    else heap_offer(false);
    small_blocks_return(left);
    if (!rung_holds()) mend(); /* without holding `turn`, which other threads wait for inside the gate */
    pthread_mutex_lock(&reserve.turn);
    const bool in_a_hurry = take_turn(now);
    const rest r = rest_after(slept_ns, &now, atomic_load(&reserve.bytes), reserve.taken, in_a_hurry);
    reserve.offers_to_sleep = r.needs_offered;
    pthread_mutex_unlock(&reserve.turn);
    if (vrange_rung() != VRANGE_RUNG_EAGER) {
        arrays_offer();
        sigbus_look();
    }
    requests_look();
    accounts_look();
    const uint64_t stacks_ns = deep_threads_look();
    return lesser(r.sleep_ns, stacks_ns);
}

static bool help(void) {
    if (!rung_holds()) mend();
    if (pthread_mutex_trylock(&reserve.turn) != 0) return false;
    take_turn(look_for_memory());
    pthread_mutex_unlock(&reserve.turn);
    return true;
}

uint64_t reserve_offer(uint64_t bytes) {
    if (vrange_rung() == VRANGE_RUNG_EAGER) return 0;
    pthread_mutex_lock(&reserve.turn);
    const uint64_t done = offer_more(&reserve.victims, bytes);
    pthread_mutex_unlock(&reserve.turn);
    return done;
}

static void before_use(size_t bytes) {
    const uint64_t to_offer = return_before_use(bytes);
    if (to_offer) reserve_offer(to_offer);
}

/* A fork waits until no thread holds them. A child that was made without fork handlers may have them held, by
 * threads that exist only in its parent. */
static void renew_locks(void) {
    below_set_renew_lock();
    if (!os_lock_renew(&reserve.turn)) return;
    reserve.victims = (victims){.next = 0};
    offer_forget_memory();
}

/* In the child of a fork, where all volatile ranges are purged. The queue and the ranking are of the
 * parent's ranges, and looking them up would read, and so copy, their words. */
static void forget_ranges_of_parent(void) {
    renew_locks();
    offer_forget();
    victims_forget(&reserve.victims);
    rank_forget();
    rest_forget();
    burst_forget();
    reserve.has_offered_to_sleep = false;
}

/* ---- for users -------------------------------------------------------------------------------- */

uint64_t vrange_reserve_offer(uint64_t bytes) {
    gate_enter();
    const uint64_t done = reserve_offer(bytes);
    gate_leave();
    return done;
}

int vrange_reserve_start(uint64_t bytes, uint64_t tick_ns, int always) {
    atomic_store(&reserve.bytes, bytes);
    atomic_store(&reserve.always, always);
    /* Here and not in the thread's first turn: it allocates, and glibc would reserve an arena for that. */
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
                                 .offers = offer_offers(),
                                 .losses = offer_losses(),
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
    const bool spares_offered = limits_set_spares_offered() && vrange_rung() != VRANGE_RUNG_EAGER;
    if (spares_offered && headroom_below_set(NULL) < enough) return true;
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
    offer_range(r, generation);
    pthread_mutex_unlock(&reserve.turn);
    gate_leave();
    return true;
}

/* Whether new pages for a store would make the kernel reclaim; on the eager rung, make the thread discard. */
static bool is_short_of(uint64_t bytes) {
    if (!atomic_load(&reserve.is_near) || atomic_load(&stats_idle_bytes) < bytes) return false;
    const bool is_eager = vrange_rung() == VRANGE_RUNG_EAGER;
    const uint64_t enough = bytes + (is_eager ? atomic_load(&reserve.bytes) : SHORT_BYTES);
    return headroom_is_below(enough);
}

/* Near the limit, a store replaces an idle range. What is offered is worth less than idle ranges, but writing
 * over it takes a system call to secure it and another one to offer as much again: that costs the same. */
static bool replace_one(range *fresh, float worth) {
    if (!is_short_of(range_bytes(fresh)) || pthread_mutex_trylock(&reserve.turn) != 0) return false;
    const candidate *found = victims_find_like(&reserve.victims, fresh, worth);
    const candidate chosen = found ? *found : (candidate){.index = 0};
    reserve.lacks_victims |= !found;
    /* Taking over waits for the arena's lock, whose holder may not run for long on a busy machine. The
     * caretaker, which refills the reserve, must not wait for that. */
    pthread_mutex_unlock(&reserve.turn);
    return found && range_take_over(fresh, table_at(chosen.index), chosen.generation);
}

__attribute__((constructor)) static void register_turn(void) {
    range_register_outsized(offer_outsized);
    range_register_reuse(replace_one);
    inherit_register(forget_ranges_of_parent);
    caretaker_register((caretaker_turn){look_after_everything, help, before_use});
}
