/* Frees ranges: one at a time, or all of a closing arena. A pinned range is freed with its last pin. */
#include "ranges/range_free.h"

#include <errno.h>
#include <stdlib.h>

#include "base/gate.h"
#include "counters/stats.h"
#include "ranges/arena.h"
#include "ranges/range_busy.h"
#include "ranges/range_loss.h"
#include "ranges/range_table.h"

void range_finish_free(range *r, bool has_pages) {
    if (has_pages) range_empty(r);
    range_forget_lost_pages(r);
    free(r->sentinel_words);
    r->sentinel_words = NULL;
    arena_give(r);
}

/* The range is BUSY and current, and was in `state`. Removes it from the accounts and frees it. */
static void free_busy(range *r, uint64_t state) {
    vrange_account *account = r->arena->account;
    const int64_t bytes = (int64_t)range_bytes(r);
    if (state == RESIDENT) stats_idle(account, -bytes);
    if (state == OFFERED) range_count_offer_over(r);
    if (state == PURGED) untally(&account->purged_bytes, (uint64_t)bytes);
    range_finish_free(r, state != PURGED);
}

/* Frees the range now, or dooms it if it is pinned. Called inside the gate. */
static int free_or_doom(range *r, uint64_t generation) {
    for (;;) {
        uint64_t word;
        int result = take_busy(r, generation, &word);
        if (result == VRANGE_OK) {
            free_busy(r, word_state(word));
            return VRANGE_OK;
        }
        if (result != VRANGE_HELD) return result;
        if (atomic_compare_exchange_strong(range_word(r), &word, word | WORD_DOOMED)) return VRANGE_OK;
    }
}

int vrange_free(uint64_t handle) {
    range *r = range_of(handle);
    if (!r) return VRANGE_GONE;
    gate_enter();
    int result = free_or_doom(r, handle & WORD_GENERATION);
    gate_leave();
    return result;
}

/* Frees the range if it belongs to `arena`; if it is pinned, dooms it. */
static void abandon(range *r, vrange_arena *arena) {
    /* Read the word before the arena: if the range is freed and taken by another arena in between, its
     * generation has changed, and free_or_doom does nothing. */
    uint64_t word = atomic_load(range_word(r));
    if (atomic_load(&r->arena) == arena && word_state(word) != FREE)
        free_or_doom(r, word & WORD_GENERATION);
}

void vrange_arena_close(vrange_arena *arena) {
    gate_enter();
    arena_begin_closing(arena);
    /* Ranges without pins are freed now, the others with their last pin. */
    for (uint32_t index = 1; index < table_count(); index++) abandon(table_at(index), arena);
    arena_end_closing(arena);
    gate_leave();
}
