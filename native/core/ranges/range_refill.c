/* Reports which blocks of a pinned range are lost, until the caller that refills them has called
 * vrange_refilled. */
#include <errno.h>

#include "base/gate.h"
#include "counters/stats.h"
#include "os/os.h"
#include "ranges/arena_state.h"
#include "ranges/range_busy.h"
#include "ranges/range_loss.h"
#include "ranges/range_table.h"
#include "vrange.h"

static size_t list_lost(const range *r, vrange_block *out, size_t capacity) {
    const size_t page_bytes = os_page_bytes();
    size_t count = 0;
    bool joins = false;
    for (uint32_t page = 0; page < r->pages; page++) {
        bool lost = !r->lost_pages || r->lost_pages[page / 64] >> page % 64 & 1;
        if (lost && !joins && count++ < capacity)
            out[count - 1] = (vrange_block){page * page_bytes, 0};
        if (lost && count <= capacity) out[count - 1].bytes += page_bytes;
        joins = lost;
    }
    return count;
}

int64_t vrange_lost_blocks(uint64_t handle, vrange_block *out, size_t capacity) {
    range *r = range_of(handle);
    if (!r) return 0;
    size_t count = 0;
    uint64_t word;
    gate_enter();
    int result = take_busy(r, handle & WORD_GENERATION, &word);
    if (result == VRANGE_OK) {
        if (word & WORD_LOST) count = list_lost(r, out, capacity);
        put_state(r, word, word_state(word));
    } else if (result == VRANGE_HELD) {
        /* The range is pinned, so only vrange_refilled can change which pages are lost. */
        vrange_arena *arena = r->arena;
        pthread_mutex_lock(&arena->lock);
        if (word & WORD_LOST && atomic_load(range_word(r)) & WORD_LOST)
            count = list_lost(r, out, capacity);
        pthread_mutex_unlock(&arena->lock);
    }
    gate_leave();
    return (int64_t)count;
}

/* Adds a pin to a pinned range. Its other holders may release it at any moment, and the reserve would then
 * use what the caller is about to change. */
static int keep_pinned(range *r, uint64_t generation, uint64_t *word) {
    for (;;) {
        if (!is_current(*word, generation)) return VRANGE_GONE;
        if (word_pins(*word) == 0) return -EBUSY;
        if ((*word & WORD_PINS) == WORD_PINS) return -EOVERFLOW;
        if (atomic_compare_exchange_weak(range_word(r), word, *word + WORD_PIN)) return VRANGE_OK;
    }
}

int vrange_refilled(uint64_t handle) {
    range *r = range_of(handle);
    if (!r) return VRANGE_GONE;
    int result = VRANGE_OK;
    bool kept = false;
    gate_enter();
    uint64_t word = atomic_load(range_word(r));
    vrange_arena *arena = r->arena;
    if (!is_current(word, handle & WORD_GENERATION) || !arena) {
        result = VRANGE_GONE;
    } else if ((result = keep_pinned(r, handle & WORD_GENERATION, &word)) == VRANGE_OK) {
        if (word & WORD_LOST) {
            pthread_mutex_lock(&arena->lock);
            atomic_fetch_and(range_word(r), ~WORD_LOST);
            range_forget_lost_pages(r);
            pthread_mutex_unlock(&arena->lock);
            vrange_latency_record(arena->account->kind, VRANGE_REALLOCATE_PURGED,
                                  os_now_ns() - atomic_load(&r->released_ns));
        }
        kept = true;
    }
    gate_leave();
    if (kept) vrange_release(handle);
    return result;
}
