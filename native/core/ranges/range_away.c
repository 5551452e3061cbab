/* Reads ranges that are away; see range_away.h.
 *
 * The child has the descriptor of such a range, so it knows where the content lies in the owner. The owner may
 * change it at any moment, and the kernel may take it. So a read is checked afterwards: the owner's mark shows
 * a change, a missing page makes the read fail, and the child's own word shows whether the child has given the
 * range up meanwhile. */
#include "ranges/range_away.h"

#include <pthread.h>

#include "base/gate.h"
#include "counters/stats.h"
#include "os/os.h"
#include "ranges/arena_lost.h"
#include "ranges/owners.h"
#include "ranges/range_busy.h"
#include "ranges/range_marks.h"
#include "ranges/range_table.h"
#include "ranges/sentinel_away.h"

int vrange_is_away(uint64_t handle) {
    const range *r = range_of(handle);
    const uint64_t word = r ? atomic_load_explicit(range_word(r), memory_order_acquire) : 0;
    return r && (word & WORD_GENERATION) == (handle & WORD_GENERATION) && word_is_away(word);
}

/* The address in the owner is that of the descriptor, which the child inherited. NULL: the range was freed. */
static const char *place_in_owner(const range *r, size_t offset, size_t bytes) {
    const vrange_arena *arena = atomic_load(&r->arena);
    if (!arena || offset > range_bytes(r) || bytes > range_bytes(r) - offset) return NULL;
    return arena->spans[r->span].base + (size_t)r->first_page * os_page_bytes() + offset;
}

static range_mark *mark_in_owner(const range *r, uint32_t level) {
    table_chunk *chunk = range_chunk(r);
    return &chunk->owner_marks[level][r - chunk->ranges];
}

static int read_in_owner(const owner *of, const range *r, const range_mark *mark, const char *from,
                         size_t offset, void *to, size_t bytes) {
    peer_content content = {.from = (uint64_t)from, .to = to, .bytes = bytes};
    if (of->process.rung != VRANGE_RUNG_SENTINEL) return peer_read(&of->process, &content);
    const uint64_t generation = atomic_load(range_word(r)) & WORD_GENERATION;
    return sentinel_read_away(of, r, mark, generation, (uint64_t)from, offset, to, bytes);
}

int vrange_read_away(uint64_t handle, size_t offset, void *to, size_t bytes) {
    range *r = range_of(handle);
    const uint64_t word = r ? atomic_load(range_word(r)) : 0;
    if (!r || !is_current(word, handle & WORD_GENERATION)) return VRANGE_GONE;
    owner *of = word_is_away(word) ? owner_at(word_level(word)) : NULL;
    const char *from = of ? place_in_owner(r, offset, bytes) : NULL;
    if (!from) return VRANGE_PURGED;
    range_mark *mark = mark_in_owner(r, word_level(word));
    if (!owner_still_has(of, mark)) return VRANGE_PURGED;
    const int result = read_in_owner(of, r, mark, from, offset, to, bytes);
    if (result == PEER_OVER || result == PEER_REFUSED) owner_ends(of);
    if (result != PEER_READ || !owner_still_has(of, mark)) return VRANGE_PURGED;
    if ((atomic_load(range_word(r)) ^ word) & (WORD_GENERATION | WORD_AWAY)) return VRANGE_GONE;
    atomic_fetch_add_explicit(&mark->uses, 1, memory_order_relaxed);
    return VRANGE_OK;
}

static bool may_leave(const range *r, uint64_t word) {
    const owner *of = owner_at(r->inherited_from);
    if (!of || !atomic_load(&r->owner) || word & (WORD_PARTIAL | WORD_LOST)) return false;
    return owner_still_has(of, mark_in_owner(r, r->inherited_from));
}

/* The range is BUSY. Returns whether its pages are gone. */
static bool leave(range *r, uint64_t word) {
    vrange_arena *arena = r->arena;
    if (!may_leave(r, word)) return false;
    range_changes(r); /* for the children of this child */
    if (os_discard(range_address(r), range_bytes(r)) < 0) return false;
    tally(&arena->account->purged_bytes, range_bytes(r)); /* first: in between it must not look pinned */
    stats_idle(arena->account, -(int64_t)range_bytes(r));
    pthread_mutex_lock(&arena->lock);
    if (r->index < arena->away_next) arena->away_next = r->index;
    pthread_mutex_unlock(&arena->lock);
    return true;
}

void range_leave(range *r, uint64_t generation) {
    gate_enter();
    uint64_t word = atomic_load(range_word(r));
    const bool is_idle = is_current(word, generation) && word_state(word) == RESIDENT && !word_pins(word);
    if (is_idle && atomic_compare_exchange_strong(range_word(r), &word, (word & ~WORD_STATE) | BUSY)) {
        atomic_store(&r->inherited, false);
        if (leave(r, word)) put_state(r, word | WORD_LOST | word_away_at(r->inherited_from), PURGED);
        else put_state(r, word, RESIDENT);
    }
    gate_leave();
}

/* Lists a range as lost. It stays away until its entry has gone: its owner reports the loss. */
static bool give_up(range *r, uint64_t generation) {
    uint64_t word;
    if (take_busy(r, generation, &word) != VRANGE_OK) return false;
    const bool is_away = word_is_away(word);
    if (is_away) arena_list_lost(r);
    put_state(r, word, word_state(word));
    return is_away;
}

static uint32_t next_inherited(vrange_arena *arena) {
    pthread_mutex_lock(&arena->lock);
    const uint32_t index = arena->away_next < arena->unlisted_end ? arena->away_next++ : 0;
    pthread_mutex_unlock(&arena->lock);
    return index;
}

uint64_t arena_give_up(vrange_arena *arena, uint64_t bytes) {
    uint64_t gone = 0;
    for (uint32_t index; gone < bytes && (index = next_inherited(arena)) != 0;) {
        range *r = table_at(index);
        const uint64_t word = atomic_load(range_word(r));
        if (!word_is_away(word) || atomic_load(&r->arena) != arena) continue;
        const uint64_t size = range_bytes(r);
        if (!give_up(r, word & WORD_GENERATION)) continue;
        tally(&arena->account->shed_total, size);
        gone += size;
    }
    return gone;
}
