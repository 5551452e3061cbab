/* Where a range lies; see range_place.h. A range that gives its place to another one is purged before, and a
 * range that is freed has another generation. */
#include "ranges/range_place.h"

#include "ranges/range_busy.h"
#include "ranges/range_table.h"
#include "vrange.h"

int range_where(uint64_t handle, range_place *out) {
    range *r = range_of(handle);
    if (!r) return VRANGE_GONE;
    unsigned waited = 0;
    for (;;) {
        const uint64_t word = atomic_load(range_word(r));
        if (!is_current(word, handle & WORD_GENERATION)) return VRANGE_GONE;
        if (word_state(word) == BUSY) {
            wait_a_little(&waited);
            continue;
        }
        if (word_state(word) == PURGED || word & (WORD_LOST | WORD_PARTIAL)) return VRANGE_GONE;
        *out = (range_place){range_address(r), range_bytes(r), range_word(r), word & WORD_GENERATION};
        /* The place is the one of this range if it was there before and after. */
        if (range_was_there(atomic_load(range_word(r)), out->generation, true)) return VRANGE_OK;
    }
}

bool range_was_there(uint64_t word, uint64_t generation, bool offered_counts) {
    const uint64_t state = word_state(word);
    if ((word & WORD_GENERATION) != generation || word & (WORD_LOST | WORD_PARTIAL)) return false;
    return state == RESIDENT || (offered_counts && state == OFFERED);
}
