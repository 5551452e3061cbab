/* Gives volatile ranges to the kernel: offers them, finds those that the kernel took, sheds and discards
 * them. The reserve (reserve.c) calls these functions; a user may also request a discard directly. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "ranges/range_offer.h"
#include "ranges/arena.h"
#include "ranges/arena_lost.h"
#include "base/gate.h"
#include "os/os.h"
#include "pressure/memory_limits.h"
#include "ranges/range_busy.h"
#include "ranges/range_loss.h"
#include "ranges/range_marks.h"
#include "ranges/range_shared.h"
#include "base/rung.h"
#include "ranges/sentinel.h"
#include "counters/stats.h"

bool range_offer_begin(range *r, uint64_t generation) {
    uint64_t word = atomic_load(range_word(r));
    if (!is_current(word, generation) || word_state(word) != RESIDENT || word_pins(word))
        return false;
    if (range_is_shared(r, true)) return false;
    if (!atomic_compare_exchange_strong(range_word(r), &word, (word & ~WORD_STATE) | BUSY)) return false;
    if (vrange_rung() != VRANGE_RUNG_SENTINEL) return true;
    if (sentinel_place(r)) return true;
    put_state(r, word, RESIDENT);
    return false;
}

void range_offer_end(range *r, bool offered) {
    vrange_account *account = r->arena->account;
    const int64_t bytes = (int64_t)range_bytes(r);
    uint64_t word = atomic_load(range_word(r));
    if (!offered) {
        if (r->sentinel_words) sentinel_remove(r);
        put_state(r, word, RESIDENT);
        return;
    }
    vrange_latency_record(account->kind, VRANGE_FREE_OFFERED,
                          os_now_ns() - atomic_load(&r->released_ns));
    stats_offered(account, bytes);
    stats_idle(account, -bytes); /* second: in between the range must not look pinned */
    put_state(r, word, OFFERED);
}

/* For a partial range, which stays offered: the kernel may go on and take the rest too. So no page is
 * touched, and the missing ones only count as purged. Returns false if no more are missing than before. */
static bool count_missing(range *r, uint32_t missing) {
    if (missing <= r->missing_pages) return false;
    const uint64_t bytes = (uint64_t)(missing - r->missing_pages) * os_page_bytes();
    tally(&r->arena->account->purged_bytes, bytes); /* first: in between the range must not look pinned */
    stats_offered(r->arena->account, -(int64_t)bytes);
    r->missing_pages = missing;
    return true;
}

/* The kernel takes pages in the order in which they were offered, so the first page is taken first. A range
 * that loses only other pages, to MADV_PAGEOUT, is found by its next pin. */
bool range_seems_taken(range *r) {
    /* The range is not BUSY: another thread may free it meanwhile, and then its descriptor belongs to no
     * arena. */
    const vrange_arena *arena = atomic_load(&r->arena);
    const char *base = arena ? arena->spans[r->span].base : NULL;
    return base && !os_is_resident((char *)base + (size_t)r->first_page * os_page_bytes());
}

static void list_as_lost(range *r, uint64_t word) {
    range_count_offer_over(r);
    tally(&r->arena->account->purged_total, range_bytes(r));
    range_lose(r, word);
}

bool range_collect(range *r, uint64_t generation) {
    uint64_t word = atomic_load(range_word(r));
    if (!is_current(word, generation) || word_state(word) != OFFERED) return false;
    if (!range_seems_taken(r)) return false;
    if (!atomic_compare_exchange_strong(range_word(r), &word, (word & ~WORD_STATE) | BUSY)) return false;
    const uint32_t missing = r->pages - (uint32_t)(range_resident_bytes(r) / os_page_bytes());
    if (word & WORD_PARTIAL && missing < r->pages) {
        bool is_news = count_missing(r, missing);
        put_state(r, word, OFFERED);
        return is_news;
    }
    list_as_lost(r, word);
    return true;
}

bool range_take_back(range *r, uint64_t generation) {
    uint64_t word = atomic_load(range_word(r));
    if (!is_current(word, generation) || word_state(word) != OFFERED || word & WORD_PARTIAL) return false;
    if (!atomic_compare_exchange_strong(range_word(r), &word, (word & ~WORD_STATE) | BUSY)) return false;
    const int result = range_secure(r);
    if (result < 0) {
        put_state(r, word, OFFERED);
        return false;
    }
    if (result != VRANGE_OK) {
        list_as_lost(r, word);
        return true;
    }
    stats_idle(r->arena->account, (int64_t)range_bytes(r)); /* first: in between it must not look pinned */
    range_count_offer_over(r);
    put_state(r, word, RESIDENT);
    return true;
}

bool range_take_begin(range *r, uint64_t generation) {
    uint64_t word = atomic_load(range_word(r));
    if (!is_current(word, generation) || word_state(word) != OFFERED) return false;
    if (!atomic_compare_exchange_strong(range_word(r), &word, (word & ~WORD_STATE) | BUSY)) return false;
    range_changes(r);
    return true;
}

void range_take_end(range *r, bool is_empty) {
    if (!is_empty) range_empty(r);
    range_count_offer_over(r);
    tally(&r->arena->account->purged_total, range_bytes(r));
    range_lose_empty(r, atomic_load(range_word(r)));
}

bool range_shed(range *r, uint64_t generation) {
    uint64_t word;
    if (take_busy(r, generation, &word) != VRANGE_OK) return false;
    if (word_state(word) == PURGED) {
        put_state(r, word, PURGED);
        return false;
    }
    vrange_account *account = r->arena->account;
    const int64_t bytes = (int64_t)range_bytes(r);
    if (word_state(word) == RESIDENT) stats_idle(account, -bytes);
    else range_count_offer_over(r);
    tally(&account->shed_total, (uint64_t)bytes);
    range_lose(r, word);
    return true;
}

/* For a caller that releases a range while no caretaker runs. */
void range_offer_now(range *r, uint64_t generation) {
    gate_enter();
    if (vrange_rung() == VRANGE_RUNG_EAGER || (limits_has_set() && !limits_set_spares_offered())) {
        range_shed(r, generation);
    } else if (range_offer_begin(r, generation)) {
        const bool offered = os_lazyfree(range_address(r), range_bytes(r)) == 0;
        if (!offered) rung_offer_failed();
        range_offer_end(r, offered);
    }
    gate_leave();
}

static bool (*offer_outsized)(range *r, uint64_t generation);

void range_register_outsized(bool (*offer)(range *r, uint64_t generation)) { offer_outsized = offer; }

bool range_offer_outsized(range *r, uint64_t generation) {
    return offer_outsized && offer_outsized(r, generation);
}

/* ---- discarding immediately ------------------------------------------------------------------- */

/* Has the kernel take the pages now. It does not take offered pages that another processor still has in a
 * batch on their way to the kernel's lists. So this tries three times. The caller discards what is
 * left then. */
static void discard_now(range *r) {
    char *address = range_address(r);
    const size_t bytes = range_bytes(r);
    for (int tries = 0; tries < 3; tries++) {
        if (vrange_rung() == VRANGE_RUNG_EAGER) break;
        if (os_lazyfree(address, bytes) < 0 || os_pageout(address, bytes) < 0) break;
        if (!os_is_resident(address) && !os_is_resident(address + bytes - os_page_bytes())) break;
    }
}

int vrange_discard(uint64_t handle) {
    range *r = range_of(handle);
    if (!r) return VRANGE_GONE;
    gate_enter();
    uint64_t word;
    int result = take_busy(r, handle & WORD_GENERATION, &word);
    if (result == VRANGE_OK && word_is_away(word)) {
        tally(&r->arena->account->purged_total, range_bytes(r));
        arena_list_lost(r);
        put_state(r, word_not_away(word), PURGED);
    } else if (result == VRANGE_OK && word_state(word) == PURGED) {
        put_state(r, word, PURGED);
    } else if (result == VRANGE_OK) {
        vrange_account *account = r->arena->account;
        const int64_t bytes = (int64_t)range_bytes(r);
        range_changes(r);
        discard_now(r);
        if (word_state(word) == RESIDENT) stats_idle(account, -bytes);
        else range_count_offer_over(r);
        tally(&account->purged_total, (uint64_t)bytes);
        range_lose(r, word);
    }
    gate_leave();
    return result;
}

void ranges_shed_offered(void) {
    for (uint32_t index = 1; index < table_count(); index++) {
        range *r = table_at(index);
        uint64_t word = atomic_load(range_word(r));
        if (word_state(word) == OFFERED) range_shed(r, word & WORD_GENERATION);
    }
}
