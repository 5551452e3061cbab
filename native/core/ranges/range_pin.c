/* Pins and releases ranges.
 *
 * If the content was never offered, either is one compare-and-swap and no system call. Nearly every cache
 * hit takes this path. All other cases first make the range BUSY, then make the system calls, and then store
 * the new state. */
#include <errno.h>
#include <stdlib.h>

#include "ranges/arena.h"
#include "ranges/arena_lost.h"
#include "base/caretaker.h"
#include "ranges/range_away.h"
#include "ranges/range_fill.h"
#include "base/gate.h"
#include "base/userfault_closed.h"
#include "os/os.h"
#include "ranges/range_busy.h"
#include "ranges/range_loss.h"
#include "ranges/range_free.h"
#include "ranges/range_offer.h"
#include "ranges/range_table.h"
#include "pressure/room_for_copy.h"
#include "base/rung.h"
#include "counters/stats.h"
#include "ranges/worth.h"

static void count_uses(range *r, vrange_arena *arena, uint32_t times) {
    aging *clock = arena_aging(arena);
    uint32_t epoch = aging_epoch(clock);
    uint32_t uses = uses_aged(r, epoch) + times * USE;
    /* Two threads may count one use instead of two: an estimate of popularity need not be exact. */
    atomic_store_explicit(&r->uses, uses < USES_MOST ? uses : USES_MOST, memory_order_relaxed);
    atomic_store_explicit(&r->epoch, epoch, memory_order_relaxed);
    aging_count(clock, times);
}

void vrange_used(uint64_t handle, uint32_t times) {
    range *r = range_of(handle);
    if (!r || !is_current(atomic_load(range_word(r)), handle & WORD_GENERATION)) return;
    vrange_arena *arena = r->arena; /* never freed: at worst it is another arena by now */
    if (arena) count_uses(r, arena, times);
}

/* Pins an offered or purged range. LOOK_AGAIN means that the caller must read the word again; 0x100 is none
 * of the interface's values. */
#define LOOK_AGAIN 0x100

static int pin_slowly(range *r, uint64_t generation, bool only_whole) {
    uint64_t word;
    int result = take_busy(r, generation, &word);
    if (result == VRANGE_HELD) return LOOK_AGAIN;
    if (result != VRANGE_OK) return result;
    vrange_account *account = r->arena->account;
    const int64_t bytes = (int64_t)range_bytes(r);
    uint64_t state = word_state(word);

    if (state == RESIDENT) {
        put_state(r, word, RESIDENT);
        return LOOK_AGAIN;
    }
    if (state == OFFERED) {
        result = range_secure(r);
        if (result == VRANGE_OK) {
            range_count_offer_over(r);
            put_state(r, word + WORD_PIN, RESIDENT);
            return word & WORD_LOST ? VRANGE_PURGED : VRANGE_OK;
        }
        if (result < 0) {
            put_state(r, word, OFFERED);
            return result;
        }
        range_count_offer_over(r);
        uint64_t lost_bytes = (uint64_t)bytes;
        bool some_is_kept =
            word & WORD_PARTIAL && range_secure_page_by_page(r, word, &lost_bytes);
        tally(&account->purged_total, lost_bytes);
        if (some_is_kept) {
            word |= WORD_LOST;
            if (only_whole) stats_idle(account, bytes);
            put_state(r, only_whole ? word : word + WORD_PIN, RESIDENT);
            return VRANGE_PURGED;
        }
        range_discard_rest(r, word);
        if (only_whole) return VRANGE_PURGED;
        return LOOK_AGAIN;
    }
    /* PURGED: the pages are made accessible again, as zeros. Every pin reports the loss until
     * vrange_refilled. */
    if (only_whole) result = VRANGE_PURGED;
    else result = fill_zero(range_address(r), (size_t)bytes);
    if (result != VRANGE_OK) {
        put_state(r, word, PURGED);
        return result;
    }
    untally(&account->purged_bytes, (uint64_t)bytes);
    put_state(r, word_not_away(word) + WORD_PIN, RESIDENT);
    return VRANGE_PURGED;
}

static int pin(uint64_t handle, bool only_whole) {
    range *r = range_of(handle);
    if (!r) return VRANGE_GONE;
    const bool timed = stats_times_fast(STATS_FAST_PIN);
    uint64_t start = timed ? os_now_ns() : 0;
    bool fast = true;
    const uint64_t generation = handle & WORD_GENERATION;
    unsigned waited = 0;
    int result = LOOK_AGAIN;
    while (result == LOOK_AGAIN) {
        uint64_t word = atomic_load(range_word(r));
        if (!is_current(word, generation)) return VRANGE_GONE;
        if (word_state(word) == BUSY) {
            if (!start) start = stats_now_ns();
            fast = false;
            wait_a_little(&waited);
        } else if (word_state(word) == RESIDENT) {
            if (only_whole && word & WORD_LOST) return VRANGE_PURGED;
            if ((word & WORD_PINS) == WORD_PINS) return -EOVERFLOW;
            if (!atomic_compare_exchange_weak(range_word(r), &word, word + WORD_PIN)) continue;
            if (word_pins(word) == 0) stats_idle(r->arena->account, -(int64_t)range_bytes(r));
            if (gate_is_closed()) {
                /* The fork may have missed this pin; then the child would not have the memory. */
                vrange_release(handle);
                gate_wait();
                continue;
            }
            result = word & WORD_LOST ? VRANGE_PURGED : VRANGE_OK;
        } else {
            if (!start) start = stats_now_ns();
            fast = false;
            gate_enter();
            caretaker_ensure();
            caretaker_help(0);
            result = pin_slowly(r, generation, only_whole);
            if (result != VRANGE_OK && !rung_holds()) {
                mend();
                if (result < 0) result = LOOK_AGAIN;
            }
            gate_leave();
        }
    }
    if (result == VRANGE_OK) {
        const int kind = (int)r->arena->account->kind;
        count_uses(r, r->arena, 1);
        if (fast) {
            stats_record_fast(STATS_FAST_PIN, kind, VRANGE_REALLOCATE_RESIDENT, start);
        } else {
            stats_was_slow(STATS_FAST_PIN);
            vrange_latency_record(kind, VRANGE_REALLOCATE_RESIDENT, stats_now_ns() - start);
        }
    } else if (result == VRANGE_PURGED && !only_whole) {
        count_uses(r, r->arena, 1);
        atomic_store_explicit(&r->released_ns, start ? start : os_now_ns(), memory_order_relaxed);
    }
    return result;
}

int vrange_pin(uint64_t handle) { return pin(handle, false); }

int vrange_pin_whole(uint64_t handle) { return pin(handle, true); }

int vrange_release(uint64_t handle) {
    range *r = range_of(handle);
    if (!r) return VRANGE_GONE;
    const uint64_t generation = handle & WORD_GENERATION;
    const uint64_t start = os_now_ns();
    uint64_t word = atomic_load(range_word(r));
    for (;;) {
        if ((word & WORD_GENERATION) != generation || word_pins(word) == 0) return VRANGE_GONE;
        if (word_pins(word) > 1) {
            if (atomic_compare_exchange_weak(range_word(r), &word, word - WORD_PIN)) return VRANGE_OK;
            continue;
        }
        if (word & WORD_DOOMED) {
            gate_enter();
            bool ours = atomic_compare_exchange_strong(
                range_word(r), &word, ((word - WORD_PIN) & ~WORD_STATE) | BUSY);
            if (ours) range_finish_free(r, true);
            gate_leave();
            if (ours) return VRANGE_OK;
            continue;
        }
        vrange_account *account = r->arena->account;
        const int64_t bytes = (int64_t)range_bytes(r);
        /* Count the range before it is idle: afterwards the reserve may already have offered it. */
        stats_idle(account, bytes);
        atomic_store_explicit(&r->released_ns, start, memory_order_relaxed);
        if (!atomic_compare_exchange_weak(range_word(r), &word, word - WORD_PIN)) {
            stats_idle(account, -bytes);
            continue;
        }
        if (atomic_load_explicit(&r->inherited, memory_order_relaxed)) range_leave(r, generation);
        if (!caretaker_is_running() && !caretaker_is_absent()) {
            gate_enter();
            caretaker_ensure(); /* in the child of a fork this may be the only idle range */
            gate_leave();
        }
        if (caretaker_is_absent()) {
            range_offer_now(r, generation);
            vrange_latency_record((int)account->kind, VRANGE_FREE_RELEASED, stats_now_ns() - start);
        } else if ((uint64_t)bytes >= ROOM_BYTES && range_offer_outsized(r, generation)) {
            vrange_latency_record((int)account->kind, VRANGE_FREE_RELEASED, stats_now_ns() - start);
        } else {
            const bool timed = stats_times_fast(STATS_FAST_RELEASE);
            stats_record_fast(STATS_FAST_RELEASE, (int)account->kind, VRANGE_FREE_RELEASED,
                              timed ? start : 0);
        }
        return VRANGE_OK;
    }
}
