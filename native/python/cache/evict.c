/* Eviction: of one entry, of what the kernel took, of what expired, and of the least valuable if a bound is
 * exceeded.
 *
 * Bytes are bounded through the ranges: the core of vrange ranks them by value, and the ranges that it sheds
 * are found lost here. Entries are bounded by a hand that goes round over the records (GCLOCK, Smith 1978).
 * An entry that was used has credit, and survives one turn of the hand for each credit, or one in all while
 * requests move on (pace.h). Of that entry and a few others without credit, the cheapest to compute again is
 * evicted. While requests go round in a loop, what was stored last is. So evicting is O(1) amortised, and
 * nothing is sorted. An evicted key leaves a ghost. */
#include "python/cache/evict.h"

#include "python/cache/flight.h"
#include "python/cache/hot_front.h"
#include "python/cache/limbo.h"
#include "python/cache/pace.h"

#include "os/os.h"

#define COMPARED 8 /* entries, for each that is evicted */
#define CLEARLY_CHEAPER 4 /* steps of an entry's cost: half of it */
#define SWEPT_AT_ONCE 64 /* entries, between two looks at the clock; also by each store */
#define SWEEP_STEP_NS 300000u

/* ---- one entry ------------------------------------------------------------------------------- */

void evict_entry(cache_core *self, entry_no number, leave_cause cause) {
    entry *e = entry_at(&self->index, number);
    if (e->place == PLACE_FLIGHT) {
        flight_call_off(self, number);
        return;
    }
    e->value = hot_release(self, number); /* its reference goes to limbo */
    const uint64_t place = e->place;
    const bool is_away = self->on_evict && core_is_away(self, e); /* its owner reports it */
    e->place = PLACE_NOWHERE;
    listener_note(self, e->key, is_away ? NOT_TOLD : cause);
    index_bury(&self->index, number);
    limbo_free_place(self, place);
}

/* Returns how many entries went. */
static uint32_t lose_slab(cache_core *self, slab *gone, bool purged) {
    const uint64_t handle = gone->handle;
    const uint32_t entries = gone->used, uses = vrange_uses(handle) / (entries ? entries : 1);
    const loss how = loss_of(handle, purged);
    for (uint32_t slot = 0; slot < gone->fresh; slot++) {
        const entry_no number = slab_owner(gone, slot);
        if (number) limbo_lose(self, number, uses, how);
    }
    slabs_remove(&self->slabs, gone);
    limbo_free_range(self, handle, SLAB_BYTES);
    return entries;
}

void evict_lost_slab(cache_core *self, slab *gone) { lose_slab(self, gone, true); }

void evict_lost_place(cache_core *self, entry_no number) {
    const uint64_t place = entry_at(&self->index, number)->place;
    if (place & PLACE_SLOT) {
        evict_lost_slab(self, slab_of(&self->slabs, place));
    } else {
        const loss how = loss_of(place, true);
        limbo_lose(self, number, limbo_free_place(self, place), how);
    }
}

/* ---- lost and expired entries ---------------------------------------------------------------- */

static uint32_t lose_range(cache_core *self, uint64_t handle, bool purged) {
    const uint32_t owner = vrange_owner(handle);
    if (owner & SLAB_OWNER) {
        slab *lost = slab_numbered(&self->slabs, owner & ~SLAB_OWNER);
        if (lost && lost->handle == handle) return lose_slab(self, lost, purged);
    } else if (owner && owner < self->index.records) {
        const entry *e = entry_at(&self->index, owner);
        if (e->state == RECORD_LISTED && e->place == handle) {
            const loss how = loss_of(handle, purged);
            limbo_lose(self, owner, limbo_free_place(self, handle), how);
        }
    }
    return 1;
}

/* Removes about `most` entries that were found lost. Returns how many. */
static uint32_t lose_some(cache_core *self, uint32_t most, bool purged) {
    uint32_t gone = 0;
    uint64_t handle;
    while (gone < most && self->arena && vrange_arena_lost(self->arena, &handle, 1))
        gone += lose_range(self, handle, purged);
    return gone;
}

void evict_left_behind(cache_core *self) {
    if (!self->is_heir) return;
    lose_some(self, UINT32_MAX, true);
    self->is_heir = false;
}

/* Removes about `most` entries: true if some may be left. */
static bool sweep(cache_core *self, uint32_t most, bool purged) {
    uint32_t gone = 0;
    evict_left_behind(self);
    if (self->deadlines.count) {
        const uint64_t now = os_now_ns();
        for (entry_no number; gone < most; gone++) {
            number = expiry_next(&self->deadlines, &self->index, now);
            if (!number) break;
            evict_entry(self, number, LEFT_EXPIRED);
        }
    }
    return gone + lose_some(self, most - gone, purged) >= most;
}

void evict_sweep_all(cache_core *self, bool purged) {
    for (;;) {
        const uint64_t end = os_now_ns() + SWEEP_STEP_NS;
        bool some_are_left = sweep(self, SWEPT_AT_ONCE, purged);
        while (some_are_left && os_now_ns() < end) some_are_left = sweep(self, SWEPT_AT_ONCE, purged);
        limbo_drain(self);
        if (!some_are_left) return;
        core_let_others_run();
    }
}

/* ---- bounds ---------------------------------------------------------------------------------- */

/* Sheds about `bytes` of the least valuable ranges. Returns the bytes that went. May run Python. */
static uint64_t shed(cache_core *self, size_t bytes) {
    evict_sweep_all(self, true);
    vrange_arena *arena = self->arena;
    if (!arena) return 0;
    uint64_t gone;
    Py_BEGIN_ALLOW_THREADS
    gone = vrange_arena_shed(arena, bytes);
    Py_END_ALLOW_THREADS
    evict_sweep_all(self, false);
    limbo_drain(self);
    return gone;
}

bool evict_make_room(cache_core *self, size_t bytes) {
    /* More than is needed, because the free address space may be in pieces. */
    const size_t share = (size_t)self->bytes / 64;
    if (shed(self, 2 * bytes > share ? 2 * bytes : share)) return true;
    const Py_ssize_t held = self->hot_bytes;
    hot_clear(self);
    return held > 0 && shed(self, bytes) > 0;
}

static void keep_below_max_bytes(cache_core *self) {
    if (self->bytes <= self->max_bytes) return;
    shed(self, (size_t)(self->bytes - self->max_bytes));
    if (self->bytes <= self->max_bytes || !self->hot_bytes) return;
    hot_clear(self);
    if (self->bytes > self->max_bytes) shed(self, (size_t)(self->bytes - self->max_bytes));
}

static bool has_too_many(const cache_core *self) {
    const Py_ssize_t with_values = (Py_ssize_t)self->index.entries - self->flight_count;
    return with_values > self->max_entries || (with_values > 1 && index_is_too_large(&self->index));
}

static bool is_candidate(const entry *e) { return e->state == RECORD_LISTED && e->place != PLACE_FLIGHT; }

static void advance(cache_core *self) {
    if (++self->hand >= self->index.records) self->hand = 1;
    self->hand_steps++;
}

/* Moves the hand to the next entry without credit. Each entry that it passes loses some. False: there is none
 * but the one to be kept. */
static bool turn_to_candidate(cache_core *self, entry_no kept) {
    const uint32_t records = self->index.records;
    if (records < 2) return false;
    for (uint64_t left = (uint64_t)records * (CREDIT_MOST + 2); left > 0; left--) {
        advance(self);
        entry *e = entry_at(&self->index, self->hand);
        if (self->hand == kept || !is_candidate(e)) continue;
        if (!e->credit) return true;
        e->credit = pace_is_fast(self) ? 0 : e->credit - 1;
    }
    return false;
}

/* Returns the entry at the hand, or one without credit that is clearly cheaper to compute again: of a random
 * few, because entries that lie side by side are often alike. Measured costs vary, so of about equal entries
 * the one at the hand goes. */
static entry_no cheapest_of_some(cache_core *self, entry_no kept) {
    entry_no cheapest = self->hand;
    unsigned most = entry_at(&self->index, cheapest)->cost;
    most = most > CLEARLY_CHEAPER ? most - CLEARLY_CHEAPER : 0;
    for (int looked_at = 1; looked_at < COMPARED; looked_at++) {
        self->draw = self->draw * 1664525u + 1013904223u; /* Numerical Recipes' */
        const entry_no at = 1 + (entry_no)((uint64_t)self->draw * (self->index.records - 1) >> 32);
        const entry *e = entry_at(&self->index, at);
        if (at == kept || !is_candidate(e) || e->credit || e->cost > most) continue;
        cheapest = at;
        most = e->cost;
    }
    return cheapest;
}

/* The entry that was stored last, if it was not used since. 0: it was, or it is gone. */
static entry_no newest_unused(const cache_core *self, entry_no kept) {
    const entry_no number = self->newest_stored;
    if (!number || number == kept || !entry_is_still(&self->index, number, self->newest_stamp)) return 0;
    const entry *e = entry_at(&self->index, number);
    return is_candidate(e) && !e->credit ? number : 0;
}

static entry_no choose_by_hand(cache_core *self, entry_no kept) {
    const entry_no newest = pace_aging(self)->keeps ? newest_unused(self, kept) : 0;
    if (newest) return newest;
    return turn_to_candidate(self, kept) ? cheapest_of_some(self, kept) : 0;
}

static bool evict_by_hand(cache_core *self, entry_no kept) {
    const entry_no number = choose_by_hand(self, kept);
    if (!number) return false;
    const entry *e = entry_at(&self->index, number);
    const uint32_t uses = e->place & PLACE_SLOT || !e->place ? 0 : vrange_uses(e->place);
    pace_remember(self, e->hash, uses, false);
    evict_entry(self, number, LEFT_EVICTED);
    return true;
}

void evict_to_bounds(cache_core *self, entry_no kept, uint32_t stamp) {
    sweep(self, SWEPT_AT_ONCE, true);
    keep_below_max_bytes(self);
    while (has_too_many(self)) {
        const bool is_there = entry_is_still(&self->index, kept, stamp);
        if (!evict_by_hand(self, is_there ? kept : 0)) break;
        if (self->index.limbo) limbo_drain(self);
    }
    self->newest_stored = kept;
    self->newest_stamp = stamp;
    limbo_drain(self);
}
