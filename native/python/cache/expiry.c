/* Expiry; see expiry.h.
 *
 * A binary heap of deadlines, for caches whose values expire. Each entry may have a deadline of its own. An
 * entry that leaves or gets another value leaves a stale deadline in the heap; its stamp shows that it is
 * stale. If the heap is full and most of its deadlines are stale, they are removed. Nothing here runs
 * Python. */
#include "python/cache/expiry.h"

#include <stdlib.h>

#define LEAST 1024u

static bool is_current(const cache_index *index, const deadline *d) {
    if (d->number >= index->records) return false;
    const entry *e = entry_at(index, d->number);
    return e->state == RECORD_LISTED && e->stamp == d->stamp;
}

static void sink(deadline *heap, uint32_t count, uint32_t place) {
    const deadline moved = heap[place];
    for (uint32_t child; (child = 2 * place + 1) < count; place = child) {
        if (child + 1 < count && heap[child + 1].at_ns < heap[child].at_ns) child++;
        if (moved.at_ns <= heap[child].at_ns) break;
        heap[place] = heap[child];
    }
    heap[place] = moved;
}

static void leave_out_stale(deadlines *all, const cache_index *index) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < all->count; i++) {
        if (is_current(index, &all->heap[i])) all->heap[kept++] = all->heap[i];
    }
    all->count = kept;
    for (uint32_t i = kept / 2; i-- > 0;) sink(all->heap, kept, i);
}

static bool has_room(deadlines *all, const cache_index *index) {
    if (all->count < all->room) return true;
    if (all->count > LEAST && all->count > 2 * index->entries) {
        leave_out_stale(all, index);
        return true;
    }
    const uint32_t room = all->room ? all->room * 2 : LEAST;
    deadline *grown = realloc(all->heap, room * sizeof *grown);
    if (!grown) return false;
    all->heap = grown;
    all->room = room;
    return true;
}

void expiry_note(deadlines *all, const cache_index *index, entry_no number) {
    const entry *e = entry_at(index, number);
    if (!e->expires || !has_room(all, index)) return;
    const deadline added = {*deadline_at(index, number), number, e->stamp};
    uint32_t place = all->count++;
    while (place && added.at_ns < all->heap[(place - 1) / 2].at_ns) {
        all->heap[place] = all->heap[(place - 1) / 2];
        place = (place - 1) / 2;
    }
    all->heap[place] = added;
}

entry_no expiry_next(deadlines *all, const cache_index *index, uint64_t now_ns) {
    while (all->count && all->heap[0].at_ns <= now_ns) {
        const deadline first = all->heap[0];
        all->heap[0] = all->heap[--all->count];
        if (all->count) sink(all->heap, all->count, 0);
        if (is_current(index, &first)) return first.number;
    }
    return 0;
}

void expiry_clear(deadlines *all) {
    free(all->heap);
    *all = (deadlines){0};
}
