/* Clearing: everything goes at once, and is given back in steps.
 *
 * A cache of a million entries has a million references to drop and ranges to free. Whoever clears it does
 * not wait for that: the index and the slabs are put into a grave as they are, and the cache is empty. Graves
 * are emptied a few entries at a time, by whoever stores and by a thread that clear() starts (cache.py). */
#include "python/cache/flight.h"

typedef struct grave {
    struct grave *next;
    cache_index index;
    slab **slabs;
    uint32_t slab_room, record, slab;
    bool arena_is_gone;
} grave;

static void forget_places(cache_core *self) {
    memset(self->open, 0, sizeof self->open);
    self->slabs = NULL;
    self->slab_room = self->slab_free = 0;
    self->oldest = self->newest = 0;
    self->hot_bytes = 0;
    *vrange_account_hot(self->account) = 0;
    self->bytes = 0;
    self->hand = 0;
    free(self->deadlines);
    self->deadlines = NULL;
    self->deadline_count = self->deadline_room = 0;
    ghosts_clear(self);
}

void evict_all(cache_core *self) {
    grave *g = calloc(1, sizeof *g);
    if (!g) { /* an entry at a time, then */
        for (entry_no number = 1; number < self->index.records; number++) {
            if (entry_at(&self->index, number)->state == RECORD_LISTED) evict_entry(self, number);
        }
        ghosts_clear(self);
        core_drain(self);
        return;
    }
    while (self->limbo) core_drain(self);
    while (self->flights) flight_detach(self->flights);
    g->index = self->index;
    g->slabs = self->slabs;
    g->slab_room = self->slab_room;
    g->arena_is_gone = !self->arena;
    g->record = 1;
    g->next = self->graves;
    self->graves = g;
    index_forget(self);
    forget_places(self);
}

/* One more entry of the first grave. May run Python. */
static void bury_entry(grave *g) {
    entry *e = entry_at(&g->index, g->record++);
    PyObject *key = e->key, *value = e->value, *form = e->form;
    const uint64_t place = e->place;
    const bool has_range = place && !(place & (PLACE_SLOT | PLACE_FLIGHT)) && !g->arena_is_gone;
    *e = (entry){0};
    if (has_range) vrange_free(place);
    Py_XDECREF(key);
    Py_XDECREF(value);
    Py_XDECREF(form);
}

static void bury_slab(grave *g) {
    slab *s = g->slabs[g->slab++];
    if ((uintptr_t)s & 1) return; /* none: the next free number */
    if (!g->arena_is_gone) vrange_free(s->handle);
    free(s);
}

bool evict_bury_some(cache_core *self, uint32_t most) {
    for (; most > 0 && self->graves; most--) {
        grave *g = self->graves; /* each time anew: what is dropped may come back here */
        if (g->record < g->index.records) {
            bury_entry(g);
        } else if (g->slab < g->slab_room) {
            bury_slab(g);
        } else {
            self->graves = g->next;
            index_free(&g->index);
            free(g->slabs);
            free(g);
        }
    }
    return self->graves != NULL;
}

int visit_entries(const cache_index *index, visitproc visit, void *arg) {
    for (entry_no number = 1; number < index->records; number++) {
        const entry *e = entry_at(index, number);
        if (e->collected) Py_VISIT(e->key);
        Py_VISIT(e->value);
        Py_VISIT(e->form);
    }
    return 0;
}

int visit_graves(const cache_core *self, visitproc visit, void *arg) {
    for (const grave *g = self->graves; g; g = g->next) {
        const int result = visit_entries(&g->index, visit, arg);
        if (result) return result;
    }
    return 0;
}
