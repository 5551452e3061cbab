/* Evicting the least valuable ranges at once, for callers that need their memory or their address space. */
#include "reserve/shed.h"

#include "base/gate.h"
#include "ranges/range_away.h"
#include "pressure/memory_limits.h"
#include "ranges/range_offer.h"
#include "reserve/rank.h"
#include "vrange.h"

#define PASSES_MOST 16 /* each ranks at most RANKED_MOST ranges */

static uint64_t shed_ranked(const ranking *least, uint64_t bytes, bool waits) {
    uint64_t gone = 0;
    for (size_t i = 0; i < least->count && gone < bytes; i++) {
        range *r = table_at(least->items[i].index);
        const uint64_t size = range_bytes(r);
        if (!waits && word_state(atomic_load(range_word(r))) == BUSY) continue;
        if (range_shed(r, least->items[i].generation)) gone += size;
    }
    return gone;
}

uint64_t shed_least(struct vrange_arena *arena, uint64_t bytes, bool waits) {
    ranking least = {.items = NULL};
    uint64_t gone = 0;
    /* An arena has bounds of its own. A limit on the resident set counts shared pages. */
    const unsigned which = RANK_OFFERED | (arena || limits_has_set() ? RANK_SHARED : 0u);
    for (int pass = 0; pass < PASSES_MOST && gone < bytes; pass++) {
        rank_least(&least, arena, which, bytes - gone);
        const uint64_t now = shed_ranked(&least, bytes - gone, waits);
        gone += now;
        if (now == 0 || least.count < RANKED_MOST) break; /* nothing more could be ranked */
    }
    rank_end(&least);
    return gone;
}

uint64_t vrange_arena_shed(vrange_arena *arena, uint64_t bytes) {
    gate_enter();
    /* What is away first: it takes no memory here, but address space, and it counts towards the bounds. */
    uint64_t gone = arena_give_up(arena, bytes);
    if (gone < bytes) gone += shed_least(arena, bytes - gone, true);
    gate_leave();
    return gone;
}
