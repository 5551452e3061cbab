/* Takes over the pages of an idle range for a new one; see range_reuse.h. */
#include "ranges/range_reuse.h"

#include <pthread.h>

#include "base/rung.h"
#include "counters/stats.h"
#include "pressure/room_for_copy.h"
#include "ranges/arena_state.h"
#include "ranges/range_busy.h"
#include "ranges/range_loss.h"
#include "ranges/range_marks.h"

static bool (*find_idle)(range *fresh, float worth);

void range_register_reuse(bool (*find)(range *fresh, float worth)) { find_idle = find; }

bool range_reuse(range *fresh, float worth) {
    /* What was written over can't be taken by the kernel for a while. For a large value there must be room. */
    if (range_bytes(fresh) >= ROOM_BYTES) return false;
    /* Where missing pages fault without a userfaultfd of ours, a range gets a new mapping when it is filled. */
    return find_idle && !rung_still_faults() && find_idle(fresh, worth);
}

static bool take_idle(range *r, uint64_t generation, const range *fresh) {
    uint64_t word = atomic_load(range_word(r));
    if (!is_current(word, generation) || word_state(word) != RESIDENT || word_pins(word)) return false;
    if (word & WORD_PARTIAL) return false;
    /* Until the range is BUSY, another thread may free it. Then its generation changes as well. */
    if (atomic_load(&r->arena) != fresh->arena || r->pages != fresh->pages || !atomic_load(&r->owner))
        return false;
    return atomic_compare_exchange_strong(range_word(r), &word, (word & ~WORD_STATE) | BUSY);
}

static void put_between(range *r, uint32_t below, uint32_t above) {
    r->below = below;
    r->above = above;
    if (!below) r->arena->spans[r->span].lowest = r->index;
    if (below) table_at(below)->above = r->index;
    if (above) table_at(above)->below = r->index;
}

/* Both ranges are BUSY, in one arena, and equally large. */
static void exchange_places(range *a, range *b) {
    vrange_arena *arena = a->arena;
    pthread_mutex_lock(&arena->lock);
    const uint32_t first_page = a->first_page, below = a->below, above = a->above;
    const uint8_t span = a->span;
    a->first_page = b->first_page;
    a->span = b->span;
    b->first_page = first_page;
    b->span = span;
    /* Two neighbours stay neighbours, the other way round. */
    put_between(a, b->below == a->index ? b->index : b->below, b->above == a->index ? b->index : b->above);
    put_between(b, below == b->index ? a->index : below, above == b->index ? a->index : above);
    if (arena->walk == a->index) arena->walk = b->index;
    else if (arena->walk == b->index) arena->walk = a->index;
    pthread_mutex_unlock(&arena->lock);
}

bool range_take_over(range *fresh, range *idle, uint64_t generation) {
    if (!take_idle(idle, generation, fresh)) return false;
    range_changes(idle);
    vrange_account *account = idle->arena->account;
    exchange_places(fresh, idle);
    stats_idle(account, -(int64_t)range_bytes(idle));
    tally(&account->shed_total, range_bytes(idle));
    range_lose_empty(idle, atomic_load(range_word(idle)));
    return true;
}
