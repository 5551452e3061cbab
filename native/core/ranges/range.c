/* Creates, fills and describes ranges. range_state.h defines their states; range_free.c frees, range_pin.c
 * pins and releases, range_offer.c offers to the kernel, and range_loss.c finds what the kernel took. */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "ranges/arena.h"
#include "ranges/arena_lost.h"
#include "base/caretaker.h"
#include "ranges/range_fill.h"
#include "base/gate.h"
#include "base/userfault_closed.h"
#include "os/os.h"
#include "ranges/range_busy.h"
#include "ranges/range_free.h"
#include "ranges/range_loss.h"
#include "ranges/range_marks.h"
#include "ranges/range_reuse.h"
#include "ranges/range_table.h"
#include "pressure/room_for_copy.h"
#include "base/rung.h"
#include "counters/stats.h"
#include "ranges/worth.h"

static int take_range(vrange_arena *arena, size_t bytes, float cost_ns, uint32_t uses, range **out) {
    const size_t page = os_page_bytes();
    if (bytes == 0) return -EINVAL;
    if (bytes / page >= UINT32_MAX) return -ENOMEM;
    int result = arena_take(arena, (uint32_t)((bytes + page - 1) / page), out);
    if (result < 0) return result;
    range *r = *out;
    r->cost_ns = cost_ns > 0 ? cost_ns : (float)UNKNOWN_COST_NS;
    aging *clock = arena_aging(arena);
    if (aging_keeps(clock)) uses = 0;
    atomic_store(&r->owner, 0);
    atomic_store(&r->uses, uses < USES_MOST - USE ? uses + USE : USES_MOST);
    atomic_store(&r->epoch, aging_epoch(clock));
    aging_count(clock, 1);
    return VRANGE_OK;
}

static int hand_out(range *r, int filled, uint64_t *handle) {
    uint64_t word = atomic_load(range_word(r));
    if (filled < 0) {
        range_finish_free(r, true);
        return filled;
    }
    *handle = range_handle(r, word);
    put_state(r, word + WORD_PIN, RESIDENT);
    return VRANGE_OK;
}

/* Returns whether the failed step may be tried again, because it failed only since other code had closed the
 * userfaultfd. *mends is the number of mends before the attempt, and is updated for the next one. */
static bool was_mended(int result, uint64_t *mends) {
    if (result >= 0 || result == -ENOMEM) return false;
    const bool holds = rung_holds();
    if (holds && rung_mends() == *mends) return false;
    if (!holds) mend();
    *mends = rung_mends();
    return true;
}

/* What the content will be worth is not known yet: the least valuable range gives way to it. */
static int fill_with_zeros(range *r) {
    const bool has_pages = range_reuse(r, INFINITY);
    if (has_pages) memset(range_address(r), 0, range_bytes(r));
    return has_pages ? 0 : fill_zero(range_address(r), range_bytes(r));
}

int vrange_allocate(vrange_arena *arena, size_t bytes, uint64_t *handle) {
    range *r;
    gate_enter();
    caretaker_ensure();
    caretaker_help(bytes);
    int result;
    uint64_t mends = rung_mends();
    do {
        result = take_range(arena, bytes, 0, 0, &r);
        if (result == VRANGE_OK)
            result = hand_out(r, fill_with_zeros(r), handle);
    } while (was_mended(result, &mends));
    gate_leave();
    return result;
}

/* While a large value is stored, two copies of it exist. If memory is too tight for both, the new copy is
 * offered until it is complete. The caller still has the other copy, so no content is lost with the new one. */
static int fill_tightly(range *r, const vrange_part *parts, size_t count) {
    tally(&stats_copying_bytes, range_bytes(r));
    int result = fill_parts(range_address(r), parts, count, true);
    if (result == 0) result = range_secure(r);
    untally(&stats_copying_bytes, range_bytes(r));
    if (result != VRANGE_PURGED) return result;
    return rung_holds() ? -ENOBUFS : -EBADF;
}

static int fill_range(range *r, const vrange_part *parts, size_t count, size_t bytes) {
    if (range_reuse(r, value_of(r, r->arena))) {
        fill_over(range_address(r), parts, count);
        return 0;
    }
    /* Only on the refault rung: on the others a lost page would read as zeros. */
    if (bytes >= ROOM_BYTES && rung_userfault() >= 0 && room_is_tight(bytes))
        return fill_tightly(r, parts, count);
    return fill_parts(range_address(r), parts, count, false);
}

int vrange_store(vrange_arena *arena, const vrange_part *parts, size_t count, uint64_t cost_ns,
                 uint32_t uses, uint64_t *handle) {
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++) bytes += parts[i].bytes;
    range *r;
    gate_enter();
    caretaker_ensure();
    caretaker_help(bytes);
    int result;
    uint64_t mends = rung_mends();
    do {
        result = take_range(arena, bytes, (float)cost_ns, uses, &r);
        if (result == VRANGE_OK)
            result = hand_out(r, fill_range(r, parts, count, bytes), handle);
    } while (was_mended(result, &mends));
    gate_leave();
    return result;
}

void vrange_write_begins(uint64_t handle, int over) {
    range *r = range_of(handle);
    if (!r) return;
    atomic_store(&r->inherited, false);
    if (over) range_changes(r);
}

/* ---- a range's state, cost and worth ---------------------------------------------------------- */

int vrange_set_partial(uint64_t handle, int partial) {
    range *r = range_of(handle);
    uint64_t word = r ? atomic_load(range_word(r)) : 0;
    do {
        if (!r || !is_current(word, handle & WORD_GENERATION)) return VRANGE_GONE;
        if (word_pins(word) == 0) return -EBUSY;
    } while (!atomic_compare_exchange_weak(
        range_word(r), &word, partial ? word | WORD_PARTIAL : word & ~WORD_PARTIAL));
    return VRANGE_OK;
}

/* Waits until the range is not BUSY and returns its word, or 0 if the range is gone. */
static uint64_t settled_word(range *r, uint64_t generation) {
    unsigned waited = 0;
    for (;;) {
        uint64_t word = atomic_load(range_word(r));
        if (!is_current(word, generation)) return 0;
        if (word_state(word) != BUSY) return word;
        wait_a_little(&waited);
    }
}

static int state_in(uint64_t word) {
    static const int states[] = {[FREE] = VRANGE_STATE_FREED,
                                 [RESIDENT] = VRANGE_STATE_IDLE,
                                 [OFFERED] = VRANGE_STATE_OFFERED,
                                 [PURGED] = VRANGE_STATE_PURGED};
    return word_pins(word) ? VRANGE_STATE_PINNED : states[word_state(word)];
}

int vrange_state(uint64_t handle) {
    range *r = range_of(handle);
    return r ? state_in(settled_word(r, handle & WORD_GENERATION)) : VRANGE_STATE_FREED;
}

int vrange_set_cost(uint64_t handle, uint64_t cost_ns) {
    range *r = range_of(handle);
    if (!r || !is_current(atomic_load(range_word(r)), handle & WORD_GENERATION)) return VRANGE_GONE;
    r->cost_ns = (float)cost_ns;
    return VRANGE_OK;
}

static void describe(range *r, uint64_t word, vrange_range_info *out) {
    out->state = state_in(word);
    out->lost = !!(word & WORD_LOST);
    out->pins = (uint32_t)word_pins(word);
    out->address = range_address(r);
    out->bytes = range_bytes(r);
    out->resident_bytes = range_resident_bytes(r);
}

int vrange_range_read(uint64_t handle, vrange_range_info *out) {
    memset(out, 0, sizeof *out);
    range *r = range_of(handle);
    if (!r) return VRANGE_GONE;
    for (;;) {
        /* No other thread can free the range meanwhile: we have it BUSY, or add a pin. */
        uint64_t word;
        gate_enter();
        int result = take_busy(r, handle & WORD_GENERATION, &word);
        if (result == VRANGE_OK) {
            describe(r, word, out);
            put_state(r, word, word_state(word));
        }
        gate_leave();
        if (result != VRANGE_HELD) return result;
        if (atomic_compare_exchange_strong(range_word(r), &word, word + WORD_PIN)) {
            describe(r, word, out);
            vrange_release(handle);
            return VRANGE_OK;
        }
    }
}

void *vrange_address(uint64_t handle) {
    range *r = range_of(handle);
    /* A doomed range stays valid for the callers that have it pinned. */
    bool there = r && (atomic_load(range_word(r)) & WORD_GENERATION) == (handle & WORD_GENERATION) &&
                 word_state(atomic_load(range_word(r))) != FREE;
    return there ? range_address(r) : NULL;
}

uint32_t vrange_uses(uint64_t handle) {
    range *r = range_of(handle);
    if (!r || !is_current(atomic_load(range_word(r)), handle & WORD_GENERATION)) return 0;
    vrange_arena *arena = r->arena;
    return arena ? uses_aged(r, aging_epoch(arena_aging(arena))) : 0;
}

size_t vrange_page_bytes(void) { return os_page_bytes(); }
