/* Expiry: which entries' time is over, without looking at all of them.
 *
 * A binary heap of deadlines, for caches whose values expire. An entry that goes or gets another value
 * leaves its deadline behind, which its stamp tells; when most are left behind, the heap is made anew. Each
 * entry may have a deadline of its own. Nothing here runs Python. */
#include "python/cache/core.h"

#define LEAST 1024u

static bool is_current(const cache_core *self, const deadline *d) {
    if (d->number >= self->index.records) return false;
    const entry *e = entry_at(&self->index, d->number);
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

static void leave_out_stale(cache_core *self) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < self->deadline_count; i++) {
        if (is_current(self, &self->deadlines[i])) self->deadlines[kept++] = self->deadlines[i];
    }
    self->deadline_count = kept;
    for (uint32_t i = kept / 2; i-- > 0;) sink(self->deadlines, kept, i);
}

static bool has_room(cache_core *self) {
    if (self->deadline_count < self->deadline_room) return true;
    if (self->deadline_count > LEAST && self->deadline_count > 2 * self->index.entries) {
        leave_out_stale(self);
        return true;
    }
    const uint32_t room = self->deadline_room ? self->deadline_room * 2 : LEAST;
    deadline *grown = realloc(self->deadlines, room * sizeof *grown);
    if (!grown) return false;
    self->deadlines = grown;
    self->deadline_room = room;
    return true;
}

void expiry_note(cache_core *self, entry_no number) {
    const entry *e = entry_at(&self->index, number);
    if (!e->expires || !has_room(self)) return;
    const deadline added = {*deadline_at(&self->index, number), number, e->stamp};
    uint32_t place = self->deadline_count++;
    while (place && added.at_ns < self->deadlines[(place - 1) / 2].at_ns) {
        self->deadlines[place] = self->deadlines[(place - 1) / 2];
        place = (place - 1) / 2;
    }
    self->deadlines[place] = added;
}

entry_no expiry_next(cache_core *self, uint64_t now_ns) {
    while (self->deadline_count && self->deadlines[0].at_ns <= now_ns) {
        const deadline first = self->deadlines[0];
        self->deadlines[0] = self->deadlines[--self->deadline_count];
        if (self->deadline_count) sink(self->deadlines, self->deadline_count, 0);
        if (is_current(self, &first)) return first.number;
    }
    return 0;
}
