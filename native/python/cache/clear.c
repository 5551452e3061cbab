/* Clearing: everything leaves at once, and is given back in steps.
 *
 * A cache of a million entries has a million references to drop, and as many ranges to free. The caller that
 * clears it does not wait for that: the index and the slabs are moved into a grave as they are, and the cache
 * is empty. Later stores, and a thread that clear() starts (_cache/burial.py), empty the graves a few entries
 * at a time. */
#include "python/cache/clear.h"

#include <stdlib.h>
#include <string.h>

#include "python/cache/evict.h"
#include "python/cache/flight.h"
#include "python/cache/hot_front.h"
#include "python/cache/limbo.h"

typedef struct grave {
    struct grave *next;
    cache_index index;
    slab_table slabs;
    uint32_t record, slab;
    bool arena_is_gone;
} grave;

static void forget_places(cache_core *self) {
    self->slabs = (slab_table){0};
    hot_forget(self);
    self->bytes = 0;
    self->hand = 0;
    expiry_clear(&self->deadlines);
    ghosts_clear(&self->ghosts);
}

void clear_all(cache_core *self) {
    grave *g = calloc(1, sizeof *g);
    if (!g) { /* no memory for a grave: one entry at a time */
        for (entry_no number = 1; number < self->index.records; number++) {
            if (entry_at(&self->index, number)->state == RECORD_LISTED) evict_entry(self, number, NOT_TOLD);
        }
        ghosts_clear(&self->ghosts);
        limbo_drain(self);
        return;
    }
    while (self->index.limbo) limbo_drain(self);
    while (self->flights) flight_detach(self->flights);
    g->index = self->index;
    g->slabs = self->slabs;
    g->arena_is_gone = !self->arena;
    g->record = 1;
    g->next = self->graves;
    self->graves = g;
    index_forget(&self->index);
    forget_places(self);
}

/* Gives back the next entry of a grave. May run Python. */
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
    const uint64_t handle = slabs_dismantle(&g->slabs, g->slab++);
    if (handle && !g->arena_is_gone) vrange_free(handle);
}

bool clear_some(cache_core *self, uint32_t most) {
    for (; most > 0 && self->graves; most--) {
        grave *g = self->graves; /* read each time: dropping a reference may lead back here */
        if (g->record < g->index.records) {
            bury_entry(g);
        } else if (g->slab < g->slabs.room) {
            bury_slab(g);
        } else {
            self->graves = g->next;
            index_free(&g->index);
            free(g->slabs.all);
            free(g);
        }
    }
    return self->graves != NULL;
}

int clear_visit(const cache_core *self, visitproc visit, void *arg) {
    for (const grave *g = self->graves; g; g = g->next) {
        const int result = index_visit(&g->index, visit, arg);
        if (result) return result;
    }
    return 0;
}
